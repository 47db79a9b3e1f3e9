package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	serverAddr = netip.MustParseAddr("192.0.2.1")
	clientAddr = netip.MustParseAddr("198.51.100.7")
)

const target = "192.0.2.1:443"

// A rig is two hosts and a listener on port 443 of the server.
type rig struct {
	*testing.T
	net            *Network
	server, client *Host
	listener       net.Listener
}

// bubble runs f on a fresh rig; a goroutine that is left fails the test.
func bubble(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		r := &rig{T: t, net: n, server: n.Host(serverAddr), client: n.Host(clientAddr)}
		r.listener = r.listen(443)
		f(r)
	})
}

func (r *rig) listen(port uint16) net.Listener {
	r.Helper()
	l, err := r.server.Listen(port)
	if err != nil {
		r.Fatal(err)
	}
	return l
}

func (r *rig) dial(address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	return r.client.DialContext(ctx, "tcp", address)
}

func (r *rig) pair() (client, server net.Conn) {
	r.Helper()
	client, err := r.dial(target)
	if err != nil {
		r.Fatal(err)
	}
	if server, err = r.listener.Accept(); err != nil {
		r.Fatal(err)
	}
	return client, server
}

func (r *rig) write(c io.Writer, s string) {
	r.Helper()
	if n, err := io.WriteString(c, s); n != len(s) || err != nil {
		r.Fatalf("write %q: %d, %v", s, n, err)
	}
}

func (r *rig) read(c io.Reader, want string) {
	r.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		r.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

// wantErr checks the errno and that the error has the shape of package net's.
func (r *rig) wantErr(what string, err, want error) {
	r.Helper()
	var op *net.OpError
	if !errors.Is(err, want) || !errors.As(err, &op) {
		r.Errorf("%s: %v, want a *net.OpError with %v", what, err, want)
	}
}

// took checks the fake time since start, to the nanosecond.
func (r *rig) took(what string, start time.Time, want time.Duration) {
	r.Helper()
	if d := time.Since(start); d != want {
		r.Errorf("%s took %v, want %v", what, d, want)
	}
}

func TestDial(t *testing.T) {
	bubble(t, func(r *rig) {
		for _, c := range []struct {
			network, address string
			want             error
			took             time.Duration
		}{
			{"tcp", target, nil, 200 * time.Millisecond},
			{"tcp4", target, nil, 200 * time.Millisecond},
			{"tcp", "[::ffff:192.0.2.1]:443", nil, 200 * time.Millisecond},
			{"tcp", "192.0.2.1:80", syscall.ECONNREFUSED, 200 * time.Millisecond},
			{"tcp", "192.0.2.99:443", context.DeadlineExceeded, 5 * time.Second},
			{"tcp", "[2001:db8::1]:443", syscall.ENETUNREACH, 200 * time.Millisecond},
		} {
			r.net.SetLatency(100 * time.Millisecond)
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
			start := time.Now()
			conn, err := r.client.DialContext(ctx, c.network, c.address)
			cancel()
			r.took(c.address, start, c.took)
			if c.want != nil {
				r.wantErr(c.address, err, c.want)
				continue
			}
			if err != nil {
				r.Fatal(err)
			}
			if conn.RemoteAddr().String() != target || conn.LocalAddr().(*net.TCPAddr).IP.String() != clientAddr.String() {
				r.Errorf("addresses %v, %v", conn.LocalAddr(), conn.RemoteAddr())
			}
			conn.Close()
		}
		for _, c := range [][2]string{{"tcp", "host:443"}, {"tcp6", target}, {"unix", target}, {"udp", "192.0.2.1"}} {
			if _, err := r.client.DialContext(r.Context(), c[0], c[1]); err == nil {
				r.Errorf("dial %v succeeded", c)
			}
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.SetLatency(time.Second)
		for _, after := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond} {
			ctx, cancel := context.WithCancel(r.Context())
			time.AfterFunc(after, cancel)
			if after == 0 {
				cancel()
			}
			start := time.Now()
			_, err := r.client.DialContext(ctx, "tcp", target)
			r.wantErr("cancelled dial", err, context.Canceled)
			r.took("cancelled dial", start, after)
			cancel()
		}
	})
}

func TestFirewallDecidesOnNewConnections(t *testing.T) {
	bubble(t, func(r *rig) {
		open, far := r.pair()
		verdict := Reject
		rule := func(from netip.Addr, to netip.AddrPort) Verdict {
			if from != clientAddr || to.String() != target {
				r.Errorf("asked about %v to %v", from, to)
			}
			return verdict
		}
		r.net.Firewall(rule)
		_, err := r.dial(target)
		r.wantErr("rejected", err, syscall.ECONNREFUSED)

		verdict = Drop
		start := time.Now()
		_, err = r.dial(target)
		r.wantErr("dropped", err, context.DeadlineExceeded)
		r.took("dropped dial", start, 10*time.Second)

		time.AfterFunc(3*time.Second, func() { r.net.Firewall(nil) })
		start = time.Now()
		if _, err = r.dial(target); err != nil {
			r.Error(err)
		}
		r.took("dial through a firewall that opened", start, 3*time.Second)

		r.write(open, "open connections pass")
		r.read(far, "open connections pass")
	})
}

func TestCutResetsAndRefusesUntilHealed(t *testing.T) {
	bubble(t, func(r *rig) {
		client, server := r.pair()
		r.write(client, "lost")
		time.AfterFunc(time.Second, func() { r.net.Cut(clientAddr, serverAddr) })
		_, err := client.Read(make([]byte, 1))
		r.wantErr("blocked read", err, syscall.ECONNRESET)
		_, err = server.Read(make([]byte, 1))
		r.wantErr("far read", err, syscall.ECONNRESET)
		_, err = server.Write([]byte("x"))
		r.wantErr("far write", err, syscall.ECONNRESET)
		_, err = r.dial(target)
		r.wantErr("dial", err, syscall.ECONNREFUSED)
		client.Close()

		r.net.Heal(serverAddr, clientAddr)
		client, server = r.pair()
		r.write(client, "again")
		r.read(server, "again")
	})
}

func TestStallKeepsBytesUntilHealed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.SetLatency(time.Second)
		client, server := r.pair()
		r.write(client, "arrived ")
		time.Sleep(time.Second)
		r.write(client, "on the way ")
		time.Sleep(time.Second / 2)
		r.net.Stall(clientAddr, serverAddr)
		r.write(client, "after")
		client.Close()

		r.read(server, "arrived ")
		server.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := server.Read(make([]byte, 1))
		if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
			r.Errorf("read during the stall: %v, want a timeout", err)
		}
		_, err = r.dial(target)
		r.wantErr("dial during the stall", err, context.DeadlineExceeded)
		r.write(server, "not refused yet")

		server.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { r.net.Heal(clientAddr, serverAddr) })
		start := time.Now()
		r.read(server, "on the way after")
		r.took("the wait for Heal", start, time.Minute)
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			r.Errorf("after the last byte: %v, want EOF", err)
		}
		_, err = server.Write([]byte("x"))
		r.wantErr("write to a closed peer", err, syscall.EPIPE)
	})
}

