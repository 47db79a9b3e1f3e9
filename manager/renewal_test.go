package manager

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport/api"
)

// renewed is the one user of a renewal of one.
func renewed(users []identity.UserStatement, err error) (u identity.UserStatement, _ error) {
	if len(users) == 1 {
		u = users[0]
	}
	return u, err
}

// stated keeps a user who is stated for so long.
func (f *fake) stated(kept *[]string, user string, role identity.Role, life time.Duration) {
	u := identity.UserStatement{Domain: "default", User: user, Role: role, Exp: time.Now().Add(life).Unix(), Serial: f.owner.Serial()}
	if role != identity.RoleAdmin {
		u.Scope = &identity.Scope{Devices: []string{"north"}, Targets: []string{"192.168.1.0/24:102"}}
	}
	*kept = append(*kept, f.owner.Sign(u).JWS, f.owner.UserKey(user, identitytest.NewKey().Public()).JWS)
}

const day = 24 * time.Hour

// Who ends soon is told to every admin, and renewed when he has looked; nobody else is.
func TestWhoEndsSoonIsRenewedAfterALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		var notices []string
		m.Notice = func(text string) { notices = append(notices, text) }
		a := f.loggedIn(m)
		if len(notices) != 1 || !strings.Contains(notices[0], "domain export") {
			t.Errorf("a founder without a copy of his key is told %q", notices)
		}
		notices = nil
		f.answer("GET /users", jsonAnswer(api.Users{Users: []api.User{}}))
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		f.stated(kept, "ann", identity.RoleOperator, 90*day)
		f.stated(kept, "bob", identity.RoleViewer, 365*day)
		f.stated(kept, "contractor", identity.RoleOperator, 50*day)
		if _, err := a.Users(t.Context()); err != nil || len(notices) != 0 {
			t.Fatalf("told %q, %v", notices, err)
		}
		time.Sleep(40 * day) // ann has 50 days
		if _, err := a.Users(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(notices) != 1 || !strings.Contains(notices[0], "ann on 2000-03-31;") {
			t.Errorf("told %q", notices)
		}
		dueNow := func() (names []string) {
			for _, u := range a.due(must(a.read(t.Context()))) {
				names = append(names, u.User)
			}
			return names
		}
		if due := dueNow(); !slices.Equal(due, []string{"ann"}) {
			t.Fatalf("due are %q", due)
		}
		before := len(*kept)
		var shown Change
		m.Approve = func(c Change) error { shown = c; return errors.New("not so") }
		if _, err := a.RenewDue(t.Context()); err == nil || len(*kept) != before {
			t.Errorf("%v, and %d statements were signed", err, len(*kept)-before)
		}
		want := time.Now().Add(90 * day)
		if len(shown.Again) != 1 || len(shown.Falls) != 0 {
			t.Fatalf("shown was %+v", shown)
		}
		if s := shown.Again[0]; s.User != "ann" || s.Role != identity.RoleOperator || len(s.Keys) != 1 || s.Scope == nil || s.Ends.Sub(want).Abs() > time.Minute {
			t.Errorf("shown was %+v", s)
		}
		m.Approve = nil
		if u, err := renewed(a.RenewDue(t.Context())); err != nil || time.Unix(u.Exp, 0).Sub(want).Abs() > time.Minute {
			t.Errorf("%+v, %v", u, err)
		}
		if due := dueNow(); len(due) != 0 {
			t.Errorf("due are %q", due)
		}
		// The only admin ends.
		time.Sleep(270 * day)
		notices = nil
		if _, err := a.Users(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(notices) != 1 || !strings.Contains(notices[0], "admin on ") || !strings.Contains(notices[0], "nobody is an admin") {
			t.Errorf("told %q", notices)
		}
		f.stated(kept, "ada", identity.RoleAdmin, 365*day)
		notices = nil
		if _, err := a.Users(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(notices) != 1 || strings.Contains(notices[0], "nobody is an admin") {
			t.Errorf("told %q", notices)
		}
	})
}

// Nobody is renewed when one of them cannot be.
func TestARenewalIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.stated(kept, "ann", identity.RoleOperator, 90*day)
		before := len(*kept)
		if _, err := a.RenewUsers(t.Context(), "ann", "eve"); err == nil || len(*kept) != before {
			t.Errorf("%v, and %d statements were signed", err, len(*kept)-before)
		}
	})
}

