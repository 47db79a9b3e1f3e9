package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
)

// A whole is a server of both roles in an in-memory network.
type whole struct {
	made   Made
	server *Server
	net    *memnet.Network
	client *memnet.Host
	log    *syncBuffer
	ready  []string
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	o := options(t)
	o.Hosts = []string{"192.0.2.1"}
	made, err := Init(t.Context(), o)
	must(t, err)
	config, err := Load(made.Config)
	must(t, err)
	config.Relay.Access = []string{"192.0.2.1"} // memnet has no loopback
	w := &whole{made: made, log: new(syncBuffer), net: memnet.New()}
	w.client = w.net.Host(netip.MustParseAddr("192.0.2.9"))
	w.server = serverOn(w.net.Host(netip.MustParseAddr("192.0.2.1")), config, w.log)
	w.server.Store, w.server.Ready = o.Store, func(addrs []string) { w.ready = addrs }
	return w
}

// serverOn is a server whose network is host.
func serverOn(host *memnet.Host, config Config, log io.Writer) *Server {
	return &Server{
		Config: config, Version: "v1",
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Dialer: &transport.Dialer{DialContext: host.DialContext},
		Listen: func(_, address string) (net.Listener, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			p, err := strconv.Atoi(port)
			if err != nil {
				return nil, err
			}
			return host.Listen(uint16(p))
		},
	}
}

// run runs the server for d, then f, and then stops it.
func (w *whole) run(t *testing.T, d time.Duration, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { err = w.server.Run(ctx) })
	time.Sleep(d)
	f()
	cancel()
	wg.Wait()
	must(t, err)
}

func (w *whole) dial(t *testing.T, alpn string, name identity.Name, port transport.Port) error {
	t.Helper()
	d := &transport.Dialer{DialContext: w.client.DialContext}
	conn, err := d.Dial(t.Context(), transport.Target{
		Hosts: []string{"192.0.2.1"}, Ports: []transport.Port{port}, ALPN: alpn, Name: name, Pin: w.made.Root,
	})
	if err == nil {
		conn.Close()
	}
	return err
}

func TestEveryRoleAnswersOnEveryPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		w.run(t, 10*time.Second, func() {
			for _, port := range w.server.Config.Ports {
				must(t, w.dial(t, transport.ALPNAccess, identity.AccessName(firstAccess), port))
				must(t, w.dial(t, transport.ALPNAPI, identity.AccessName(firstAccess), port))
				must(t, w.dial(t, transport.ALPNRelay, identity.RelayName(firstRelay), port))
			}
			err := w.dial(t, "h2", identity.AccessName(firstAccess), 443)
			if transport.ReasonOf(err) != transport.TLSRefused {
				t.Errorf("a browser got %v", err)
			}
		})
		if got := strings.Join(w.ready, " "); got != "192.0.2.1:80 192.0.2.1:443 192.0.2.1:5935" {
			t.Errorf("ready %q", got)
		}
	})
}

// TestRelayOfTheSameProcessEnrollsAndOutlivesARestart goes through the real
// Access Server, like any other relay.
func TestRelayOfTheSameProcessEnrollsAndOutlivesARestart(t *testing.T) {
	t.Attr("id", "A1-restart")
	t.Attr("cases", "2")
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		code := filepath.Join(w.server.Config.Relay.Dir, codeFile)
		for range 2 {
			w.run(t, 10*time.Second, func() {})
			if _, err := os.Stat(code); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the code is still there: %v\n%s", err, w.log)
			}
		}
		if n := strings.Count(w.log.String(), `"relay is registered"`); n != 2 {
			t.Errorf("registered %d times, want once a run\n%s", n, w.log)
		}
		if strings.Contains(w.log.String(), "level=WARN") {
			t.Errorf("something is wrong in an ordinary run:\n%s", w.log)
		}
	})
}

func TestPortThatIsTakenIsFoundBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		listen, open := w.server.Listen, 0
		w.server.Listen = func(network, address string) (net.Listener, error) {
			if address == ":5935" {
				return nil, syscall.EADDRINUSE
			}
			ln, err := listen(network, address)
			if err != nil {
				return nil, err
			}
			open++
			return countedListener{ln, &open}, nil
		}
		err := w.server.Run(t.Context())
		if !errors.Is(err, syscall.EADDRINUSE) || w.ready != nil || open != 0 {
			t.Errorf("got %v, ready %v, %d listeners left open", err, w.ready, open)
		}
	})
}

