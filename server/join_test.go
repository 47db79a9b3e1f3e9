package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"hawser/identity"
	"hawser/server/access"
)

// startNATS runs a real NATS server on a loopback port.
func startNATS(t *testing.T) (url string) {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
	})
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	return s.ClientURL()
}

// An Access Server that joins has keys of its own under the same root, the
// same store, and neither root key nor relay.
func TestJoinMakesAnotherAccessServer(t *testing.T) {
	o := options(t)
	o.Store, o.NATS = nil, startNATS(t)
	first, err := Init(t.Context(), o)
	must(t, err)
	join := Options{Dir: filepath.Join(t.TempDir(), "second"), Hosts: []string{"b.example.com"}, Join: filepath.Dir(first.RootKey), NATS: o.NATS}
	second, err := Init(t.Context(), join)
	must(t, err)
	if !second.Joined || second.Root != first.Root || second.RootKey != first.RootKey || second.Access == first.Access {
		t.Errorf("%+v", second)
	}
	wantOnly(t, join.Dir, "access", "root.pem", "server.yaml")
	wantOnly(t, filepath.Join(join.Dir, "access"), "grant.key", "grant.pem", "issuing.key", "issuing.pem", "time.key", "time.pem")
	c, err := Load(second.Config)
	must(t, err)
	if c.Access.Name != second.Access || c.Relay != nil || !slices.Equal(c.Access.NATS.URLs, []string{o.NATS}) {
		t.Errorf("%+v", c.Access)
	}
	roots, err := loadRoots(first.RootFile)
	must(t, err)
	keys, err := loadAccessKeys(c.Access.Dir, c.Access.Name, roots, time.Now())
	must(t, err)
	if name, err := identity.VerifyGrantKey(keys.grant.chain[0], roots, time.Now()); err != nil || name != second.Access {
		t.Errorf("%v, %v", name, err)
	}
	for _, row := range Check(t.Context(), c, time.Now()) {
		if !row.OK {
			t.Errorf("%s: %s", row.Name, row.Text)
		}
		if row.Name == "store" && (!strings.Contains(row.Text, "it does not tell") || !strings.Contains(row.Text, "1 audit record")) {
			t.Errorf("store: %s", row.Text)
		}
	}
	if _, err := Init(t.Context(), join); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
}

func TestJoinWithoutARootLeavesNothing(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "second"), Hosts: []string{"b.example.com"}, Join: t.TempDir(), NATS: "nats://127.0.0.1"}
	if _, err := Init(t.Context(), o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
}

func TestCheckSaysThatNATSIsAwayOrEmpty(t *testing.T) {
	url := startNATS(t)
	c := AccessConfig{Name: identity.AccessName("a1"), NATS: access.NATS{URLs: []string{url}}}
	for range 2 { // and does not make one
		if text, err := checkStore(t.Context(), c, time.Now()); err != nil || !strings.Contains(text, "no store yet") {
			t.Errorf("%q, %v", text, err)
		}
	}
	c.NATS.URLs = []string{"nats://127.0.0.1:1"}
	if _, err := checkStore(t.Context(), c, time.Now()); !errors.Is(err, access.ErrAway) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v", err)
	}
}

func TestNATSURLs(t *testing.T) {
	for in, want := range map[string]string{
		"nats://n:1": "nats://n:1", "tls://n": "tls://n:4222", "nats://a:1, nats://[::1]": "nats://a:1 nats://[::1]:4222",
		"nats://u:p@n:1": "nats://u:p@n:1",
		"":               "", "n:1": "", "http://n:1": "", "nats://": "", "nats://n:1/x": "", "nats://n:1,": "", "nats://u:p@": "",
	} {
		got, err := parseNATS(in)
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", in, err)
		}
	}
}
