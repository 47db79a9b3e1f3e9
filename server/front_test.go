package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/record"
)

// A frontRig is a front with the roles a/1 and b/1 that send their name and
// close, in an in-memory network.
type frontRig struct {
	front  *front
	net    *memnet.Network
	client *memnet.Host
	ln     net.Listener
	leafs  map[string]tls.Certificate
}

func newFrontRig(t *testing.T) *frontRig {
	t.Helper()
	n := memnet.New()
	r := &frontRig{net: n, client: n.Host(netip.MustParseAddr("192.0.2.9")), leafs: map[string]tls.Certificate{}}
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
	r.front = newFront(slog.New(slog.DiscardHandler), nil, 0, roles...)
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
		{"HTTP/2 alone", 0, []string{"h2"}, "no application protocol"},
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

// A stranger who says nothing is cut after 3 s, and one who begins and does not go on 10 s after he came.
func TestSilentStrangerIsCutAndHoldsUpNobody(t *testing.T) {
	for first, want := range map[string]time.Duration{"": firstByteTime, "\x16": handshakeTime, "\x16\x03\x01\x02\x00\x01\x00": handshakeTime} {
		synctest.Test(t, func(t *testing.T) {
			r := newFrontRig(t)
			r.start(t, r.ln)
			silent := r.dial(t)
			began := time.Now()
			_, err := io.WriteString(silent, first)
			must(t, err)
			_, err = r.hello(t, 0, "a/1")
			must(t, err)
			if took := time.Since(began); took != 0 {
				t.Errorf("an honest client waited %v", took)
			}
			if _, err := silent.Read(make([]byte, 1)); err == nil {
				t.Error("something was sent to a silent stranger")
			}
			if took := time.Since(began); took != want {
				t.Errorf("after %q cut after %v, want %v", first, took, want)
			}
		})
	}
}

// Strangers of one source get its share of the places, and when others have taken all, whoever comes takes one of theirs.
func TestStrangersCannotTakeAllPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.front.hellos = gate.New("hellos", gate.Limits{All: 6, Source: 4, Net: 4}, nil, nil)
		r.start(t, r.ln)
		var silent []net.Conn
		for _, addr := range []string{"192.0.2.7", "192.0.2.8"} {
			r.client = r.net.Host(netip.MustParseAddr(addr))
			for range 20 {
				silent = append(silent, r.dial(t))
			}
		}
		synctest.Wait()
		r.client = r.net.Host(netip.MustParseAddr("192.0.2.9"))
		began := time.Now()
		for range 10 {
			_, err := r.hello(t, 0, "a/1")
			must(t, err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("an honest client waited %v", took)
		}
		var open atomic.Int32
		var reading sync.WaitGroup
		for _, c := range silent {
			reading.Go(func() {
				c.SetReadDeadline(began.Add(time.Second))
				if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					open.Add(1)
				}
			})
		}
		reading.Wait()
		if n := open.Load(); n != 5 {
			t.Errorf("%d strangers have a place, want all but the one that the honest client took", n)
		}
	})
}

// A crowd in the handshake of one role leaves room for the others.
func TestACrowdOfOneRoleLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.front.roles[0].places = gate.New("a/1", gate.Limits{All: 2, Source: 2, Net: 2, Queue: 2, Patience: 2 * time.Second}, nil, nil)
		r.start(t, r.ln)
		for range 2 {
			conn := tls.Client(&mute{Conn: r.dial(t)}, &tls.Config{NextProtos: []string{"a/1"}, InsecureSkipVerify: true, VerifyConnection: anybody})
			go conn.Handshake()
		}
		synctest.Wait()
		began := time.Now()
		_, err := r.hello(t, 0, "b/1")
		must(t, err)
		if took := time.Since(began); took != 0 {
			t.Errorf("another role waited %v", took)
		}
		// One that is stuck gives way.
		_, err = r.hello(t, 0, "a/1")
		must(t, err)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("a third handshake waited %v", took)
		}
	})
}

func anybody(tls.ConnectionState) error { return nil }

// mute is a connection of a client that sends its hello, and nothing after it.
type mute struct {
	net.Conn
	said bool
}

func (m *mute) Write(b []byte) (int, error) {
	if m.said {
		return len(b), nil
	}
	m.said = true
	return m.Conn.Write(b)
}

// A hello over 4 KiB, and a client that goes on and on after its hello, are refused before they cost anything.
func TestAHandshakeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.start(t, r.ln)
		long := make([]string, 600)
		for i := range long {
			long[i] = fmt.Sprint("name/", i)
		}
		if _, err := r.hello(t, 0, append(long, "a/1")...); err == nil {
			t.Error("a hello over 4 KiB was answered")
		}
		must(t, endlessHandshake(t, r))
	})
}