type countedListener struct {
	net.Listener
	open *int
}

func (l countedListener) Close() error {
	*l.open--
	return l.Listener.Close()
}

func TestKeyOfSomebodyElseIsFoundBeforeReady(t *testing.T) {
	for _, name := range []string{issuingName, timeName, grantName} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, other := newWhole(t), newWhole(t)
				for _, ext := range []string{".key", ".pem"} {
					b, err := os.ReadFile(filepath.Join(other.server.Config.Access.Dir, name+ext))
					must(t, err)
					must(t, os.WriteFile(filepath.Join(w.server.Config.Access.Dir, name+ext), b, 0o600))
					if err := w.server.Run(t.Context()); err == nil || w.ready != nil {
						t.Errorf("%s%s of another infrastructure: Run gave %v, ready %v", name, ext, err, w.ready)
					}
				}
			})
		})
	}
}

// TestRelayThatCannotBeginLeavesTheAccessServer: it says what to do, once, and
// only where it is alone does it end the server.
func TestRelayThatCannotBeginLeavesTheAccessServer(t *testing.T) {
	faults := []struct {
		name, want string
		fault      func(t *testing.T, dir string)
	}{
		{"no code", "put one of hawser relay add into", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, codeFile)))
		}},
		{"identity that is none", "identity.pem", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "identity.pem"), []byte("?"), 0o600))
		}},
		{"directory that others can read", "relay", func(t *testing.T, dir string) {
			must(t, os.Chmod(dir, 0o755))
		}},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWhole(t)
				f.fault(t, w.server.Config.Relay.Dir)
				w.run(t, time.Hour, func() {
					must(t, w.dial(t, transport.ALPNAccess, identity.AccessName(firstAccess), 443))
				})
				if log := w.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, f.want) {
					t.Errorf("want one error that tells of %q:\n%s", f.want, log)
				}
				w.server.Config.Access = nil
				if err := w.server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), f.want) {
					t.Errorf("alone: got %v, want %q", err, f.want)
				}
			})
		})
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	o := options(t)
	o.Store = nil
	made, err := Init(t.Context(), o)
	must(t, err)
	c, err := Load(made.Config)
	must(t, err)
	wantBad := func(t *testing.T, now time.Time, want ...string) {
		t.Helper()
		var bad []string
		for _, r := range Check(t.Context(), c, now) {
			if !r.OK {
				bad = append(bad, r.Name)
			}
			if r.Text == "" {
				t.Errorf("%s: nothing is said", r.Name)
			}
		}
		if strings.Join(bad, ",") != strings.Join(want, ",") {
			t.Errorf("not good: %q, want %q", bad, want)
		}
	}
	now := time.Now()
	wantBad(t, now)
	must(t, os.RemoveAll(filepath.Join(made.Dir, rootDir))) // taken offline
	wantBad(t, now)
	wantBad(t, time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), "clock", "keys", "store")
	wantBad(t, now.Add(-2*time.Minute), "store") // a record of Init is newer
	c.Access.ClockSet = now.Add(-time.Hour)
	wantBad(t, now.Add(-2*time.Minute))
	wantBad(t, now.AddDate(100, 0, 0), "root", "clock", "keys")

	must(t, os.Chmod(c.Access.Dir, 0o755))
	wantBad(t, now, "access directory")
	must(t, os.Chmod(c.Access.Dir, 0o700))
	must(t, os.Chmod(filepath.Join(c.Access.Dir, "time.key"), 0o644))
	wantBad(t, now, "keys")
	must(t, os.Chmod(filepath.Join(c.Access.Dir, "time.key"), 0o600))

	store, err := openStore(t.Context(), *c.Access, false, nil)
	must(t, err)
	wantBad(t, now) // a running server is no fault
	must(t, store.Close())
	if os.Geteuid() == 0 { // only root can make, and meet, a directory of another user
		must(t, os.Chown(c.Access.Dir, 4711, 4711))
		wantBad(t, now, "store")
		must(t, os.Chown(c.Access.Dir, 0, 0))
	}

	must(t, os.WriteFile(filepath.Join(c.Relay.Dir, "identity.pem"), []byte("?"), 0o600))
	wantBad(t, now, "relay")
	must(t, os.RemoveAll(filepath.Join(c.Access.Dir, storeDir)))
	wantBad(t, now, "store", "relay")
	must(t, os.Remove(c.Root))
	wantBad(t, now, "root")
}

// syncBuffer is written by many goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
