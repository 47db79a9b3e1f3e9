package store

import (
	"encoding/json"
	"errors"
	"hawser/transport/api"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func appendN(t *testing.T, s *Store, n int) {
	t.Helper()
	for range n {
		err := s.Update(t.Context(), func(tx *Tx) error {
			return tx.Append(Record{Time: time.Now(), Domain: "plant", Action: "online", Result: "ok"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// recordsOf returns the records of a node in the order of its chain.
func recordsOf(t *testing.T, s *Store, node string) (list []Record) {
	t.Helper()
	err := s.View(t.Context(), func(tx *Tx) (err error) {
		list, err = tx.Audit(AuditFilter{Node: node, Limit: 1000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAuditChainGoesOnOverRestarts(t *testing.T) {
	dir := newDir(t)
	for _, n := range []int{3, 2} {
		s := open(t, Options{Dir: dir, Node: "a1"})
		appendN(t, s, n)
		s.Close()
	}
	other := open(t, Options{Dir: dir, Node: "a2"}) // another node's is its own
	defer other.Close()
	appendN(t, other, 2)
	for node, n := range map[string]int{"a1": 5, "a2": 2} {
		list := recordsOf(t, other, node)
		if err := VerifyAudit(list); err != nil || len(list) != n || list[n-1].Seq != int64(n) {
			t.Errorf("%s: %d records, %v", node, len(list), err)
		}
	}
}

func TestAuditTamperingIsFound(t *testing.T) {
	store := inDir(t, newDir(t))
	appendN(t, store, 6)
	whole := recordsOf(t, store, "a1")
	rehash := func(r *Record) { r.Hash = must(api.Record(*r).Sum()) }
	cases := map[string]func([]Record) []Record{
		"result changed":         func(l []Record) []Record { l[2].Result = "revoked"; return l },
		"time changed":           func(l []Record) []Record { l[2].Time = l[2].Time.Add(time.Second); return l },
		"domain changed":         func(l []Record) []Record { l[2].Domain = ""; return l },
		"changed and rehashed":   func(l []Record) []Record { l[2].Result = "revoked"; rehash(&l[2]); return l },
		"one removed":            func(l []Record) []Record { return slices.Delete(l, 2, 3) },
		"one twice":              func(l []Record) []Record { return slices.Insert(l, 2, l[2]) },
		"two swapped":            func(l []Record) []Record { l[2], l[3] = l[3], l[2]; return l },
		"renumbered after a gap": func(l []Record) []Record { l = slices.Delete(l, 2, 3); l[2].Seq = 3; rehash(&l[2]); return l },
		"something before 1":     func(l []Record) []Record { l[0].Prev = l[1].Hash; rehash(&l[0]); return l[:1] },
		"hash removed":           func(l []Record) []Record { l[2].Hash = ""; return l },
	}
	for name, tamper := range cases {
		if VerifyAudit(tamper(slices.Clone(whole))) == nil {
			t.Errorf("%s: not found", name)
		}
	}
	if err := VerifyAudit(whole); err != nil {
		t.Errorf("untouched: %v", err)
	}
	if err := VerifyAudit(whole[3:]); err != nil {
		t.Errorf("the newest alone: %v", err)
	}
}

// A function that fails after its record leaves no gap.
func TestAuditChainSurvivesAWriteThatFailed(t *testing.T) {
	s := inDir(t, newDir(t))
	appendN(t, s, 2)
	err := s.Update(t.Context(), func(tx *Tx) error { return errors.Join(tx.Append(Record{}), errors.New("mine")) })
	if err == nil {
		t.Error("no error")
	}
	appendN(t, s, 2)
	if list := recordsOf(t, s, "a1"); VerifyAudit(list) != nil || len(list) != 4 {
		t.Errorf("%d records, %v", len(list), VerifyAudit(list))
	}
}

func TestAuditRecordsHoldPrintableASCII(t *testing.T) {
	s := inDir(t, newDir(t))
	evil := "a\r\nb\x00\x1b[31m\u202e" + strings.Repeat("x", 1000)
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Append(Record{Actor: evil, Object: evil, Detail: evil}) })
	if err != nil {
		t.Fatal(err)
	}
	r := recordsOf(t, s, "a1")[0]
	for _, s := range []string{r.Actor, r.Object, r.Detail} {
		if len(s) != maxTextBytes || !strings.HasPrefix(s, "a??b??[31m???x") {
			t.Errorf("%q", s)
		}
	}
}

func TestAuditOrderIsThatOfTheChain(t *testing.T) {
	s := inDir(t, newDir(t))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { appendN(t, s, 5) })
	}
	wg.Wait()
	if err := VerifyAudit(recordsOf(t, s, "a1")); err != nil {
		t.Error(err)
	}
}

func FuzzAuditRecord(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-01-01T00:00:00Z","node":"a1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if json.Unmarshal(b, &r) != nil {
			return
		}
		sum, err := api.Record(r).Sum()
		if err != nil {
			return // a year that JSON cannot say
		}
		var again Record
		r.Hash = sum
		if err := json.Unmarshal(must(json.Marshal(r)), &again); err != nil || must(api.Record(again).Sum()) != sum {
			t.Errorf("%q: another hash when it is read again: %v", b, err)
		}
	})
}