// What hangs on an admin is shown before she ends, and a no ends nothing.
func TestWhatFallsWithAnAdminIsShownFirst(t *testing.T) {
	for keep := range map[bool]bool{false: true, true: true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			m := f.manager()
			a := f.loggedIn(m)
			kept, _ := f.mailbox()
			ada := identitytest.NewKey()
			*kept = append(*kept, f.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())...)
			hers := *f.owner
			hers.DomainKey = ada
			*kept = append(*kept, hers.UserChain("ann", identity.RoleOperator, nil, identitytest.NewKey().Public())...)
			*kept = append(*kept, hers.DeviceChain(identity.NewUID(), "press 1", identitytest.NewKey().Public())...)
			_, open := hers.Invite(hers.Device(identity.NewUID(), "press 2"))
			*kept = append(*kept, open.Subject.JWS, open.Invite.JWS)
			f.answer("POST /users/ada/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
			f.answer("GET /users", jsonAnswer(api.Users{Users: []api.User{}}))
			if u, err := a.User(t.Context(), "ada"); err != nil || len(u.Hangs) != 2 || u.Hangs[0].User != "ann" || u.Hangs[1].Name != "press 1" {
				t.Errorf("on her hang %+v, %v", u.Hangs, err)
			}
			before := len(*kept)
			var shown Change
			m.Approve = func(c Change) error { shown = c; return errors.New("not so") }
			if err := a.RevokeUser(t.Context(), "ada", keep); err == nil || len(*kept) != before || f.called("POST /users/ada/revoke") != 0 {
				t.Errorf("%v, and %d statements were signed", err, len(*kept)-before)
			}
			var again, falls []string
			for _, s := range shown.Again {
				again = append(again, s.User+s.Name)
			}
			for _, s := range shown.Falls {
				falls = append(falls, s.User+s.Name)
			}
			want := [2]string{"", "ann, press 1, press 2"}
			if keep {
				want = [2]string{"ann, press 1", "press 2"}
			}
			if got := [2]string{strings.Join(again, ", "), strings.Join(falls, ", ")}; got != want {
				t.Errorf("keep %v: shown was %q, want %q", keep, got, want)
			}
			var text strings.Builder
			if err := WriteChange(&text, shown); err != nil || !strings.Contains(text.String(), "press 2") || !strings.Contains(text.String(), "1 open") {
				t.Errorf("%v: %s", err, &text)
			}
		})
	}
}

// user show has the owner's word beside the server's.
func TestAUserIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.stated(kept, "ann", identity.RoleOperator, 90*day)
		key := said[identity.KeyStatement](*kept)[0].Key.SPKI()
		other := must(identity.SPKIOf(identitytest.NewKey().Public()))
		f.answer("GET /users", jsonAnswer(api.Users{Users: []api.User{{Name: "ann", Role: identity.RoleAdmin, Keys: []api.UserKey{{SPKI: key}, {SPKI: other}}}}}))
		u, err := a.User(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		if u.Role != identity.RoleOperator || !slices.Equal(u.Keys, []identity.SPKI{key}) || len(u.Logins) != 2 {
			t.Errorf("%+v", u)
		}
		var text strings.Builder
		if err := WriteUser(&text, u); err != nil || !strings.Contains(text.String(), "north") || strings.Count(text.String(), "yes")+strings.Count(text.String(), "no\n") != 2 {
			t.Errorf("%v: %s", err, &text)
		}
		if _, err := a.User(t.Context(), "eve"); err == nil {
			t.Error("a user whom nobody has stated is shown")
		}
	})
}

// Who loses rights is struck in what was said of him before, in the same request; who gets more is not.
func TestRightsAreTakenTogetherWithTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.stated(kept, "ann", identity.RoleOperator, 90*day)
		for _, c := range []struct {
			r    NewRights
			less bool
		}{
			{NewRights{Devices: []string{"north", "south"}}, false},
			{NewRights{Targets: []string{"192.168.1.7:102"}}, true},
			{NewRights{Life: 400 * day / 2}, false},
			{NewRights{Life: day}, true},
			{NewRights{Role: identity.RoleViewer}, true},
		} {
			time.Sleep(time.Second)
			before, posts := len(*kept), f.called("POST /statements")
			u, err := a.ChangeUser(t.Context(), "ann", c.r, false)
			if err != nil {
				t.Fatalf("%+v: %v", c.r, err)
			}
			if f.called("POST /statements") != posts+1 {
				t.Errorf("%+v: %d requests", c.r, f.called("POST /statements")-posts)
			}
			lists := said[identity.ListStatement]((*kept)[before:])
			if struck := len(lists) == 1 && slices.ContainsFunc(lists[0].Entries, func(e identity.Entry) bool {
				return e.User == "ann" && e.Statements == u.Serial && e.Until > u.Exp
			}); struck != c.less {
				t.Errorf("%+v: the lists are %+v", c.r, lists)
			}
			if again := said[identity.UserStatement]((*kept)[before:]); len(again) == 0 || again[0].User != "ann" || again[0].Serial != u.Serial {
				t.Errorf("%+v: stated %+v", c.r, again)
			}
		}
		if _, err := a.ChangeUser(t.Context(), "admin", NewRights{Role: identity.RoleViewer}, false); ExitCode(err) != answer.ExitUsage {
			t.Errorf("his own rights: %v", err)
		}
	})
}
