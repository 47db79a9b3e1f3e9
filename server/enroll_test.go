package server

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/internal/memnet"
	"hawser/transport"
)

// A site is a machine for a relay, and an infrastructure that runs elsewhere.
type site struct {
	*whole
	host *memnet.Host
	good EnrollOptions
}

// newSite starts the infrastructure, as an Access Server alone. It ends with
// the test.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{whole: newWhole(t)}
	s.host = s.net.Host(netip.MustParseAddr("192.0.2.2"))
	b, err := os.ReadFile(filepath.Join(s.server.Config.Relay.Dir, codeFile))
	must(t, err)
	code, err := identity.ParseCode(string(b))
	must(t, err)
	s.server.Config.Relay = nil
	s.good = EnrollOptions{
		Dir: filepath.Join(t.TempDir(), "relay"), Hosts: []string{"192.0.2.2"}, Access: []string{"192.0.2.1"},
		Code: code, RootFile: s.made.RootFile,
		Dialer: &transport.Dialer{DialContext: s.host.DialContext},
	}
	start(t, s.server)
	return s
}

// start runs a server; stop, or the end of the test, ends it.
func start(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func TestEnrolledRelayRunsAlone(t *testing.T) {
	for _, trust := range []string{"root", "pin"} {
		t.Run(trust, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				if trust == "pin" {
					s.good.RootFile, s.good.Pin = "", s.made.Root.String()
				}
				made, err := Enroll(t.Context(), s.good)
				must(t, err)
				if made.Dir != s.good.Dir || made.Name != firstRelay || made.SPKI.IsZero() || !made.NotAfter.After(time.Now()) {
					t.Errorf("made %+v", made)
				}
				config, err := Load(made.Config)
				must(t, err)
				if config.Access != nil || config.Relay.Name != firstRelay {
					t.Errorf("config %+v", config)
				}
				for _, row := range Check(t.Context(), config, time.Now()) {
					if !row.OK {
						t.Errorf("%s: %s", row.Name, row.Text)
					}
				}
				log := new(syncBuffer)
				stop := start(t, serverOn(s.host, config, log))
				time.Sleep(10 * time.Second)
				d := &transport.Dialer{DialContext: s.client.DialContext}
				conn, err := d.Dial(t.Context(), transport.Target{
					Hosts: []string{"192.0.2.2"}, Ports: config.Ports, ALPN: transport.ALPNRelay,
					Name: identity.RelayName(firstRelay), Pin: s.made.Root,
				})
				must(t, err)
				conn.Close()
				stop()
				if text := log.String(); !strings.Contains(text, "relay is registered") || strings.Contains(text, "level=WARN") {
					t.Errorf("the relay's log:\n%s", text)
				}
				synctest.Wait()
				if text := s.log.String(); !strings.Contains(text, "reason=closed") {
					t.Errorf("the Access Server does not know that it has stopped in order:\n%s", text)
				}
			})
		})
	}
}

func TestFailedEnrollLeavesTheKeyAndTheSameCodeWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		lost := s.good // the answer: the server has done it, and the relay does not know
		ctx, cancel := context.WithCancel(t.Context())
		s.net.SetLatency(time.Second)
		time.AfterFunc(7500*time.Millisecond, cancel) // TCP, TLS, prelude; the code is on its way
		_, err := Enroll(ctx, lost)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		s.net.SetLatency(0)
		wantOnly(t, s.good.Dir, "relay")
		wantOnly(t, filepath.Join(s.good.Dir, "relay"), "relay.key")
		time.Sleep(time.Minute)
		other := s.good
		other.Dir = filepath.Join(t.TempDir(), "other")
		if _, err := Enroll(t.Context(), other); ExitCode(err) != answer.ExitRefused || transport.ReasonOf(err) != transport.BadCode {
			t.Errorf("the same code with another key: %v", err)
		}
		first, err := Enroll(t.Context(), s.good)
		must(t, err)
		again, err := Enroll(t.Context(), s.good)
		must(t, err)
		if again != first {
			t.Errorf("made %+v, and again %+v", first, again)
		}
	})
}

