//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/server/store/storetest"
)

// raw writes past all seals and sums, as accidents do.
func raw(t testing.TB, s *Store, statements ...string) {
	t.Helper()
	err := s.transact(t.Context(), func(tx *Tx) error {
		for _, statement := range statements {
			if err := tx.exec(statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// refuses wants the store to write nothing more, to be read, and to say why; then it accepts.
func refuses(t testing.TB, s *Store, why string) {
	t.Helper()
	if lost := s.Health().Lost; !strings.Contains(lost, why) {
		t.Errorf("health %q, want %q", lost, why)
	}
	if err := s.Health().Granting(); !errors.Is(err, ErrDamaged) {
		t.Errorf("granting: %v", err)
	}
	for _, write := range []func(context.Context, func(*Tx) error) error{s.Update, s.UpdateAlways} {
		if err := write(t.Context(), func(tx *Tx) error { return tx.Insert(device("x")) }); !errors.Is(err, ErrDamaged) {
			t.Errorf("it writes: %v", err)
		}
	}
	view(t, s, func(tx *Tx) error {
		_, err := tx.Devices(DeviceFilter{Domain: "plant", Limit: 1})
		return err
	})
}

// accepted accepts, and wants the audit to say what.
func accepted(t testing.TB, s *Store, what string) {
	t.Helper()
	if err := s.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	said := false
	view(t, s, func(tx *Tx) error {
		list, err := tx.Audit(AuditFilter{Node: s.Node(), Limit: 50})
		for _, r := range list {
			said = said || r.Action == actionAccept && strings.Contains(r.Detail, what)
		}
		return err
	})
	if !said {
		t.Errorf("the audit does not say that %q was accepted", what)
	}
	insert(t, s, device(fmt.Sprint("after ", time.Now().UnixNano())))
}

// A database that is put back, or loses its newest log, is noticed at the start and while it is used; nothing is written
// to it until it is accepted, or the right one is there again.
func TestADatabaseOfYesterdayIsNoticed(t *testing.T) {
	t.Attr("id", "S-rollback")
	t.Run("sqlite, an earlier copy", func(t *testing.T) {
		dir, yesterday := newDir(t), newDir(t)
		s := open(t, Options{Dir: dir, Node: "a1"})
		insert(t, s, device("press 1"))
		copyDir(t, dir, yesterday)
		insert(t, s, device("press 2"))
		end(t, s)
		for _, name := range []string{databaseFile, databaseFile + "-wal"} {
			b, err := os.ReadFile(filepath.Join(yesterday, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s = inDir(t, dir)
		refuses(t, s, "back in time: 1 commits")
		accepted(t, s, "back in time")
		end(t, s)
		s = open(t, Options{Dir: dir, Node: "a1"})
		defer s.Close()
		healthy(t, s)
		insert(t, s, device("press 3"))
	})
	t.Run("sqlite, without its log", func(t *testing.T) {
		dir, killed := newDir(t), newDir(t)
		s := inDir(t, dir)
		insert(t, s, device("press 1"))
		copyDir(t, dir, killed)
		os.Remove(filepath.Join(killed, databaseFile+"-wal"))
		s = inDir(t, killed)
		if err := s.Health().Err(); err == nil {
			t.Error("nothing is said")
		}
		if err := s.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
		accepted(t, s, "")
		healthy(t, s)
	})
	t.Run("postgres, while it is used", func(t *testing.T) {
		server := cluster.Server(t)
		r := &rig{url: server.URL(t), dirs: make(map[string]string)}
		a, b := r.open(t, "a1"), r.open(t, "a2")
		of := map[*Store]*Follower{a: a.Follow(), b: b.Follow()}
		for _, s := range []*Store{a, b} {
			insert(t, s, device(s.Node()))
		}
		for s, f := range of {
			next(t, f)
			healthy(t, s)
		}
		putBack := func() {
			server.Stop(t)
			if err := os.RemoveAll(server.Data()); err != nil {
				t.Fatal(err)
			}
			if err := storetest.CopyDir(server.Data()+".yesterday", server.Data()); err != nil {
				t.Fatal(err)
			}
			server.Start(t)
		}
		server.Stop(t)
		if err := storetest.CopyDir(server.Data(), server.Data()+".yesterday"); err != nil {
			t.Fatal(err)
		}
		server.Start(t)
		for s, f := range of {
			insert(t, s, device("lost "+s.Node()))
			next(t, f)
		}
		today := server.Data() + ".today"
		server.Stop(t)
		if err := storetest.CopyDir(server.Data(), today); err != nil {
			t.Fatal(err)
		}
		server.Start(t)
		putBack()
		if _, _, err := of[b].Next(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("a Follower says %v", err)
		}
		if err := a.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("Update says %v", err)
		}
		refuses(t, a, "back in time: 1 commits")
		refuses(t, b, "back in time: 1 commits")

		// With the right one everything goes on by itself.
		server.Stop(t)
		os.RemoveAll(server.Data())
		if err := os.Rename(today, server.Data()); err != nil {
			t.Fatal(err)
		}
		server.Start(t)
		for s, f := range of {
			insert(t, s, device("right "+s.Node()))
			next(t, f)
			healthy(t, s)
		}
		putBack()
		if err := a.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("Update says %v", err)
		}
		accepted(t, a, "back in time")
		if _, missed := next(t, of[b]); !missed {
			t.Error("the other node is not told to read everything anew")
		}
		insert(t, b, device("after"))
		healthy(t, a)
		healthy(t, b)
		for _, s := range []*Store{a, b} {
			end(t, s)
			again := open(t, r.options(t, s.Node()))
			healthy(t, again)
			end(t, again)
		}
	})
}

// Each kind of damage is named, stops grants if something may be missing, and is gone when it was accepted.
func TestWhatIsAcceptedIsNotSaidAgain(t *testing.T) {
	key := func(i int) string { return fmt.Sprintf("spki='%s'", identity.SPKI{byte(i)}) }
	for _, c := range []struct {
		name, sql string
		says      string
		grave     bool
		stays     bool // bad rows shut out their subjects until they are written again
	}{
		{"a row is gone", "DELETE FROM devices WHERE name='press 1'", "rows are missing", true, false}, // another row may be in its bucket
		{"a row too many", "INSERT INTO domains SELECT 'other',created,infrastructure,domain_key,seal FROM domains WHERE name='plant'", "too many", true, true},
		{"a bad row", "UPDATE devices SET revoked=1 WHERE name='press 1'", "its seal does not fit", false, true},
		{"a bad revocation", "UPDATE revoked SET name='other' WHERE " + key(1), "its seal does not fit", true, false},
		{"an unreadable revocation", "UPDATE revoked SET spki='nonsense' WHERE " + key(1), "its seal does not fit", true, false},
		{"a sum", "UPDATE sums SET n=n+1 WHERE tbl='users'", "rows are missing", true, false},
		{"all sums", "DELETE FROM sums", "too many", true, false},
		{"a head", "DELETE FROM heads WHERE node='a2'", "its row is missing", true, false},
		{"commits", "DELETE FROM commits WHERE node='a2'", "the last commit is 0, and it was", true, false},
		{"a chain", "UPDATE heads SET chain='x' WHERE node='a2'", "or another one", true, false},
		{"the incarnation", "UPDATE meta SET value='1' WHERE name='seal'", "not the one that was written", true, false},
		{"a record is gone", "DELETE FROM audit WHERE node='a2' AND seq=3", "does not follow record 2", false, false},
		{"the first record is gone", "DELETE FROM audit WHERE node='a2' AND seq=1", "the records before it are missing", false, false},
		{"the last record is gone", "DELETE FROM audit WHERE node='a2' AND seq=5", "the last record is 4, and it was 5", false, false},
		{"all records are gone", "DELETE FROM audit WHERE node='a2'", "the last record is 0, and it was 5", false, false},
		{"a record was changed", "UPDATE audit SET detail='x' WHERE node='a2' AND seq=3", "its seal does not fit", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onShared(t, func(t *testing.T, r *rig) {
				s, other := r.open(t, "a1"), r.open(t, "a2")
				insert(t, s, device("press 1"), &Domain{Name: "plant"}, &User{Domain: "plant", Name: "admin"},
					&RevokedKey{SPKI: identity.SPKI{1}, Name: "x"}, &RevokedKey{SPKI: identity.SPKI{2}, Name: "y"})
				f := other.Follow()
				next(t, f)
				for i := range 5 {
					insert(t, other, device(fmt.Sprint(i)))
				}
				raw(t, s, c.sql)
				h, err := s.ReadAll(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if h.Err() == nil || !strings.Contains(h.Err().Error(), c.says) {
					t.Errorf("it says %v, want %q", h.Err(), c.says)
				}
				if (h.Granting() != nil) != c.grave {
					t.Errorf("granting: %v", h.Granting())
				}
				if _, err := other.ReadAll(t.Context()); err != nil {
					t.Fatal(err)
				}
				accepted(t, s, c.says)
				h, err = s.ReadAll(t.Context())
				if err != nil || (h.Err() != nil) != c.stays || h.Granting() != nil {
					t.Errorf("afterwards: %v, %v", err, h.Err())
				}
				if _, missed := next(t, f); !missed {
					t.Error("the other node does not read everything anew")
				}
				insert(t, other, device("after"))
				if err := other.Health().Granting(); err != nil {
					t.Errorf("the other node: %v", err)
				}
				if err := s.Accept(t.Context()); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

// More that is revoked is the safe side.
func TestABadRevocationStays(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		insert(t, s, &RevokedKey{SPKI: identity.SPKI{1}, Name: "x"}, &RevokedKey{SPKI: identity.SPKI{2}, Name: "y"})
		raw(t, s, fmt.Sprintf("UPDATE revoked SET name='z' WHERE spki='%s'", identity.SPKI{1}))
		accepted(t, s, "may have been another")
		var list []RevokedKey
		view(t, s, func(tx *Tx) (err error) { list, err = tx.Revoked(); return err })
		if len(list) != 2 || list[0].Name+list[1].Name != "zy" && list[0].Name+list[1].Name != "yz" {
			t.Errorf("%+v", list)
		}
	})
}

func TestABrokenTreeIsNotAccepted(t *testing.T) {
	dir := newDir(t)
	s := open(t, Options{Dir: dir, Node: "a1"})
	furnish(t, s, 200)
	end(t, s)
	path := filepath.Join(dir, databaseFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 4096 * 65; at < 4096*66; at++ { // a page of a large table
		b[at] = 0xff
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = inDir(t, dir)
	if err := s.Accept(t.Context()); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "only a backup helps") {
		t.Errorf("%v", err)
	}
}

// Records go in order, and their sums with them; that something else went is still noticed.
func TestAPrunedAuditIsWhole(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		o := r.options(t, "a1")
		o.Audit.Bytes = 300 * (auditBucket + 500)
		s := open(t, o)
		t.Cleanup(func() { end(t, s) })
		for range 2*auditBucket/500 + 1 {
			update(t, s, func(tx *Tx) error {
				for range 500 {
					if err := tx.Append(Record{Time: time.Now(), Action: "test"}); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if cut, err := s.PruneAudit(t.Context(), time.Now(), nil); err != nil || cut.Seq != auditBucket-1 {
			t.Fatal(cut, err)
		}
		var first []Record
		view(t, s, func(tx *Tx) (err error) { first, err = tx.Audit(AuditFilter{Node: "a1", Limit: 100_000}); return err })
		if first[0].Seq != auditBucket {
			t.Errorf("the first is %d", first[0].Seq)
		}
		healthy(t, s)
		accepted(t, s, "nothing was wrong")
		healthy(t, s)
		raw(t, s, "UPDATE checkpoints SET hash='x'")
		if h, _ := s.ReadAll(t.Context()); h.Err() == nil {
			t.Error("a checkpoint of something else is not noticed")
		}
		accepted(t, s, "does not follow")
		raw(t, s, "DELETE FROM checkpoints")
		if h, _ := s.ReadAll(t.Context()); h.Err() == nil {
			t.Error("a checkpoint that is gone is not noticed")
		}
	})
}
