package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/server/access"
	"hawser/server/store"
	"hawser/transport"
)

// The old keys count no more for whoever has heard of it, and everybody who is registered is certified by the new ones by
// himself: here the relay, which shows the chain of the old key when it comes.
func TestAStolenIssuingKeyIsRefusedAndTheRelayRenews(t *testing.T) {
	t.Attr("id", "T-rotate")
	for name, wait := range map[string]time.Duration{"at once": 0, "after seven days": rotateGrace} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWhole(t)
				w.run(t, 10*time.Second, func() {})
				chain := func() []string {
					c, err := credential.Load(filepath.Join(w.server.Config.Relay.Dir, "identity.pem"), identity.ParseChain)
					must(t, err)
					return []string{identity.CertSPKI(c[0]).String(), identity.CertSPKI(c[1]).String()}
				}
				before := chain()
				r, err := Rotate(RotateOptions{Dir: w.made.Dir, AtOnce: wait == 0})
				must(t, err)
				if got := time.Until(r.From); got > wait || got < wait-time.Second || !slices.Contains(r.Refused, must2(identity.ParseSPKI(before[1]))) {
					t.Fatalf("from %v on, %v", got, r.Refused)
				}
				if _, err := Rotate(RotateOptions{Dir: w.made.Dir}); err == nil {
					t.Error("rotated twice before a start")
				}
				w.run(t, 10*time.Second, func() {
					if wait > 0 {
						if got := chain(); got[1] != before[1] {
							t.Error("renewed before it was told")
						}
					}
				})
				time.Sleep(wait)
				w.run(t, time.Minute, func() {
					must(t, w.dial(t, transport.ALPNAccess, identity.AccessName(firstAccess), 443))
					must(t, w.dial(t, transport.ALPNRelay, identity.RelayName(firstRelay), 443))
				})
				if got := chain(); got[0] != before[0] || got[1] != r.CA.String() {
					t.Errorf("the relay has %v, had %v, the new issuing key is %v\n%s", got, before, r.CA, w.log)
				}
				n := store.Node{Name: firstAccess}
				must(t, w.server.Store.View(t.Context(), func(tx *store.Tx) error { return tx.Get(&n) }))
				if _, err := os.Stat(filepath.Join(w.made.Dir, accessDir, rotatedDir)); n.CA != r.CA || !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the other nodes know %v; %v", n.CA, err)
				}
			})
		})
	}
}

func must2(s identity.SPKI, err error) identity.SPKI {
	if err != nil {
		panic(err)
	}
	return s
}

// Whenever the power goes, the next start has the old keys or the new ones, and never some of each.
func TestAPowerCutLeavesTheOldKeysOrTheNew(t *testing.T) {
	t.Attr("id", "T-rotate")
	o := options(t)
	made, err := Init(t.Context(), o)
	must(t, err)
	config, err := Load(made.Config)
	must(t, err)
	roots, err := loadRoots(config.Root)
	must(t, err)
	dir := config.Access.Dir
	ca := func() identity.SPKI {
		t.Helper()
		k, err := loadAccessKeys(dir, config.Access.Name, roots, time.Now())
		must(t, err)
		return identity.CertSPKI(k.issuing.Chain[0])
	}
	for cut := range 8 {
		old := ca()
		// A cut before the rename leaves a directory that nobody looks at.
		must(t, os.MkdirAll(filepath.Join(dir, ".rotate-1", accessDir), 0o700))
		r, err := Rotate(RotateOptions{Dir: made.Dir, AtOnce: true})
		must(t, err)
		if ca() != old {
			t.Fatal("changed before the start")
		}
		files, err := os.ReadDir(filepath.Join(dir, rotatedDir))
		if err != nil || len(files) != 7 {
			t.Fatalf("%v, %v", files, err)
		}
		must(t, os.MkdirAll(filepath.Join(dir, refusedDir), 0o755))
		for _, f := range files[:cut] {
			to := filepath.Join(dir, f.Name())
			if f.Name()[0] == 'r' {
				to = filepath.Join(dir, refusedDir, f.Name()[len(rotatedList):])
			}
			must(t, durable.Rename(filepath.Join(dir, rotatedDir, f.Name()), to))
		}
		if taken, err := takeRotated(dir); !taken || err != nil {
			t.Fatalf("cut after %d: %v, %v", cut, taken, err)
		}
		if got := ca(); got != r.CA {
			t.Errorf("cut after %d: %v, want %v", cut, got, r.CA)
		}
		_, list, err := access.ReadRefusedKeys(filepath.Join(dir, refusedDir), time.Now(), roots)
		if err != nil || list.Sequence != r.Sequence || len(list.Keys) != 3*(cut+1) || !slices.Contains(list.Keys, old) {
			t.Errorf("cut after %d: %d keys, sequence %d of %d, %v", cut, len(list.Keys), list.Sequence, r.Sequence, err)
		}
		must(t, os.Remove(filepath.Join(dir, rotatedDir)))
	}
	if taken, err := takeRotated(dir); taken || err != nil {
		t.Errorf("%v, %v", taken, err)
	}
}