// TestEnrollIsRefused plays each fault, and last none.
func TestEnrollIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		bend   func(t *testing.T, s *site, o *EnrollOptions)
		code   int
		advice string
	}{
		{"wrong code", func(_ *testing.T, _ *site, o *EnrollOptions) {
			o.Code = identity.NewCode()
		}, answer.ExitRefused, "hawser relay add"},
		{"other root", func(t *testing.T, _ *site, o *EnrollOptions) { o.RootFile = newWhole(t).made.RootFile }, answer.ExitRefused, "--root or --pin"},
		{"other pin", func(t *testing.T, _ *site, o *EnrollOptions) { o.RootFile, o.Pin = "", newWhole(t).made.Root.String() }, answer.ExitRefused, "--root or --pin"},
		{"nobody there", func(_ *testing.T, _ *site, o *EnrollOptions) { o.Access = []string{"192.0.2.77"} }, answer.ExitUnreachable, "--access"},
		{"port that is closed", func(_ *testing.T, _ *site, o *EnrollOptions) { o.AccessPorts = []transport.Port{8443} }, answer.ExitUnreachable, "--access"},
		{"server's directory", func(_ *testing.T, s *site, o *EnrollOptions) { o.Dir = s.made.Dir }, answer.ExitFailed, "--dir"},
		{"other relay's directory", func(t *testing.T, _ *site, o *EnrollOptions) {
			must(t, os.Mkdir(o.Dir, 0o700))
			must(t, os.WriteFile(filepath.Join(o.Dir, configFile), []byte("hosts: [h]\n"), 0o600))
		}, answer.ExitFailed, "--dir"},
		{"directory that others can read", func(t *testing.T, _ *site, o *EnrollOptions) { must(t, os.Mkdir(o.Dir, 0o755)) }, answer.ExitFailed, ""},
		{"", nil, answer.ExitDone, ""},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", strconv.Itoa(len(tests)))
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				o := s.good
				if c.bend == nil {
					_, err := Enroll(t.Context(), o)
					must(t, err)
					return
				}
				c.bend(t, s, &o)
				_, err := Enroll(t.Context(), o)
				if ExitCode(err) != c.code || !strings.Contains(Advice(err), c.advice) {
					t.Errorf("got %v: exit code %d, advice %q", err, ExitCode(err), Advice(err))
				}
				if o.Dir != s.good.Dir {
					return
				}
				if _, err := os.Stat(filepath.Join(o.Dir, rootFile)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a server is there: %v", err)
				}
			})
		})
	}
}

// mistype changes one character of a code.
func mistype(code string) string {
	if code[0] == 'A' {
		return "B" + code[1:]
	}
	return "A" + code[1:]
}

func TestBadEnrollOptionsAreConfigErrors(t *testing.T) {
	t.Attr("id", "A1-input")
	made, err := Init(t.Context(), options(t))
	must(t, err)
	dir := t.TempDir()
	good := EnrollOptions{
		Dir: filepath.Join(dir, "relay"), Hosts: []string{"h"}, Access: []string{"a"}, RootFile: made.RootFile,
		Code: made.AdminCode,
	}
	bends := map[string]func(o *EnrollOptions){
		"no directory":      func(o *EnrollOptions) { o.Dir = "" },
		"no host":           func(o *EnrollOptions) { o.Hosts = nil },
		"host with port":    func(o *EnrollOptions) { o.Hosts = []string{"h:443"} },
		"no access":         func(o *EnrollOptions) { o.Access = nil },
		"bad access":        func(o *EnrollOptions) { o.Access = []string{"a b"} },
		"port twice":        func(o *EnrollOptions) { o.Ports = []transport.Port{443, 443} },
		"access port zero":  func(o *EnrollOptions) { o.AccessPorts = []transport.Port{0} },
		"no code":           func(o *EnrollOptions) { o.Code = identity.Code{} },
		"nobody to trust":   func(o *EnrollOptions) { o.RootFile = "" },
		"two to trust":      func(o *EnrollOptions) { o.Pin = made.Root.String() },
		"bad pin":           func(o *EnrollOptions) { o.RootFile, o.Pin = "", "xyz" },
		"no such root":      func(o *EnrollOptions) { o.RootFile = filepath.Join(dir, "none") },
		"root that is none": func(o *EnrollOptions) { o.RootFile = made.Config },
	}
	t.Attr("cases", strconv.Itoa(len(bends)))
	for name, bend := range bends {
		o := good
		bend(&o)
		_, err := Enroll(t.Context(), o)
		if _, ok := errors.AsType[*ConfigError](err); !ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, code := range []string{"", mistype(made.AdminCode.String())} {
		if _, err := ParseCode(code); err == nil {
			t.Errorf("code %q was taken", code)
		} else if _, ok := errors.AsType[*ConfigError](err); !ok {
			t.Errorf("code %q: %v", code, err)
		}
	}
	wantOnly(t, dir)
	if _, err := good.check(); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}
