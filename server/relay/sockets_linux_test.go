package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"hawser/identity/identitytest"
	"hawser/internal/soak"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

// socketRig is a relay on loopback. Its times are real: a test must not depend on them.
type socketRig struct {
	*rig
	port    transport.Port
	device  tls.Certificate
	user    tls.Certificate
	onServe func(*tls.Conn)
}

func newSocketRig(t testing.TB, change ...func(*Config)) *socketRig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &socketRig{rig: newIdleRig(t, change...), port: transport.Port(l.Addr().(*net.TCPAddr).Port), onServe: func(*tls.Conn) {}}
	r.device, r.user = r.rig.device(), r.rig.user()
	r.dialContext = new(net.Dialer).DialContext
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { r.serveSocket(ctx, conn) })
		}
	})
	r.cancel = func() {
		cancel()
		l.Close()
	}
	r.wait = conns.Wait
	t.Cleanup(func() {
		r.cancel()
		r.wait()
	})
	return r
}

// serveSocket holds nothing while the relay serves.
func (r *socketRig) serveSocket(ctx context.Context, conn net.Conn) {
	cert, _ := r.server.Certificate()
	c := tls.Server(record.New(conn), identitytest.ServerConfig(*cert, transport.ALPNRelay))
	if c.HandshakeContext(ctx) != nil {
		conn.Close()
		return
	}
	r.onServe(c)
	r.server.ServeConn(ctx, c)
}

// pair is that of rig, on loopback and with the same two ends each time.
func (r *socketRig) pair(t testing.TB, session string) (runtime, manager *line) {
	t.Helper()
	return change(t)(r.meet(t, session))
}

func (r *socketRig) meet(t testing.TB, session string) (runtime, manager *client) {
	t.Helper()
	join := func(cert tls.Certificate, role wire.Role, peer tls.Certificate) *client {
		conn := r.dialAt(t, "127.0.0.1", r.port, cert)
		must(t, wire.WriteJSON(conn, wire.TypeJoin, wire.Join{Grant: sign(t, r.signer(), r.grant(role, cert, peer, session))}))
		return conn
	}
	runtime = join(r.device, wire.RoleRuntime, r.user)
	manager = join(r.user, wire.RoleManager, r.device)
	must(t, answer(runtime))
	must(t, answer(manager))
	return runtime, manager
}

// noise is a stream of bytes that looks random and can be made again.
func noise(seed uint64, length int64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return io.LimitReader(rand.NewChaCha8(key), length)
}

// wantNoise wants exactly that stream, and the end.
func wantNoise(t *testing.T, conn io.Reader, seed uint64, length int64) {
	want, a, b := noise(seed, length), make([]byte, 32<<10), make([]byte, 32<<10)
	for got := int64(0); ; {
		n, err := conn.Read(a)
		if m, _ := io.ReadFull(want, b[:n]); m < n || !bytes.Equal(a[:n], b[:n]) {
			t.Errorf("line %d: other bytes within %d after %d", seed, n, got)
			return
		}
		if got += int64(n); err != nil {
			if err != io.EOF || got != length {
				t.Errorf("line %d: %d bytes, %v, want %d", seed, got, err, length)
			}
			return
		}
	}
}

// Hundreds of sessions at once carry their bytes bit for bit, by pipes of the system, by buffers when there are no
// pipes, and by both when there are too few.
func TestManySessionsCarryBitForBit(t *testing.T) {
	t.Attr("id", "R-relay")
	t.Attr("cases", "900")
	for _, c := range []struct {
		name  string
		pipes int
	}{{"pipes", maxKernelPipes}, {"some pipes", 16}, {"buffers", 0}} {
		t.Run(c.name, func(t *testing.T) {
			const sessions, length = 300, 256 << 10
			r := newSocketRig(t)
			r.server.mover.pipes.max = c.pipes
			lines := make([][2]*line, sessions)
			for i := range lines {
				lines[i][0], lines[i][1] = r.pair(t, newInstance())
			}
			var all sync.WaitGroup
			for i, l := range lines {
				for side, conn := range l {
					seed := uint64(2*i + side)
					all.Go(func() {
						if _, err := io.Copy(onlyWriter{conn}, noise(seed, length)); err != nil {
							t.Errorf("line %d: %v", seed, err)
						}
					})
					all.Go(func() {
						read := io.LimitReader(conn, length)
						wantNoise(t, read, seed^1, length)
					})
				}
			}
			all.Wait()
			for _, l := range lines {
				l[0].Close()
				l[1].Close()
			}
			r.cancel()
			r.wait()
			got := r.server.counters
			if want := uint64(sessions * length); got.paired.Get() != sessions || got.fromManager.Get() != want || got.fromRuntime.Get() != want {
				t.Errorf("%d sessions, %d and %d bytes, want %d and %d each way", got.paired.Get(), got.fromRuntime.Get(), got.fromManager.Get(), sessions, want)
			}
			wantPipes(t, r.server, c.pipes)
		})
	}
}

// onlyWriter hides ReadFrom, so that a sender writes in pieces of many sizes.
type onlyWriter struct{ io.Writer }

