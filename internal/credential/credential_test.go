package credential_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/internal/durable"
)

const day = 24 * time.Hour

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestTheKeyIsMadeOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	first := must(credential.MakeKey(path))(t)
	second := must(credential.MakeKey(path))(t)
	if must(identity.SPKIOf(first.Public()))(t) != must(identity.SPKIOf(second.Public()))(t) {
		t.Error("another key the second time")
	}
	if info := must(os.Stat(path))(t); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestAKeyThatIsThereIsNeverReplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		mode fs.FileMode
	}{"damaged": {"not a key", 0o600}, "empty": {"", 0o600}, "open to others": {"key", 0o640}} {
		path := filepath.Join(t.TempDir(), "a.key")
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := credential.MakeKey(path); err == nil {
			t.Errorf("%s: no error", name)
		}
		if b := must(os.ReadFile(path))(t); string(b) != tt.text {
			t.Errorf("%s: it is now %q", name, b)
		}
	}
}

func TestAChainOfAnotherKeyRootOrKindIsRefused(t *testing.T) {
	pki, other := identitytest.New(time.Now()), identitytest.New(time.Now())
	key, relay := identitytest.NewKey(), identity.RelayName("r1")
	for name, tt := range map[string]struct {
		c    credential.Credential
		good bool
		want error // nil: any, or none
	}{
		"ours":         {credential.Credential{Key: key, Chain: pki.Chain(key.Public(), relay, -time.Hour, day)}, true, nil},
		"expired":      {credential.Credential{Key: key, Chain: pki.Chain(key.Public(), relay, -2*time.Hour, -time.Hour)}, true, nil},
		"another key":  {credential.Credential{Key: key, Chain: pki.Chain(identitytest.NewKey().Public(), relay, -time.Hour, day)}, false, credential.ErrOtherKey},
		"another root": {credential.Credential{Key: key, Chain: other.Chain(key.Public(), relay, -time.Hour, day)}, false, nil},
		"another kind": {credential.Credential{Key: key, Chain: pki.Chain(key.Public(), identity.AccessName("a1"), -time.Hour, day)}, false, nil},
		"no chain":     {credential.Credential{Key: key}, false, nil},
	} {
		peer, err := tt.c.Verify(pki.Roots, identity.KindRelay)
		if (err == nil) != tt.good || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && peer.Name != relay {
			t.Errorf("%s: it is %v", name, peer.Name)
		}
	}
}

func TestRenewalComesAtHalfLifeWithinTenPercent(t *testing.T) {
	pki := identitytest.New(time.Now())
	seen := map[time.Duration]bool{}
	for range 20 {
		leaf := pki.Leaf(identity.RelayName("r1"), -time.Hour, 30*day-time.Hour).Leaf
		after := credential.RenewAt(leaf).Sub(leaf.NotBefore)
		if after < 13*day+12*time.Hour || after > 16*day+12*time.Hour {
			t.Errorf("%v after the beginning", after)
		}
		if again := credential.RenewAt(leaf).Sub(leaf.NotBefore); again != after {
			t.Errorf("it moves from %v to %v", after, again)
		}
		seen[after.Truncate(time.Second)] = true
	}
	if len(seen) < 18 {
		t.Errorf("20 certificates are renewed at %d times", len(seen))
	}
}

// What is written before the file that cannot be written stays, and nothing after it is touched.
func TestFilesAreWrittenInOrder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := credential.Write(dir, credential.File{Name: "a", Mode: credential.Public},
		credential.File{Name: "b", Mode: credential.Private}, credential.File{Name: "c", Mode: credential.Private}); err == nil {
		t.Error("a file was written over a directory")
	}
	var names []string
	for _, e := range must(os.ReadDir(dir))(t) {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("left %q", names)
	}
	if info := must(os.Stat(filepath.Join(dir, "a")))(t); info.Mode() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestWhatIsReadIsBoundedAndNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open, long := write("open", "x", 0o644), write("long", string(make([]byte, credential.MaxFileBytes+1)), 0o600)
	if _, err := credential.Load(open, identity.ParseRoots); !errors.Is(err, durable.ErrExposed) {
		t.Errorf("a file that others can read: %v", err)
	}
	if _, err := credential.LoadPublic(open, identity.ParseRoots); identity.FaultOf(err) != identity.FaultMalformed || !strings.Contains(err.Error(), open) {
		t.Errorf("what are no roots: %v", err)
	}
	for _, load := range []func(string, func([]byte) (*identity.Roots, error)) (*identity.Roots, error){
		credential.Load[*identity.Roots], credential.LoadPublic[*identity.Roots]} {
		if _, err := load(long, identity.ParseRoots); !errors.Is(err, durable.ErrTooLarge) {
			t.Errorf("a long file: %v", err)
		}
		if _, err := load(filepath.Join(dir, "missing"), identity.ParseRoots); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file: %v", err)
		}
	}
}
