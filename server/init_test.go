package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
)

// options are good ones, with the store in memory.
func options(t *testing.T) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "hawser"), Hosts: []string{"hawser.example.com"}, Store: memoryStore(t, nil)}
}

// memoryStore is the store of the Access Server that Init makes; fault as in store.Options.
func memoryStore(t *testing.T, fault func() error) *store.Store {
	t.Helper()
	db, err := store.Memory()
	must(t, err)
	t.Cleanup(func() { db.Close() })
	st, err := store.Open(t.Context(), store.Options{Database: db, Node: firstAccess, Fault: fault})
	must(t, err)
	t.Cleanup(func() { st.Close() })
	return st
}

func TestInitMakesAnInfrastructure(t *testing.T) {
	o := options(t)
	o.Store = nil
	made, err := Init(t.Context(), o)
	must(t, err)
	if made.Dir != o.Dir || made.AdminCode.LookupID() == "" {
		t.Errorf("made %+v", made)
	}
	roots, err := loadRoots(made.RootFile)
	must(t, err)
	if got := identity.CertSPKI(roots.Certificates()[0]); got != made.Root {
		t.Errorf("root is %v, told %v", got, made.Root)
	}
	for path, mode := range map[string]fs.FileMode{
		"": 0o700, "root": 0o700, "access": 0o700, "relay": 0o700, "server.yaml": 0o600, "root.pem": 0o644,
		"root/root.key": 0o600, "access/issuing.key": 0o600, "access/time.key": 0o600, "access/grant.key": 0o600, "relay/code": 0o600,
	} {
		info, err := os.Stat(filepath.Join(o.Dir, path))
		must(t, err)
		if runtime.GOOS != "windows" && info.Mode().Perm() != mode {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), mode)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	c, err := Load(made.Config)
	must(t, err)
	if !slices.Equal(c.Ports, []transport.Port{80, 443, 5935}) || len(c.Listen) != 0 {
		t.Errorf("ports %v, listen %v", c.Ports, c.Listen)
	}
}

func TestInitOnLoopbackListensOnlyThere(t *testing.T) {
	tests := []struct {
		hosts, want []string
	}{
		{[]string{"127.0.0.1"}, []string{"127.0.0.1"}},
		{[]string{"127.0.0.2", "::1"}, []string{"127.0.0.2", "::1"}},
		{[]string{"127.0.0.1", "192.0.2.1"}, nil},
		{[]string{"localhost"}, nil},
	}
	for _, c := range tests {
		if got := loopbackOnly(c.hosts); !slices.Equal(got, c.want) {
			t.Errorf("%q: listen %q, want %q", c.hosts, got, c.want)
		}
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	for _, name := range []string{"server.yaml", "root", "root.pem", "access", "relay"} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			must(t, os.Mkdir(o.Dir, 0o700))
			must(t, os.WriteFile(filepath.Join(o.Dir, name), []byte("mine"), 0o600))
			_, err := Init(t.Context(), o)
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v, want that it exists", err)
			}
			wantOnly(t, o.Dir, name)
		})
	}
}

var errBroken = errors.New("disk is full")

func TestFailedInitLeavesNothing(t *testing.T) {
	o := options(t)
	var broken atomic.Bool
	o.Store = memoryStore(t, func() error {
		if broken.Load() {
			return errBroken
		}
		return nil
	})
	broken.Store(true)
	if _, err := Init(t.Context(), o); !errors.Is(err, errBroken) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	must(t, os.Mkdir(o.Dir, 0o700))
	must(t, os.WriteFile(filepath.Join(o.Dir, "mine"), nil, 0o600))
	if _, err := Init(t.Context(), o); !errors.Is(err, errBroken) {
		t.Fatalf("got %v", err)
	}
	wantOnly(t, o.Dir, "mine")
	broken.Store(false)
	_, err := Init(t.Context(), o) // and then it works beside what was there
	must(t, err)
}

func TestInterruptedMoveIsUndone(t *testing.T) {
	o := options(t)
	_, r, err := o.check()
	must(t, err)
	stage, dir := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(stage, rootDir), 0o700))
	must(t, os.WriteFile(filepath.Join(stage, rootFile), nil, 0o600))
	if err := move(stage, dir, r); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("moved what is not there: %v", err)
	}
	wantOnly(t, dir)
}

func TestBadOptionsAreConfigErrors(t *testing.T) {
	t.Attr("id", "A1-input")
	tests := map[string]func(*Options){
		"no directory": func(o *Options) { o.Dir = "" },
		"no host":      func(o *Options) { o.Hosts = nil },
		"bad host":     func(o *Options) { o.Hosts = []string{"a b"} },
		"bad domain":   func(o *Options) { o.Domain = "A B" },
		"bad port":     func(o *Options) { o.Ports = []transport.Port{0} },
		"bad store":    func(o *Options) { o.URL = "http://db" },
		"join alone":   func(o *Options) { o.Join = "root" },
	}
	t.Attr("cases", strconv.Itoa(len(tests)))
	for name, bend := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			bend(&o)
			_, err := Init(t.Context(), o)
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func wantOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