// endlessHandshake sends for ever after a hello, and returns an error if nobody minds.
func endlessHandshake(t *testing.T, r *frontRig) error {
	conn := r.dial(t)
	tlsConn := tls.Client(&mute{Conn: conn}, &tls.Config{NextProtos: []string{"a/1"}, InsecureSkipVerify: true, VerifyConnection: anybody})
	go tlsConn.Handshake()
	synctest.Wait()
	endless := append([]byte{22, 3, 3, 0x40, 0}, make([]byte, 16<<10)...)
	sent := 0
	for sent < 1<<20 { // far more than lies in the buffers between
		n, err := conn.Write(endless)
		if sent += n; err != nil {
			return nil
		}
	}
	return fmt.Errorf("%d bytes were taken", sent)
}

// Whoever comes with a browser reads what this is, whether he asks plainly or by TLS.
func TestABrowserReadsWhatThisIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		web := webRole(r.front.roles[0].certificate)
		r.front = newFront(slog.New(slog.DiscardHandler), nil, 0, r.front.roles[0].role, web)
		r.leafs[webALPN] = r.leafs["a/1"]
		r.start(t, r.ln)
		ask := func(conn net.Conn) {
			t.Helper()
			request := "GET /setup HTTP/1.1\r\nHost: hawser.example.com\r\n\r\n"
			_, err := io.WriteString(conn, request)
			must(t, err)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			text, err := io.ReadAll(answer.Body)
			must(t, err)
			if answer.StatusCode != http.StatusMisdirectedRequest || string(text) != webLine || !answer.Close {
				t.Errorf("the answer is %d, %q", answer.StatusCode, text)
			}
			must(t, conn.Close())
		}
		ask(r.dial(t))
		conn, err := r.hello(t, 0, "h2", "http/1.1")
		must(t, err)
		ask(conn)
	})
}

func TestFirstBytesSayWhoItIs(t *testing.T) {
	for first, want := range map[string]stranger{
		"": unknown, "G": unknown, "GETX ": unknown, "\x16\x03\x01": unknown, "SSH-2": unknown, "\r\n\r\n\r": unknown,
		"GET /": webUser, "HEAD ": webUser, "POST ": webUser, "PUT /": webUser, "OPTIO": webUser, "CONNE": webUser,
		"PROXY": balancer, "\r\n\r\n\x00": balancer,
	} {
		if got := judgeFirst([]byte(first)); got != want {
			t.Errorf("%q: %d, want %d", first, got, want)
		}
	}
}

// FuzzHello reads the first bytes of strangers. None may hang or panic it, and no more than its bound may be read.
func FuzzHello(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(realHello(f))
	f.Fuzz(func(t *testing.T, sent []byte) {
		stream := &script{rest: sent}
		hello, err := readHello(deadlines{stream}, nil, time.Time{})
		judgeFirst(hello)
		if read := len(sent) - len(stream.rest); read > recordHeader+maxHello || err == nil && !bytes.Equal(hello, sent[:read]) {
			t.Fatalf("%d bytes were read, hello of %d", read, len(hello))
		}
		if err == nil {
			protocolsOf(hello)
		}
	})
}

// realHello is what a client of ours sends first.
func realHello(f *testing.F) []byte {
	near, far := net.Pipe()
	defer far.Close()
	go tls.Client(near, &tls.Config{NextProtos: []string{"a/1"}, InsecureSkipVerify: true, VerifyConnection: anybody}).Handshake()
	hello, err := readHello(far, nil, time.Now().Add(time.Minute))
	if err != nil {
		f.Fatal(err)
	}
	if got, err := protocolsOf(hello); err != nil || !slices.Equal(got, []string{"a/1"}) {
		f.Fatalf("protocols %q, %v", got, err)
	}
	return hello
}

// deadlines is a script on which deadlines may be set.
type deadlines struct{ *script }

func (deadlines) SetReadDeadline(time.Time) error { return nil }

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

// Who is answered as a browser keeps his place until it is over: a handshake is all that it takes to be one.
func TestBrowsersHaveFewPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFrontRig(t)
		r.front = newFront(slog.New(slog.DiscardHandler), nil, 0, r.front.roles[0].role, webRole(r.front.roles[0].certificate))
		r.front.roles[1].places = gate.New("web", gate.Limits{All: 4, Source: 4, Net: 4, Patience: 2 * time.Second}, nil, nil)
		r.leafs[webALPN] = r.leafs["a/1"]
		r.start(t, r.ln)
		for range 20 {
			r.hello(t, 0, webALPN) // some are closed
		}
		synctest.Wait()
		if n := r.front.count.open.Get(); n > 4 {
			t.Errorf("%v connections are served in 4 places", n)
		}
		time.Sleep(time.Minute)
	})
}
