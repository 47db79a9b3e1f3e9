//go:build linux

package store

import (
	"fmt"
	"testing"
	"time"

	"hawser/identity"
)

// Statements are found by whom they are about, and go 30 days after they ended; those that do not end stay.
func TestStatementsAreFoundAndGo(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		now, uid := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), identity.NewUID()
		row := func(n byte, domain, subject string, ends time.Time) *Statement {
			return &Statement{Domain: domain, ID: Hash{n}, Typ: "hawser-key", Subject: subject, Ends: ends, JWS: fmt.Sprint(n), At: now.Add(time.Duration(n/2) * time.Second)}
		}
		// A user's label may look like a UID.
		insert(t, s, row(1, "plant", "", time.Time{}), row(2, "plant", UserSubject("ann"), now.Add(-31*24*time.Hour)), row(3, "plant", DeviceSubject(uid), time.Time{}),
			row(4, "plant", UserSubject(uid.String()), now.Add(-29*24*time.Hour)), row(5, "mill", DeviceSubject(uid), now))
		texts := func(list []Statement, err error) (text string) {
			if err != nil {
				t.Error(err)
			}
			for _, st := range list {
				text += st.JWS
			}
			return text
		}
		read := func() (people, of, page string) {
			view(t, s, func(tx *Tx) error {
				people, of = texts(tx.People("plant")), texts(tx.StatementsOf("plant", DeviceSubject(uid)))
				list, err := tx.Statements("plant", StatementPlace{}, 2)
				page = texts(list, err) + "|"
				for len(list) > 0 {
					last := list[len(list)-1]
					list, err = tx.Statements("plant", StatementPlace{last.At, last.ID}, 2)
					page += texts(list, err) + "|"
				}
				return nil
			})
			return people, of, page
		}
		if people, of, page := read(); people != "124" || of != "3" || page != "12|34||" {
			t.Errorf("%s %s %s", people, of, page)
		}
		if err := s.Prune(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if people, of, page := read(); people != "14" || of != "3" || page != "13|4||" {
			t.Errorf("afterwards: %s %s %s", people, of, page)
		}
		healthy(t, s)
	})
}

func TestSessionsAreFoundByTheirUser(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		insert(t, s, &Session{ID: "1", Domain: "plant", User: "ann"}, &Session{ID: "2", Domain: "mill", User: "ann"}, &Session{ID: "3", Domain: "plant", User: "bob"},
			&Session{ID: "4", Domain: "plant", User: "ann", Ended: time.Now()}, &User{Domain: "plant", Name: "bob"}, &User{Domain: "plant", Name: "ann"}, &User{Domain: "mill", Name: "ann"})
		view(t, s, func(tx *Tx) error {
			list, err := tx.OpenSessionsBy("plant", "ann")
			if err != nil || len(list) != 1 || list[0].ID != "1" {
				t.Errorf("%+v, %v", list, err)
			}
			users, err := tx.Users("plant")
			if err != nil || len(users) != 2 || users[0].Name != "ann" {
				t.Errorf("%+v, %v", users, err)
			}
			return nil
		})
	})
}
