package access

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// storeKind opens a store; reopen does so again where that means something.
type storeKind struct {
	name string
	open func(t *testing.T) Store
}

func storeKinds() []storeKind {
	return []storeKind{
		{"memory", func(*testing.T) Store { return NewMemory() }},
		{"jetstream", func(t *testing.T) Store { return openJetStream(t, storeDir(t)) }},
		{"nats", func(t *testing.T) Store {
			s, _ := startNATS(t).open()
			return s
		}},
	}
}

// storeDir returns a path where a store can make its private directory.
func storeDir(t *testing.T) string { return filepath.Join(t.TempDir(), "store") }

func openJetStream(t *testing.T, dir string) Store {
	t.Helper()
	s, err := OpenJetStream(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStoreContract is what every Store must do, all of ours alike.
func TestStoreContract(t *testing.T) {
	for _, kind := range storeKinds() {
		t.Run(kind.name, func(t *testing.T) {
			s := kind.open(t)
			t.Run("records", func(t *testing.T) { contractRecords(t, s) })
			t.Run("list", func(t *testing.T) { contractList(t, s) })
			t.Run("volatile", func(t *testing.T) { contractVolatile(t, s) })
			t.Run("race", func(t *testing.T) { contractRace(t, s) })
			t.Run("audit", func(t *testing.T) { contractAudit(t, s) })
			t.Run("check", func(t *testing.T) {
				if text, err := s.Check(t.Context()); err != nil || text == "" {
					t.Errorf("Check: %q, %v", text, err)
				}
			})
			t.Run("close", func(t *testing.T) { contractClose(t, s) })
		})
	}
}

func contractRecords(t *testing.T, s Store) {
	ctx := t.Context()
	wantErr := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := s.Get(ctx, bucketUsers, "plant.anna")
	wantErr("get of nothing", err, ErrNotFound)
	_, err = s.Update(ctx, bucketUsers, "plant.anna", []byte("x"), 7)
	wantErr("update of nothing", err, ErrConflict)
	r1, err := s.Create(ctx, bucketUsers, "plant.anna", []byte("one"))
	wantErr("create", err, nil)
	_, err = s.Create(ctx, bucketUsers, "plant.anna", []byte("two"))
	wantErr("create again", err, ErrConflict)
	r2, err := s.Update(ctx, bucketUsers, "plant.anna", []byte("two"), r1)
	wantErr("update", err, nil)
	_, err = s.Update(ctx, bucketUsers, "plant.anna", []byte("three"), r1)
	wantErr("update of an old revision", err, ErrConflict)
	e, err := s.Get(ctx, bucketUsers, "plant.anna")
	wantErr("get", err, nil)
	if string(e.Value) != "two" || e.Revision != r2 || e.Key != "plant.anna" {
		t.Errorf("got %q at %d, want two at %d", e.Value, e.Revision, r2)
	}
	_, err = s.Get(ctx, bucketDevices, "plant.anna")
	wantErr("get from another bucket", err, ErrNotFound)
	wantErr("delete of an old revision", s.Delete(ctx, bucketUsers, "plant.anna", r1), ErrConflict)
	wantErr("delete", s.Delete(ctx, bucketUsers, "plant.anna", r2), nil)
	_, err = s.Get(ctx, bucketUsers, "plant.anna")
	wantErr("get of a deleted one", err, ErrNotFound)
	_, err = s.Create(ctx, bucketUsers, "plant.anna", []byte("new"))
	wantErr("create after delete", err, nil)
}

func contractList(t *testing.T, s Store) {
	for _, key := range []string{"b.2", "a.2", "a.1", "ab.1"} {
		if _, err := s.Create(t.Context(), bucketNames, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"a.": "a.1 a.2", "": "a.1 a.2 ab.1 b.2", "c.": ""} {
		list, err := s.List(t.Context(), bucketNames, prefix)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, e := range list {
			keys = append(keys, e.Key)
			if string(e.Value) != e.Key || e.Revision == 0 {
				t.Errorf("%s: value %q, revision %d", e.Key, e.Value, e.Revision)
			}
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
}

// A volatile bucket is like the others.
func contractVolatile(t *testing.T, s Store) {
	r1, err := s.Create(t.Context(), bucketNodes, "a1", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), bucketNodes, "a1", []byte("two")); !errors.Is(err, ErrConflict) {
		t.Errorf("create again: %v", err)
	}
	r2, err := s.Update(t.Context(), bucketNodes, "a1", []byte("two"), r1)
	if list, _ := s.List(t.Context(), bucketNodes, ""); err != nil || len(list) != 1 || list[0].Revision != r2 {
		t.Errorf("%v, %v", list, err)
	}
	if err := s.Delete(t.Context(), bucketNodes, "a1", r2); err != nil {
		t.Error(err)
	}
}

// Of many that create or update the same record, exactly one does.
func contractRace(t *testing.T, s Store) {
	const writers = 50
	race := func(write func(i int) error) {
		t.Helper()
		var won, lost atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				switch err := write(i); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != writers-1 {
			t.Errorf("%d won, %d lost", won.Load(), lost.Load())
		}
	}
	race(func(i int) error {
		_, err := s.Create(t.Context(), bucketSessions, "s", fmt.Append(nil, i))
		return err
	})
	e, err := s.Get(t.Context(), bucketSessions, "s")
	if err != nil {
		t.Fatal(err)
	}
	race(func(i int) error {
		_, err := s.Update(t.Context(), bucketSessions, "s", fmt.Append(nil, i), e.Revision)
		return err
	})
}

func contractAudit(t *testing.T, s Store) {
	records := func(node, domain string, limit int) string {
		t.Helper()
		list, err := s.Records(t.Context(), node, domain, limit)
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.Join(list, []byte(" ")))
	}
	if got := records("", "", 5); got != "" {
		t.Errorf("records of an empty stream: %q", got)
	}
	for i := range 40 {
		node, domain := []string{"a1", "a2"}[i%2], []string{"", "plant", "other", "plant"}[i%4]
		if err := s.Append(t.Context(), node, domain, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	cases := []struct {
		node, domain string
		limit        int
		want         string
	}{
		{"", "", 1, "39"},
		{"", "", 3, "37 38 39"},
		{"a1", "", 2, "36 38"},
		{"", "plant", 3, "35 37 39"},
		{"a1", "other", 2, "34 38"},
		{"a1", "plant", 5, ""},
		{"a3", "", 5, ""},
		{"a2", "plant", 100, "1 3 5 7 9 11 13 15 17 19 21 23 25 27 29 31 33 35 37 39"},
	}
	for _, c := range cases {
		if got := records(c.node, c.domain, c.limit); got != c.want {
			t.Errorf("records %q %q %d: %q, want %q", c.node, c.domain, c.limit, got, c.want)
		}
	}
}

func contractClose(t *testing.T, s Store) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), bucketDomains, "late", nil); err == nil || errors.Is(err, ErrConflict) {
		t.Errorf("create after close: %v", err)
	}
	if _, err := s.Get(t.Context(), bucketDomains, "late"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("get after close: %v", err)
	}
}