// A reset goes on to the other end as the end of its socket.
func TestResetOnLoopbackEndsTheOtherSide(t *testing.T) {
	r := newSocketRig(t)
	runtime, manager := r.pair(t, "s1")
	reset(t, manager)
	if _, err := runtime.Read(make([]byte, 1)); err == nil {
		t.Error("it still carries")
	}
}

// A receiver that takes nothing costs its relay one pipe or one buffer, and no other session anything.
func TestStalledReceiverOnLoopback(t *testing.T) {
	for name, pipes := range map[string]int{"pipes": maxKernelPipes, "buffers": 0} {
		t.Run(name, func(t *testing.T) {
			r := newSocketRig(t)
			r.server.mover.pipes.max = pipes
			runtime, manager := r.pair(t, "s1")
			sent := make(chan int64, 1)
			go func() {
				n, _ := io.Copy(onlyWriter{manager}, noise(1, 1<<40)) // until it is closed
				sent <- n
			}()
			other, far := r.pair(t, "s2")
			for range 100 {
				must2(other.Write([]byte("x")))
				if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			// It goes on where it stopped.
			wantNoise(t, io.LimitReader(runtime, 16<<20), 1, 16<<20)
			manager.Close()
			<-sent
			runtime.Close()
		})
	}
}

// A session that idles keeps nothing of the outer TLS: neither connection is there any more.
func TestOuterConnectionsAreGarbageAfterTheSwitches(t *testing.T) {
	r := newSocketRig(t)
	collected := make(chan int, 2)
	n := 0
	r.onServe = func(c *tls.Conn) {
		runtime.AddCleanup(c, func(i int) { collected <- i }, n)
		n++
	}
	device, manager := r.pair(t, "s1")
	for _, way := range [][2]*line{{device, manager}, {manager, device}} { // bytes move only after the switch
		must2(way[0].Write([]byte("x")))
		if _, err := io.ReadFull(way[1], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for seen := 0; seen < 2; {
		runtime.GC()
		select {
		case <-collected:
			seen++
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		case <-time.After(time.Millisecond):
		}
	}
	device.Close()
	manager.Close()
}

// What the error of a closed pipe of the system or a broken socket does to a mover: the bytes that could not be written
// must not come out of the pipe in another session.
func TestBytesOfABrokenLineGoToNobodyElse(t *testing.T) {
	r := newSocketRig(t)
	r.server.mover.pipes.max = 1
	for range 50 {
		device, manager := r.pair(t, newInstance())
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			io.Copy(onlyWriter{manager}, noise(7, 1<<40))
		}()
		io.ReadFull(device, make([]byte, 1<<20)) // the pipe is in use, and the sender goes on
		reset(t, device)
		<-stop
		manager.Close()
		device, manager = r.pair(t, newInstance())
		go func() {
			io.Copy(manager, noise(9, 1<<20))
			manager.Close()
		}()
		wantNoise(t, device, 9, 1<<20)
		device.Close()
	}
}

// reset closes a socket in the rude way.
func reset(t testing.TB, l *line) {
	t.Helper()
	must(t, l.Conn.(*net.TCPConn).SetLinger(0))
	must(t, l.Close())
}

// wantPipes wants all pipes of the system closed, and never more open than there may be.
func wantPipes(t *testing.T, s *Server, max int) {
	t.Helper()
	p := &s.mover.pipes
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made != 0 || len(p.free)+len(p.freeLarge) != 0 || p.large != 0 || p.users != 0 || p.most > max {
		t.Errorf("%d pipes are open, %d are kept, %d users, %d at the most, want none and %d at the most", p.made, len(p.free)+len(p.freeLarge), p.users, p.most, max)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// Sessions, most of which end in bad ways, leave no descriptor, pipe or goroutine. A long run tries a thousand.
func TestSessionsLeaveNothingBehind(t *testing.T) {
	t.Attr("id", "R-relay")
	r := newSocketRig(t)
	r.server.mover.pipes.max = 4
	before, goroutines := 0, 0
	for i := range soak.Or(200, 1000) {
		if i == 10 { // what is made once is there
			before, goroutines = descriptors(t), runtime.NumGoroutine()
		}
		device, manager := r.meet(t, newInstance())
		switch i % 4 {
		case 0: // in order
			a, b := change(t)(device, manager)
			io.Copy(onlyWriter{a}, noise(1, 100))
			a.Close()
			wantNoise(t, b, 1, 100)
		case 1: // reset with bytes under way
			a, b := change(t)(device, manager)
			io.Copy(onlyWriter{a}, noise(1, 200<<10))
			reset(t, b)
			io.Copy(io.Discard, a)
		case 2: // half a switch
			manager.leave(t)
		case 3: // none
			reset(t, &line{device.under.Raw()})
		}
		device.under.Close()
		manager.under.Close()
	}
	r.cancel()
	r.wait()
	wantPipes(t, r.server, 4)
	if fds, n := descriptors(t), runtime.NumGoroutine(); fds > before || n > goroutines {
		t.Errorf("%d descriptors and %d goroutines, were %d and %d", fds, n, before, goroutines)
	}
}
