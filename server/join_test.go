package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/server/store/storetest"
)

var postgres storetest.Cluster

func TestMain(m *testing.M) { os.Exit(postgres.Run(m)) }

// An Access Server that joins has keys of its own under the same root, the
// same store, and neither root key nor relay.
func TestJoinMakesAnotherAccessServer(t *testing.T) {
	o := options(t)
	o.Store, o.URL = nil, postgres.URL(t)
	first, err := Init(t.Context(), o)
	must(t, err)
	join := Options{Dir: filepath.Join(t.TempDir(), "second"), Hosts: []string{"b.example.com"}, Join: filepath.Dir(first.RootKey), URL: o.URL}
	second, err := Init(t.Context(), join)
	must(t, err)
	if !second.Joined || second.Root != first.Root || second.RootKey != first.RootKey || second.Access == first.Access {
		t.Errorf("%+v", second)
	}
	wantOnly(t, join.Dir, "access", "root.pem", "server.yaml")
	wantOnly(t, filepath.Join(join.Dir, "access"), "grant.key", "grant.pem", "issuing.key", "issuing.pem", "store", "time.key", "time.pem")
	c, err := Load(second.Config)
	must(t, err)
	if c.Access.Name != second.Access || c.Relay != nil || c.Access.Store != o.URL {
		t.Errorf("%+v", c.Access)
	}
	roots, err := loadRoots(first.RootFile)
	must(t, err)
	keys, err := loadAccessKeys(c.Access.Dir, c.Access.Name, roots, time.Now())
	must(t, err)
	if name, err := identity.VerifyGrantKey(keys.grant.Chain[0], roots, time.Now()); err != nil || name != second.Access {
		t.Errorf("%v, %v", name, err)
	}
	for _, row := range Check(t.Context(), c, time.Now()) {
		if !row.OK {
			t.Errorf("%s: %s", row.Name, row.Text)
		}
		if row.Name == "store" && !strings.Contains(row.Text, "1 audit record") {
			t.Errorf("store: %s", row.Text)
		}
	}
	if _, err := Init(t.Context(), join); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
}

func TestJoinWithoutARootLeavesNothing(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "second"), Hosts: []string{"b.example.com"}, Join: t.TempDir(), URL: "postgres://127.0.0.1/hawser"}
	if _, err := Init(t.Context(), o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
}

func TestCheckSaysThatTheDatabaseIsAway(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700))
	c := AccessConfig{Name: identity.AccessName("a1"), Dir: dir, Store: "postgres://u:secret@127.0.0.1:1/hawser"}
	must(t, os.Mkdir(filepath.Join(dir, storeDir), 0o700))
	_, err := checkStore(t.Context(), c, time.Now())
	if !errors.Is(err, store.ErrAway) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// A second infrastructure on a database in use is refused, and the server that has it goes on.
func TestSecondInitLeavesTheFirstAlone(t *testing.T) {
	o := options(t)
	o.Store, o.URL = nil, postgres.URL(t)
	first, err := Init(t.Context(), o)
	must(t, err)
	c, err := Load(first.Config)
	must(t, err)
	st, err := openStore(t.Context(), *c.Access, true, nil)
	must(t, err)
	defer st.Close()
	must(t, st.TakeLease(t.Context()))
	again := options(t)
	again.Store, again.URL = nil, o.URL
	if _, err := Init(t.Context(), again); !errors.Is(err, store.ErrExists) || !strings.Contains(err.Error(), "--join") {
		t.Errorf("%v", err)
	}
	must(t, st.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(&store.User{Domain: "default", Name: "anna"}) }))
	roots, err := loadRoots(first.RootFile)
	must(t, err)
	keys, err := loadAccessKeys(c.Access.Dir, c.Access.Name, roots, time.Now())
	must(t, err)
	must(t, checkNode(t.Context(), st, c.Access.Name, identity.CertSPKI(keys.issuing.Chain[0])))
}
