package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
)

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inDir opens a store in a directory, closed at the end.
func inDir(t testing.TB, dir string) *Store {
	t.Helper()
	s := open(t, Options{Dir: dir, Node: "a1"})
	t.Cleanup(func() { end(t, s) })
	return s
}

// end closes a store unless that is done.
func end(t testing.TB, s *Store) {
	t.Helper()
	select {
	case <-s.closing:
	default:
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "store") }

func device(name string) *Member {
	return &Member{Kind: identity.KindDevice, ID: identity.NewUID().String(), Domain: "plant", Name: name, Created: time.Now().Truncate(time.Microsecond).UTC()}
}

func insert(t testing.TB, s *Store, rows ...Row) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *Tx) error {
		for _, r := range rows {
			if err := tx.Insert(r); err != nil {
				return err
			}
		}
		return tx.Append(Record{Time: time.Now(), Domain: "plant", Actor: "a", Action: "test", Result: "ok"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasCommittedIsThereAfterwards(t *testing.T) {
	dir := newDir(t)
	s := open(t, Options{Dir: dir, Node: "a1"})
	d := device("press 1")
	d.Hints = map[string]string{"board": "b1"}
	insert(t, s, d)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = inDir(t, dir)
	if err := s.Health().Err(); err != nil {
		t.Fatal(err)
	}
	got := Member{Kind: identity.KindDevice, ID: d.ID}
	err := s.View(t.Context(), func(tx *Tx) error { return tx.Get(&got) })
	if err != nil || fmt.Sprint(got) != fmt.Sprint(*d) {
		t.Errorf("%+v, %v, want %+v", got, err, *d)
	}
}

// A copy of the directory while the store runs is what a kill would leave.
func TestNothingWaitsForAnOrderlyEnd(t *testing.T) {
	dir, copied := newDir(t), newDir(t)
	s := inDir(t, dir)
	d := device("press 1")
	insert(t, s, d)
	copyDir(t, dir, copied)
	again := inDir(t, copied)
	if err := again.View(t.Context(), func(tx *Tx) error { return tx.Get(d) }); err != nil {
		t.Error(err)
	}
	if err := again.Health().Err(); err != nil {
		t.Error(err)
	}
}

// copyDir copies the files of a directory as they are now.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFunctionThatFailsWritesNothing(t *testing.T) {
	s := inDir(t, newDir(t))
	d, mine := device("press 1"), errors.New("mine")
	err := s.Update(t.Context(), func(tx *Tx) error { return errors.Join(tx.Insert(d), mine) })
	if !errors.Is(err, mine) {
		t.Errorf("%v", err)
	}
	if err := s.View(t.Context(), func(tx *Tx) error { return tx.Get(d) }); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if h, err := s.ReadAll(t.Context()); err != nil || h.Err() != nil {
		t.Error(err, h.Err())
	}
}

func TestASecondProcessIsKeptOut(t *testing.T) {
	dir := newDir(t)
	inDir(t, dir)
	if s, err := Open(t.Context(), Options{Dir: dir, Node: "a1"}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, %v", s, err)
	}
}

func TestManyAtOnceShareCommits(t *testing.T) {
	s := inDir(t, newDir(t))
	const n = 500
	errs := make(chan error, n)
	for i := range n {
		go func() {
			errs <- s.Update(context.Background(), func(tx *Tx) error {
				return errors.Join(tx.Insert(device(fmt.Sprint(i))), tx.Append(Record{Action: "test"}))
			})
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if h, err := s.ReadAll(t.Context()); err != nil || h.Err() != nil {
		t.Error(err, h.Err())
	}
	var h head
	s.View(t.Context(), func(tx *Tx) (err error) { h, err = tx.head("a1"); return err })
	if h.auditSeq != n || h.gen >= n {
		t.Errorf("%d records in %d commits", h.auditSeq, h.gen)
	}
}

func TestInMemoryItWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := Memory()
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s := open(t, Options{Database: db, Node: "a1"})
		defer s.Close()
		insert(t, s, device("press 1"))
		s.Later(func(tx *Tx) error { return tx.Put(device("press 2")) })
		time.Sleep(laterEvery)
		synctest.Wait()
		var list []Member
		s.View(t.Context(), func(tx *Tx) (err error) {
			list, err = tx.Devices(DeviceFilter{Domain: "plant", Limit: 10})
			return err
		})
		if len(list) != 2 {
			t.Errorf("%+v", list)
		}
	})
}

// A week is shorter than the time for which backups are kept.
func TestAScrubFindsDamageWithinAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := Memory()
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s := open(t, Options{Database: db, Node: "a1"})
		defer s.Close()
		insert(t, s, device("press 1"), device("press 2"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { s.Scrub(ctx); close(done) }()
		time.Sleep(scrubTime + time.Second)
		synctest.Wait()
		if h := s.Health(); h.Err() != nil || time.Since(h.Scrubbed) > 2*time.Second {
			t.Errorf("%v, read through at %v", h.Err(), h.Scrubbed)
		}
		if _, err := db.Exec("UPDATE devices SET name='other' WHERE name='press 1'"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("DELETE FROM devices WHERE name='press 2'"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(scrubTime + time.Second)
		synctest.Wait()
		if h := s.Health(); len(h.Findings) != 2 || h.Granting() == nil {
			t.Errorf("%v", h.Findings)
		}
		cancel()
		<-done
	})
}