func TestDialWaitsForHeal(t *testing.T) {
	bubble(t, func(r *rig) {
		r.net.Stall(clientAddr, serverAddr)
		time.AfterFunc(4*time.Second, func() { r.net.Heal(clientAddr, serverAddr) })
		start := time.Now()
		if _, err := r.dial(target); err != nil {
			r.Error(err)
		}
		r.took("dial", start, 4*time.Second)
	})
}

func TestHostThatLosesPowerIsSilentUntilItIsBack(t *testing.T) {
	bubble(t, func(r *rig) {
		idle, _ := r.pair()
		sent, accepted := r.pair()
		r.server.Down()
		if _, err := r.listener.Accept(); !errors.Is(err, net.ErrClosed) {
			r.Errorf("accept: %v", err)
		}
		if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			r.Errorf("read on the dead host: %v", err)
		}
		_, err := r.dial(target)
		r.wantErr("dial", err, context.DeadlineExceeded)
		r.write(sent, "into the void")
		sent.SetDeadline(time.Now().Add(time.Second))
		_, err = sent.Write(make([]byte, 2*BufferBytes))
		if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
			r.Errorf("write to a dead host: %v, want back-pressure and a timeout", err)
		}
		sent.SetDeadline(time.Time{})

		restarted := make(chan net.Listener, 1)
		time.AfterFunc(time.Minute, func() { restarted <- r.listen(443) })
		start := time.Now()
		_, err = sent.Read(make([]byte, 1))
		r.wantErr("bytes sent into the void", err, syscall.ECONNRESET)
		r.took("the reset", start, time.Minute)
		_, err = idle.Write([]byte("x"))
		r.wantErr("first byte after the restart", err, syscall.ECONNRESET)
		r.listener = <-restarted
		client, server := r.pair()
		r.write(client, "new life")
		r.read(server, "new life")
	})
}

