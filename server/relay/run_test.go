package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

// relayLife is how long an identity is good that the Access Server gives a relay.
const relayLife = 30 * 24 * time.Hour

// fresh is a rig whose relay has only an activation code.
type fresh struct {
	*rig
	access *accesstest.Server
	dir    string
	done   chan error
}

var testCode = identity.NewCode().String()

// newFresh makes a relay that has not enrolled, and an Access Server for it.
func newFresh(t *testing.T) *fresh {
	t.Helper()
	f := &fresh{done: make(chan error, 1)}
	f.rig = newRig(t, func(c *Config) { f.dir = c.Dir; c.Version = "v1" })
	f.access = accesstest.New(t, f.PKI, f.net.Host(netip.MustParseAddr("192.0.2.2")))
	f.refuse(nil)
	for _, name := range []string{keyFile, identityFile} {
		must(t, os.Remove(filepath.Join(f.dir, name)))
	}
	must(t, durable.WriteFile(filepath.Join(f.dir, codeFile), []byte(testCode+"\n"), 0o600))
	f.restart(t)
	return f
}

// refuse makes the Access Server answer everything with r from now on; nil: nothing any more.
func (f *fresh) refuse(r *wire.Refusal) {
	f.access.Certify(identity.RelayName(relayName), relayLife)
	f.access.Set(func() {
		f.access.RefuseHello = r
		if r != nil {
			f.access.Identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) { return wire.Identity{}, r }
		}
	})
}

// push sends a frame on the newest control connection.
func (f *fresh) push(t *testing.T, kind wire.Type, v any) {
	t.Helper()
	must(t, wire.WriteJSON(f.access.Newest(), kind, v))
}

// hellos lists what the relay has said at the beginning of each control connection.
func (f *fresh) hellos(t *testing.T) []wire.Hello {
	return decoded[wire.Hello](t, f.access.Heard(wire.TypeHello))
}

// decoded reads the JSON of frames.
func decoded[T any](t *testing.T, frames []accesstest.Frame) []T {
	t.Helper()
	list := make([]T, len(frames))
	for i, frame := range frames {
		must(t, frame.Decode(&list[i]))
	}
	return list
}

// restart makes the relay anew, as a restarted process has it.
func (f *fresh) restart(t *testing.T) {
	t.Helper()
	config := f.server.config
	config.Dialer = &transport.Dialer{DialContext: config.Dialer.DialContext}
	var err error
	f.server, err = New(config)
	must(t, err)
}

// run starts the relay; stop ends it and returns what Run gave.
func (f *fresh) run(t *testing.T) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { f.done <- f.server.Run(ctx) }()
	return func() error {
		cancel()
		return <-f.done
	}
}

func TestRelayEnrollsOnceAndRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		enrolled, hellos := decoded[wire.Enroll](t, f.access.Heard(wire.TypeEnroll)), f.hellos(t)
		if len(enrolled) != 1 || enrolled[0].Code != testCode {
			t.Errorf("enrolled by %+v", enrolled)
		}
		if _, err := os.Stat(filepath.Join(f.dir, codeFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the used code is still there: %v", err)
		}
		want := wire.Hello{Version: "v1", Instance: f.server.instance, Hosts: []string{"192.0.2.1"}, Ports: []transport.Port{443}}
		if len(hellos) != 1 || !equalHello(hellos[0], want) {
			t.Errorf("hellos: %+v, want one %+v", hellos, want)
		}
		instance := f.server.instance
		f.restart(t)
		stop = f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		codes := f.access.Heard(wire.TypeEnroll)
		if hellos = f.hellos(t); len(codes) != 1 || len(hellos) != 2 {
			t.Fatalf("after a restart: %d codes, %d hellos", len(codes), len(hellos))
		}
		if hellos[1].Instance == instance {
			t.Error("the instance outlived the process")
		}
	})
}

func equalHello(a, b wire.Hello) bool {
	return a.Version == b.Version && a.Instance == b.Instance &&
		strings.Join(a.Hosts, ",") == strings.Join(b.Hosts, ",") && len(a.Ports) == len(b.Ports)
}

func TestEnrolledRelayCarriesSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		runtime, manager := f.pair(t, "s1")
		f.push(t, wire.TypeEndSession, wire.EndSession{Session: "s1", Reason: transport.Closed})
		wantEnd(t, runtime)
		wantEnd(t, manager)
		runtime, _ = f.pair(t, "s2")
		f.push(t, wire.TypeRevoked, wire.Revoked{SPKI: []identity.SPKI{f.holder(t, "s2")}})
		wantEnd(t, runtime)
		must(t, stop())
	})
}

func TestPipesOutliveTheAccessServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		runtime, manager := f.pair(t, "s1")
		f.refuse(&wire.Refusal{Reason: transport.Busy, RetryAfter: 10 * time.Minute})
		f.access.Drop()
		time.Sleep(5 * time.Minute)
		send(t, runtime, []byte("still here"))
		receive(t, manager, []byte("still here"))
		if hellos := f.hellos(t); len(hellos) != 2 {
			t.Errorf("%d hellos, want the first, and the one after which it was told to wait", len(hellos))
		}
		f.refuse(nil)
		time.Sleep(10 * time.Minute)
		if hellos := f.hellos(t); len(hellos) != 3 {
			t.Errorf("%d hellos in all, want 3", len(hellos))
		}
		must(t, stop())
	})
}

func TestRelayKeepsTryingToEnroll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		f.refuse(&wire.Refusal{Reason: transport.BadCode})
		stop := f.run(t)
		time.Sleep(time.Hour)
		if _, err := f.server.Certificate(); err == nil {
			t.Fatal("enrolled by a server that refuses")
		}
		f.refuse(nil)
		time.Sleep(2 * backoff().Longest)
		_, err := f.server.Certificate()
		must(t, err)
		must(t, stop())
	})
}

func TestRelayRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		first, err := f.server.Certificate()
		must(t, err)
		half := relayLife / 2
		time.Sleep(half - half/10 - time.Minute)
		if renewed := len(f.access.Heard(wire.TypeRenew)); renewed != 0 {
			t.Error("renewed before half-life - 10 %")
		}
		time.Sleep(half/5 + 2*lookAgain)
		if renewed := len(f.access.Heard(wire.TypeRenew)); renewed != 1 {
			t.Errorf("renewed %d times until half-life + 10 %%", renewed)
		}
		second, err := f.server.Certificate()
		must(t, err)
		if first.Leaf.Equal(second.Leaf) || identity.CertSPKI(first.Leaf) != identity.CertSPKI(second.Leaf) {
			t.Error("want another certificate for the same key")
		}
		must(t, stop())
	})
}

// TestRelayComesBackAfterYears: its certificate has expired, and it renews by
// its key (access §3) before it registers.
func TestRelayComesBackAfterYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		time.Sleep(100 * 24 * time.Hour)
		f.restart(t)
		stop = f.run(t)
		time.Sleep(10 * time.Second)
		cert, err := f.server.Certificate()
		must(t, err)
		if renewed := len(f.access.Heard(wire.TypeRenew)); renewed != 1 || time.Now().After(cert.Leaf.NotAfter) {
			t.Errorf("renewed %d times, valid until %v", renewed, cert.Leaf.NotAfter)
		}
		must(t, stop())
	})
}

func TestRelayWithoutCodeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		must(t, os.Remove(filepath.Join(f.dir, codeFile)))
		if err := f.server.Run(t.Context()); !errors.Is(err, errNoCode) {
			t.Errorf("Run gave %v", err)
		}
	})
}

func TestRelayRefusesAnIdentityThatIsNotIts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pki, key, day := identitytest.New(time.Now()), identitytest.NewKey(), 24*time.Hour
		relay := identity.RelayName(relayName)
		tests := []struct {
			name  string
			chain []*x509.Certificate
		}{
			{"another key", pki.Chain(identitytest.NewKey().Public(), relay, 0, day)},
			{"another kind", pki.Chain(key.Public(), pki.Access, 0, day)},
			{"another name", pki.Chain(key.Public(), identity.RelayName("r2"), 0, day)},
			{"another root", identitytest.New(time.Now()).Chain(key.Public(), relay, 0, day)},
			{"no certificate", nil},
		}
		for _, c := range tests {
			if _, err := newOwn(credential.Credential{Key: key, Chain: c.chain}, pki.Roots, relayName); err == nil {
				t.Errorf("%s: taken", c.name)
			}
		}
		_, err := newOwn(credential.Credential{Key: key, Chain: pki.Chain(key.Public(), relay, 0, day)}, pki.Roots, relayName)
		must(t, err)
	})
}

// A new key beside an old certificate would only hide that the old one is lost.
func TestRelayThatHasLostItsKeySaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		must(t, stop())
		must(t, os.Remove(filepath.Join(f.dir, keyFile)))
		f.restart(t)
		if err := f.server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), keyFile) {
			t.Errorf("Run gave %v", err)
		}
		if _, err := os.Stat(filepath.Join(f.dir, keyFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of the key: %v", err)
		}
	})
}

func TestRelayRefusesExposedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		must(t, os.Chmod(filepath.Join(f.dir, codeFile), 0o644))
		if _, err := f.server.home.code(); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("a code that others can read gave %v", err)
		}
		must(t, os.Chmod(f.dir, 0o755))
		if err := f.server.Run(t.Context()); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("a directory that others can read gave %v", err)
		}
	})
}
