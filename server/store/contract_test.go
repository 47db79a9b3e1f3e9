//go:build linux

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store/storetest"
	"hawser/transport"
)

var cluster storetest.Cluster

// TestMain also plays the process that TestAKillLosesNothing kills.
func TestMain(m *testing.M) {
	if os.Getenv(childOptions) != "" {
		os.Exit(play())
	}
	os.Exit(cluster.Run(m))
}

// rig is an empty database of one kind.
type rig struct {
	url  string  // PostgreSQL
	db   *sql.DB // memory
	dir  string  // SQLite
	dirs map[string]string
}

// options opens the database as a node, whose directory is the same each time.
func (r *rig) options(t testing.TB, node string) Options {
	t.Helper()
	o := Options{Node: node, URL: r.url, Database: r.db, Dir: r.dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if r.url != "" {
		if r.dirs[node] == "" {
			r.dirs[node] = newDir(t)
		}
		o.Dir = r.dirs[node]
	}
	return o
}

func (r *rig) open(t testing.TB, node string) *Store {
	t.Helper()
	s := open(t, r.options(t, node))
	t.Cleanup(func() { end(t, s) })
	return s
}

// onEach runs a test on each kind of database: the promises are the same.
func onEach(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Run("sqlite", func(t *testing.T) { f(t, &rig{dir: newDir(t)}) })
	onShared(t, f)
}

// onShared runs a test on the kinds that several nodes can share.
func onShared(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Run("memory", func(t *testing.T) {
		db, err := Memory()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		f(t, &rig{db: db})
	})
	t.Run("postgres", func(t *testing.T) { f(t, newPostgres(t)) })
}

func newPostgres(t testing.TB) *rig {
	t.Helper()
	return &rig{url: cluster.URL(t), dirs: make(map[string]string)}
}

// update runs f in Update and wants it to be written.
func update(t testing.TB, s *Store, f func(*Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s *Store, f func(*Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// healthy wants everything to be as it was written.
func healthy(t testing.TB, s *Store) {
	t.Helper()
	if h, err := s.ReadAll(t.Context()); err != nil || h.Err() != nil {
		t.Error(err, h.Err())
	}
}

func sample(kind identity.Kind) *Member {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	return &Member{Kind: kind, ID: identity.NewUID().String(), Domain: "plant", Name: "Presse Süd 1", Created: now, Code: "abc", CodeHash: Hash{1, 2},
		CodeExpires: now, SPKI: identity.SPKI{9}, Chain: "-----BEGIN", Enrolled: now, NotAfter: now, Hints: map[string]string{"a": "b"}, Revoked: now, Folder: "north/hall"}
}

// samples has a row of each table, no value of which is zero, and what changes in it.
func samples() []Row {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	uid, key := identity.NewUID(), identitytest.NewOwner("plant").Key
	return []Row{
		&Domain{Name: "plant", Created: now, Infrastructure: true, Key: key},
		&User{Domain: "plant", Name: "admin", Created: now, Revoked: now},
		&UserKey{Domain: "plant", User: "admin", SPKI: identity.SPKI{1}, Login: now, NotAfter: now},
		sample(identity.KindDevice), sample(identity.KindRelay),
		&Code{Lookup: "abc", Kind: identity.KindDevice, Domain: "plant", Subject: uid.String(), Hash: Hash{7}, Expires: now, Used: identity.SPKI{1}, UsedAt: now,
			MAC: Hash{8}, List: 9, Statements: []string{"a.b.c"}},
		&Slot{Lookup: "abc", Slot: 2, Subject: uid.String(), MAC: Hash{6}, Statements: []string{"a.b.c"}, Expires: now, Used: identity.SPKI{2}, UsedAt: now},
		&DomainReset{Domain: "plant", Sequence: 5, Reset: []byte{1, 2}, At: now},
		&Statement{Domain: "plant", ID: Hash{3}, Typ: "hawser-key", Subject: DeviceSubject(uid), SPKI: identity.SPKI{4}, Serial: 5, Ends: now, JWS: "a.b.c", At: now},
		&RelayAddresses{Relay: "r1", Hosts: []string{"h"}, Ports: []transport.Port{443}},
		&Join{ID: uid.String(), Domain: "plant", SPKI: identity.SPKI{1}, Counter: 3, State: Hash{4}, NextCounter: 5, Next: Hash{6},
			Instances: []string{"i", "j"}, Changed: now, Cloned: now, Accepted: identity.SPKI{2},
			Fresh: []FreshKey{{Key: key, Address: "192.0.2.1:5", Instance: "i", Since: now, At: now}}},
		&RevokedKey{SPKI: identity.SPKI{1}, Name: "hawser://x", When: now},
		&Session{ID: "s1", Epoch: 3, Domain: "plant", Device: uid, User: "admin", Relay: "r1", Lost: "r2", Instance: "i", Created: now, Ended: now, Reason: transport.Reason("ended")},
		&Reported{ID: Hash{5}, At: now},
		&Measured{Key: "device.x", At: now, Relays: json.RawMessage(`[1]`)},
		&Decision{Device: uid, User: "admin", At: now, Choice: json.RawMessage(`{"a":1}`)},
		&Node{Name: "a1", CA: identity.SPKI{1}, Hosts: []string{"h"}, Ports: []transport.Port{443}},
		&Presence{Name: "hawser://x", Node: "a1", Run: "r", Since: now, Body: json.RawMessage(`{}`)},
		&Record{Node: "a9", Seq: 1, Time: now, Domain: "plant", Actor: "a", Action: "b", Object: "c", Result: "ok", Detail: "d", Report: "a.b.c", Prev: "p", Hash: "h"},
	}
}

// emptied returns a row with the key of another and nothing else.
func emptied(r Row) Row {
	empty := r.table().row()
	for i, f := range empty.fields()[:r.table().keys] {
		reflect.ValueOf(f).Elem().Set(reflect.ValueOf(r.fields()[i]).Elem())
	}
	return empty
}

func TestRowsComeBackAsTheyWere(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		tables := make(map[string]bool)
		for _, row := range samples() {
			tables[row.table().name] = true
			get := func() (Row, error) {
				got := emptied(row)
				return got, s.View(t.Context(), func(tx *Tx) error { return tx.Get(got) })
			}
			if _, err := get(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%T before: %v", row, err)
			}
			for i, write := range []func(*Tx, Row) error{(*Tx).Insert, (*Tx).Put} {
				update(t, s, func(tx *Tx) error { return write(tx, row) })
				if got, err := get(); err != nil || !reflect.DeepEqual(got, row) {
					t.Errorf("%T, write %d: %+v, %v, want %+v", row, i, got, err, row)
				}
			}
			if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(row) }); !errors.Is(err, ErrExists) {
				t.Errorf("%T twice: %v", row, err)
			}
			empty := emptied(row)
			update(t, s, func(tx *Tx) error { return tx.Put(empty) })
			if got, err := get(); err != nil || fmt.Sprint(got) != fmt.Sprint(empty) {
				t.Errorf("%T with zero values: %+v, %v, want %+v", row, got, err, empty)
			}
			if row.table() != schema.audit { // whose records are in a chain
				healthy(t, s)
			}
			update(t, s, func(tx *Tx) error { return tx.Delete(row) })
			if _, err := get(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%T after: %v", row, err)
			}
			if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Delete(row) }); !errors.Is(err, ErrNotFound) {
				t.Errorf("%T deleted twice: %v", row, err)
			}
		}
		if len(tables) != len(schema.all()) {
			t.Errorf("tried %v", tables)
		}
		healthy(t, s)
	})
}

func TestTextThatIsNoneIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		for _, name := range []string{"a\x00b", "\xff"} {
			if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(device(name)) }); err == nil {
				t.Errorf("%q is written", name)
			}
		}
	})
}

func TestDevicesAreListedInPages(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		names := []string{"B", "a", "a 1", "a_1", "a%1", "b", "Ä", "ä", "z"}
		for i, name := range names {
			d := device(name)
			if i%3 == 1 {
				d.Enrolled = d.Created
			} else if i%3 == 2 {
				d.Revoked = d.Created
			}
			insert(t, s, d)
		}
		other := device("a")
		other.Domain = "elsewhere"
		gone := device("a")
		gone.Revoked = gone.Created
		insert(t, s, other, gone)
		// By the UID, which another one has as its name.
		const begin = "abcd0123"
		named, numbered, late := device("x "+begin), device("y"), device("zz")
		numbered.ID, late.ID = begin+numbered.ID[len(begin):], begin+late.ID[len(begin):]
		insert(t, s, named, numbered, late)
		page := func(f DeviceFilter) (all []string) {
			f.Domain, f.Limit = "plant", 2
			for {
				var list []Member
				view(t, s, func(tx *Tx) (err error) { list, err = tx.Devices(f); return err })
				for _, m := range list {
					all = append(all, m.Name)
					f.After = DevicePlace{m.Name, m.ID}
				}
				if len(list) < f.Limit {
					return all
				}
			}
		}
		want := slices.Sorted(slices.Values(append(names, "a", named.Name, numbered.Name, late.Name)))
		for _, c := range []struct {
			filter DeviceFilter
			want   []string
		}{
			{DeviceFilter{}, want},
			{DeviceFilter{Query: "A"}, []string{"a", "a", "a 1", "a%1", "a_1", named.Name}},
			{DeviceFilter{Query: "_"}, []string{"a_1"}},
			{DeviceFilter{Query: "%"}, []string{"a%1"}},
			{DeviceFilter{Query: "Ä"}, []string{"Ä"}},
			{DeviceFilter{Query: "!"}, nil},
			{DeviceFilter{Query: begin[:3]}, []string{named.Name}},
			{DeviceFilter{Query: "ABCD"}, []string{named.Name, numbered.Name, late.Name}},
			{DeviceFilter{Query: begin + "_"}, nil},
			{DeviceFilter{Query: numbered.ID}, []string{numbered.Name}},
			{DeviceFilter{Query: begin, State: "enrolled"}, nil},
			{DeviceFilter{State: "pending"}, []string{"B", "a_1", named.Name, numbered.Name, late.Name, "Ä"}},
			{DeviceFilter{State: "enrolled"}, []string{"a", "a%1", "ä"}},
			{DeviceFilter{State: "revoked"}, []string{"a", "a 1", "b", "z"}},
		} {
			if got := page(c.filter); !slices.Equal(got, c.want) {
				t.Errorf("%+v: %q, want %q", c.filter, got, c.want)
			}
		}
	})
}