func TestDialToADeadHostSucceedsWhenItIsBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server.Down()
		time.AfterFunc(2*time.Second, func() { r.listen(443) })
		start := time.Now()
		if _, err := r.dial(target); err != nil {
			r.Error(err)
		}
		r.took("dial", start, 2*time.Second)
	})
}

func TestListen(t *testing.T) {
	bubble(t, func(r *rig) {
		_, err := r.server.Listen(443)
		r.wantErr("taken port", err, syscall.EADDRINUSE)
		for range Backlog {
			if _, err := r.dial(target); err != nil {
				r.Fatal(err)
			}
		}
		_, err = r.dial(target)
		r.wantErr("full backlog", err, context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { r.listener.Accept() })
		waiting, err := r.dial(target)
		if err != nil {
			r.Fatalf("backlog with room again: %v", err)
		}
		r.listener.Close()
		_, err = waiting.Read(make([]byte, 1))
		r.wantErr("never accepted", err, syscall.ECONNRESET)
		_, err = r.dial(target)
		r.wantErr("closed listener", err, syscall.ECONNREFUSED)
		if _, err := r.listener.Accept(); !errors.Is(err, net.ErrClosed) {
			r.Errorf("accept: %v", err)
		}
		if err := r.listener.Close(); !errors.Is(err, net.ErrClosed) {
			r.Errorf("second close: %v", err)
		}
		a, b := r.listen(0), r.listen(0)
		if a.Addr().String() == b.Addr().String() || a.Addr().(*net.TCPAddr).Port < firstEphemeral {
			r.Errorf("ports picked: %v, %v", a.Addr(), b.Addr())
		}
	})
}

func TestHostHasManyAddressesAndLoopback(t *testing.T) {
	bubble(t, func(r *rig) {
		v6 := netip.MustParseAddr("2001:db8::1")
		r.server.AddAddr(v6)
		r.server.AddAddr(v6)
		r.client.AddAddr(netip.MustParseAddr("2001:db8::7"))
		r.net.SetLatency(time.Hour) // not within a host
		for address, h := range map[string]*Host{"[2001:db8::1]:443": r.client, "127.0.0.1:443": r.server, target: r.server} {
			c, err := h.DialContext(r.Context(), "tcp", address)
			if err != nil {
				r.Fatalf("%s: %v", address, err)
			}
			far, err := r.listener.Accept()
			if err != nil || far.LocalAddr().String() != address || far.RemoteAddr().String() != c.LocalAddr().String() {
				r.Errorf("%s: accepted %v from %v, %v", address, far.LocalAddr(), far.RemoteAddr(), err)
			}
		}
		defer func() {
			if recover() == nil {
				r.Error("an address was given to two hosts")
			}
		}()
		r.client.AddAddr(v6)
	})
}

func TestServeEndsWithItsHandlers(t *testing.T) {
	bubble(t, func(r *rig) {
		s, err := r.server.Serve(80, func(c net.Conn) { io.Copy(c, c) })
		if err != nil {
			r.Fatal(err)
		}
		if _, err := r.server.Serve(80, func(net.Conn) {}); !errors.Is(err, syscall.EADDRINUSE) {
			r.Errorf("a port that is taken: %v", err)
		}
		c, err := r.dial("192.0.2.1:80")
		if err != nil {
			r.Fatal(err)
		}
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			r.Error(err)
		}
		stopped := make(chan struct{})
		go func() { s.Stop(); close(stopped) }()
		synctest.Wait()
		select {
		case <-stopped:
			r.Error("stopped with a connection that is open")
		default:
		}
		if _, err := r.dial("192.0.2.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			r.Errorf("the port is open still: %v", err)
		}
		c.Close()
		<-stopped
	})
}

func TestCutAndKillEndConnections(t *testing.T) {
	bubble(t, func(r *rig) {
		s, err := r.server.Serve(80, func(c net.Conn) { io.Copy(c, c) })
		if err != nil {
			r.Fatal(err)
		}
		for _, end := range []func(){s.Cut, s.Kill} {
			c, err := r.dial("192.0.2.1:80")
			if err != nil {
				r.Fatal(err)
			}
			synctest.Wait()
			end()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				r.Errorf("a connection that was ended: %v", err)
			}
			c.Close()
		}
		if _, err := r.dial("192.0.2.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			r.Errorf("the port of a killed service: %v", err)
		}
	})
}
