package server

import (
	"bytes"
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
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/record"
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
		cert := identitytest.New(time.Now()).Leaf(identity.AccessName("a1"), -time.Hour, time.Hour)
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
	conn := tls.Client(&gather{Conn: r.dial(t)}, &tls.Config{
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

// A connection with a relay leaves its TLS: what follows it must still be on the socket. The others read ahead, which
// costs half as much.
func TestOnlyARelaysConnectionIsReadRecordByRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		left := make(chan string, 1)
		for i := range r.front.roles[:2] {
			r.front.roles[i].serve = func(_ context.Context, c *tls.Conn) {
				defer c.NetConn().Close()
				c.Read(make([]byte, 10))
				b, _ := io.ReadAll(c.NetConn().(*record.Conn).Raw())
				left <- string(b)
			}
		}
		r.front.roles[0].alpn = transport.ALPNRelay
		r.leafs[transport.ALPNRelay] = r.leafs["a/1"]
		r.start(t, r.ln)
		for alpn, want := range map[string]string{transport.ALPNRelay: "raw", "b/1": ""} {
			conn, err := r.hello(t, 0, alpn)
			must(t, err)
			// Both in one Write of the socket, so that both have arrived when the first record is read.
			var together bytes.Buffer
			under := conn.NetConn().(*gather)
			under.to = &together
			_, err = conn.Write([]byte("record"))
			must(t, err)
			together.WriteString("raw")
			_, err = under.Conn.Write(together.Bytes())
			must(t, err)
			under.Conn.Close()
			if got := <-left; got != want {
				t.Errorf("%s: %q is left on the socket, want %q", alpn, got, want)
			}
		}
	})
}

// gather is a connection whose writes can be put together.
type gather struct {
	net.Conn
	to *bytes.Buffer // nil: they go out
}

func (g *gather) Write(b []byte) (int, error) {
	if g.to != nil {
		return g.to.Write(b)
	}
	return g.Conn.Write(b)
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

// A load balancer that sends the PROXY protocol shuts everybody out. The log says so, and not once for each client.
func TestProxyHeaderIsNamedInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		var log strings.Builder
		r.front.log = slog.New(slog.NewTextHandler(&log, nil))
		r.start(t, r.ln)
		send := func(first string) {
			conn := r.dial(t)
			_, err := conn.Write([]byte(first + strings.Repeat("x", 100)))
			must(t, err)
			_, err = io.ReadAll(conn)
			must(t, err)
		}
		send("GET / HTTP/1.1")
		if log.Len() > 0 {
			t.Errorf("of something else it says %s", &log)
		}
		const says = "a PROXY header came"
		for _, header := range []string{"PROXY TCP4 192.0.2.9 192.0.2.1 1 443\r\n", "\r\n\r\n\x00\r\nQUIT\n"} {
			for range 100 {
				send(header)
			}
			if n := strings.Count(log.String(), says); n != 1 || !strings.Contains(log.String(), "addr=192.0.2.9:") {
				t.Errorf("after 100 of %q it says %s", header, &log)
			}
			time.Sleep(time.Minute)
			log.Reset()
		}
	})
}