func TestOneFunctionThatFailsDoesNotHarmOthers(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		insert(t, s, device("taken"))
		bad := map[string]func(*Tx) error{
			"unique":    func(tx *Tx) error { return tx.Insert(device("taken")) },
			"swallowed": func(tx *Tx) error { tx.Insert(device("taken")); return nil },
			"panic":     func(tx *Tx) error { tx.Insert(device("panic")); panic("test") },
			"nil":       func(tx *Tx) error { return tx.Insert((*Domain)(nil)) },
			"sql":       func(tx *Tx) error { tx.exec("SELECT nonsense FROM nowhere"); return nil },
		}
		// All wait while one holds the writer, so that they share a commit.
		holding, hold := make(chan bool), make(chan bool)
		go s.Update(t.Context(), func(*Tx) error { holding <- true; <-hold; return nil })
		<-holding
		type answer struct {
			name string
			err  error
		}
		answers := make(chan answer)
		for name, f := range bad {
			go func() { answers <- answer{name, s.Update(context.Background(), f)} }()
		}
		const good = 10
		for i := range good {
			go func() {
				answers <- answer{"", s.Update(context.Background(), func(tx *Tx) error { return tx.Insert(device(fmt.Sprint(i))) })}
			}()
		}
		close(hold)
		for range len(bad) + good {
			a := <-answers
			if (a.err == nil) != (a.name == "") {
				t.Errorf("%q: %v", a.name, a.err)
			}
			if unique := a.name == "unique" || a.name == "swallowed"; unique != errors.Is(a.err, ErrExists) {
				t.Errorf("%q: %v", a.name, a.err)
			}
		}
		view(t, s, func(tx *Tx) error {
			list, err := tx.Devices(DeviceFilter{Domain: "plant", Limit: 100})
			if len(list) != good+1 {
				t.Errorf("%d devices", len(list))
			}
			return err
		})
		healthy(t, s)
	})
}

