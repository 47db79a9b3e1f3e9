package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
)

// A frontRig is a front with the roles a/1 and b/1 that send their name and
// close, in an in-memory network.
type frontRig struct {
	front  *front
	client *memnet.Host
	ln     net.Listener
	leafs  map[string]tls.Certificate
}

func newFrontRig(t *testing.T) *frontRig {
	t.Helper()
	n := memnet.New()
	r := &frontRig{client: n.Host(netip.MustParseAddr("192.0.2.9")), leafs: map[string]tls.Certificate{}}
	var roles []role
	for _, alpn := range []string{"a/1", "b/1"} {
		cert := testCert(t)
		r.leafs[alpn] = cert
		roles = append(roles, role{alpn, func() (*tls.Certificate, error) { return &cert, nil },
			func(ctx context.Context, c *tls.Conn) {
				defer c.Close()
				io.WriteString(c, alpn)
			}})
	}
	roles = append(roles, role{"none/1", func() (*tls.Certificate, error) { return nil, errors.New("not enrolled") }, nil})
	r.front = newFront(slog.New(slog.DiscardHandler), roles...)
	var err error
	r.ln, err = n.Host(netip.MustParseAddr("192.0.2.1")).Listen(443)
	must(t, err)
	return r
}

// start serves ln until the test ends.
func (r *frontRig) start(t *testing.T, ln net.Listener) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.front.serve(ctx, ln) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func (r *frontRig) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := r.client.DialContext(t.Context(), "tcp", "192.0.2.1:443")
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// hello does a handshake; who answers is checked by what it sends, not by trust.
func (r *frontRig) hello(t *testing.T, maxVersion uint16, protocols ...string) (*tls.Conn, error) {
	t.Helper()
	conn := tls.Client(r.dial(t), &tls.Config{
		NextProtos: protocols, MaxVersion: maxVersion, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if want, ok := r.leafs[s.NegotiatedProtocol]; !ok || !want.Leaf.Equal(s.PeerCertificates[0]) {
				return errors.New("certificate of another role")
			}
			return nil
		},
	})
	return conn, conn.HandshakeContext(t.Context())
}

func testCert(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := identity.NewKey()
	must(t, err)
	root, err := identity.NewRoot(key, time.Now())
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{root.Cert.Raw}, PrivateKey: key, Leaf: root.Cert}
}

func TestALPNSelectsRoleAndCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.start(t, r.ln)
		for _, want := range []string{"a/1", "b/1"} {
			conn, err := r.hello(t, 0, "unknown/9", want)
			must(t, err)
			got, err := io.ReadAll(conn)
			must(t, err)
			if string(got) != want {
				t.Errorf("got role %q, want %q", got, want)
			}
			if s := conn.ConnectionState(); s.Version != tls.VersionTLS13 || s.DidResume {
				t.Errorf("version %x, resumed %v", s.Version, s.DidResume)
			}
		}
	})
}

func TestHelloForNoRoleIsRefused(t *testing.T) {
	tests := []struct {
		name      string
		max       uint16
		protocols []string
		want      string
	}{
		{"browser", 0, []string{"h2", "http/1.1"}, "no application protocol"},
		{"no ALPN", 0, nil, "no application protocol"},
		{"role that is not ready", 0, []string{"none/1"}, "internal error"},
		{"TLS 1.2", tls.VersionTLS12, []string{"a/1"}, "protocol version not supported"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFrontRig(t)
				r.start(t, r.ln)
				_, err := r.hello(t, c.max, c.protocols...)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
			})
		})
	}
}

func TestSilentStrangerIsCutAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.start(t, r.ln)
		silent := r.dial(t)
		began := time.Now()
		_, err := r.hello(t, 0, "a/1")
		must(t, err)
		if took := time.Since(began); took != 0 {
			t.Errorf("an honest client waited %v", took)
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("something was sent to a silent stranger")
		}
		if took := time.Since(began); took != handshakeTime {
			t.Errorf("cut after %v, want %v", took, handshakeTime)
		}
	})
}

func TestOverTheBoundHandshakesAreClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.front.slots = make(chan struct{}, 1)
		r.start(t, r.ln)
		r.dial(t)
		synctest.Wait()
		began := time.Now()
		if _, err := r.dial(t).Read(make([]byte, 1)); err == nil || time.Since(began) != 0 {
			t.Errorf("second connection: %v after %v", err, time.Since(began))
		}
		time.Sleep(handshakeTime + time.Second)
		_, err := r.hello(t, 0, "a/1")
		must(t, err)
	})
}

// A weary listener has no file descriptors for a while.
type weary struct {
	net.Listener
	fails  int
	asked  int
	failed error
}

func (w *weary) Accept() (net.Conn, error) {
	if w.asked++; w.asked <= w.fails {
		return nil, w.failed
	}
	return w.Listener.Accept()
}

func TestAcceptSurvivesRunningOutOfDescriptorsWithoutSpinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		w := &weary{Listener: r.ln, fails: 20, failed: &net.OpError{Op: "accept", Err: syscall.EMFILE}}
		began := time.Now()
		r.start(t, w)
		_, err := r.hello(t, 0, "a/1")
		must(t, err)
		if took := time.Since(began); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("20 errors took %v: want pauses of up to %v", took, longPause)
		}
	})
}

func TestStoppedFrontLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan struct{})
		go func() { r.front.serve(ctx, r.ln); close(served) }()
		silent := r.dial(t)
		synctest.Wait()
		cancel()
		<-served
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlived the front")
		}
		if _, err := r.client.DialContext(t.Context(), "tcp", "192.0.2.1:443"); err == nil {
			t.Error("the port still answers")
		}
	})
}
