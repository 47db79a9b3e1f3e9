package access

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func testChain(store Store) *chain { return &chain{store: store, node: "a1"} }

func appendN(t *testing.T, c *chain, n int) {
	t.Helper()
	for range n {
		if err := c.append(t.Context(), Record{Time: time.Now(), Domain: "plant", Action: actionOnline, Result: resultOK}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuditChainGoesOnOverRestarts(t *testing.T) {
	for _, kind := range storeKinds() {
		t.Run(kind.name, func(t *testing.T) {
			store := kind.open(t)
			appendN(t, testChain(store), 3)
			appendN(t, &chain{store: store, node: "a2"}, 2) // another node's is its own
			appendN(t, testChain(store), 2)
			records := must(readAudit(t.Context(), store, "", "", 100))
			var seqs []uint64
			for _, r := range records {
				seqs = append(seqs, r.Seq)
			}
			if !slices.Equal(seqs, []uint64{1, 2, 3, 1, 2, 4, 5}) {
				t.Errorf("%v", seqs)
			}
			if err := VerifyAudit(records); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAuditTamperingIsFound(t *testing.T) {
	store := NewMemory()
	appendN(t, testChain(store), 6)
	whole := must(readAudit(t.Context(), store, "", "", 100))
	rehash := func(r *Record) { r.Hash = must(hashOf(*r)) }
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

// lossy is a Store that writes an audit record and then says that it failed.
type lossy struct{ Store }

func (l lossy) Append(ctx context.Context, node, domain string, record []byte) error {
	return errors.Join(l.Store.Append(ctx, node, domain, record), errors.New("no answer"))
}

// A write whose fate is unknown does not break the chain.
func TestAuditChainSurvivesAWriteThatFailed(t *testing.T) {
	store := NewMemory()
	c := testChain(store)
	appendN(t, c, 2)
	c.store = lossy{store}
	if err := c.append(t.Context(), Record{}); err == nil {
		t.Error("no error")
	}
	c.store = store
	appendN(t, c, 2)
	records := must(readAudit(t.Context(), store, "", "", 100))
	if err := VerifyAudit(records); err != nil || len(records) != 5 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestAuditRecordsHoldPrintableASCII(t *testing.T) {
	store := NewMemory()
	evil := "a\r\nb\x00\x1b[31m\u202e" + strings.Repeat("x", 1000)
	if err := testChain(store).append(t.Context(), Record{Actor: evil, Object: evil, Detail: evil}); err != nil {
		t.Fatal(err)
	}
	r := must(readAudit(t.Context(), store, "", "", 1))[0]
	for _, s := range []string{r.Actor, r.Object, r.Detail} {
		if len(s) != maxTextBytes || !strings.HasPrefix(s, "a??b??[31m???x") {
			t.Errorf("%q", s)
		}
	}
}

func TestAuditOrderIsThatOfTheChain(t *testing.T) {
	store := NewMemory()
	c := testChain(store)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { appendN(t, c, 5) })
	}
	wg.Wait()
	if err := VerifyAudit(must(readAudit(t.Context(), store, "", "", 1000))); err != nil {
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
		sum, err := hashOf(r)
		if err != nil {
			return // a year that JSON cannot say
		}
		var again Record
		r.Hash = sum
		if err := json.Unmarshal(must(json.Marshal(r)), &again); err != nil || must(hashOf(again)) != sum {
			t.Errorf("%q: another hash when it is read again: %v", b, err)
		}
	})
}