// A name is free again when its device is revoked. Two nodes that add it at once do not both succeed.
func TestNamesAreUniqueAmongWhatIsNotRevoked(t *testing.T) {
	onShared(t, func(t *testing.T, r *rig) {
		nodes := []*Store{r.open(t, "a1"), r.open(t, "a2")}
		mine := errors.New("the function saw it")
		add := func(name string) func(*Tx) error {
			return func(tx *Tx) error {
				switch m, err := tx.DeviceByName("plant", name); {
				case err == nil && m.Revoked.IsZero():
					return mine
				case err != nil && !errors.Is(err, ErrNotFound):
					return err
				}
				return tx.Insert(device(name))
			}
		}
		for i := range 30 {
			name := fmt.Sprint("press ", i/3)
			errs := make(chan error)
			for _, s := range nodes {
				go func() { errs <- s.Update(context.Background(), add(name)) }()
			}
			won := 0
			for range nodes {
				if err := <-errs; err == nil {
					won++
				} else if !errors.Is(err, mine) {
					t.Errorf("round %d: %v", i, err)
				}
			}
			if won != 1 {
				t.Errorf("round %d: %d devices of one name", i, won)
			}
			update(t, nodes[0], func(tx *Tx) error {
				m, err := tx.DeviceByName("plant", name)
				m.Revoked = time.Now()
				return errors.Join(err, tx.Put(&m))
			})
		}
		for _, s := range nodes {
			healthy(t, s)
		}
	})
}

func TestAuditIsFiltered(t *testing.T) {
	onShared(t, func(t *testing.T, r *rig) {
		a, b := r.open(t, "a1"), r.open(t, "a2")
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range 20 {
			s := []*Store{a, b}[i%2]
			update(t, s, func(tx *Tx) error {
				return tx.Append(Record{Time: start.Add(time.Duration(i) * time.Minute), Domain: []string{"", "plant"}[i/2%2], Actor: fmt.Sprint("actor", i%5),
					Object: fmt.Sprint("object", i%4), Action: fmt.Sprint(i), Result: "ok", Detail: "ümlaut"})
			})
		}
		all := func(f AuditFilter) (got []string) {
			f.Limit = 3
			for {
				var list []Record
				view(t, a, func(tx *Tx) (err error) { list, err = tx.Audit(f); return err })
				var page []string
				for _, r := range list {
					page = append(page, r.Action)
				}
				got = append(page, got...)
				if len(list) < f.Limit {
					return got
				}
				f.Before = list[0].Place()
			}
		}
		choose := func(f func(i int) bool) (want []string) {
			for i := range 20 {
				if f(i) {
					want = append(want, fmt.Sprint(i))
				}
			}
			return want
		}
		for _, c := range []struct {
			f    AuditFilter
			want []string
		}{
			{AuditFilter{}, choose(func(int) bool { return true })},
			{AuditFilter{Node: "a2"}, choose(func(i int) bool { return i%2 == 1 })},
			{AuditFilter{Domains: []string{"plant"}}, choose(func(i int) bool { return i/2%2 == 1 })},
			{AuditFilter{Domains: []string{"plant", "", "plant", "elsewhere"}}, choose(func(int) bool { return true })},
			{AuditFilter{Domains: []string{"plant", ""}, Actor: "actor3"}, choose(func(i int) bool { return i%5 == 3 })},
			{AuditFilter{Domains: []string{""}}, choose(func(i int) bool { return i/2%2 == 0 })},
			{AuditFilter{Actor: "actor3"}, choose(func(i int) bool { return i%5 == 3 })},
			{AuditFilter{Object: "object1", Since: start.Add(6 * time.Minute)}, choose(func(i int) bool { return i%4 == 1 && i > 5 })},
			{AuditFilter{Node: "nobody"}, nil},
		} {
			if got := all(c.f); !slices.Equal(got, c.want) {
				t.Errorf("%+v: %q, want %q", c.f, got, c.want)
			}
		}
		var list []Record
		view(t, a, func(tx *Tx) (err error) { list, err = tx.Audit(AuditFilter{Limit: 100}); return err })
		if err := VerifyAudit(list); err != nil || strings.Contains(list[0].Detail, "ü") {
			t.Errorf("%v, %+v", err, list[0])
		}
	})
}
