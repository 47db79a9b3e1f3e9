//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
)

const loopbackAllowed = `"127.0.0.2:*"`

// dial connects to a forward. What is read and written there may take as long as something moves.
func dial(t *testing.T, p *pace.Progress, addr string) *pace.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, pace.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return p.Conn(c.(*net.TCPConn))
}

// noise is n bytes that do not repeat, the same for the same seed.
func noise(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

func sum(t *testing.T, r io.Reader) (sum [32]byte, n int64) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return [32]byte(h.Sum(nil)), n
}

func TestBytesArriveAsTheyWereSent(t *testing.T) {
	t.Attr("id", "A1-bytes")
	in := newInfra(t)
	const size = 100 << 20
	file := machine(t, func(c net.Conn) { io.Copy(c, noise(1, size)) })
	echo := machine(t, func(c net.Conn) {
		io.Copy(c, c)
		c.(*net.TCPConn).CloseWrite()
	})
	g := in.addDevice("press-4", loopbackAllowed)
	if uid := g.enroll(); uid != g.uid {
		t.Fatalf("enrolled as %s, want %s", uid, g.uid)
	}
	g.run()

	t.Run("a file of 100 MiB", func(t *testing.T) {
		t.Attr("id", "A1-bytes")
		_, addr := g.connect(file)
		got, n := sum(t, dial(t, new(pace.Progress), addr))
		want, _ := sum(t, noise(1, size))
		if got != want {
			t.Errorf("%d of %d bytes arrived, or others", n, size)
		}
	})
	t.Run("50 parallel streams", func(t *testing.T) {
		t.Attr("id", "A1-bytes")
		t.Attr("cases", "50")
		_, addr := g.connect(echo)
		var streams sync.WaitGroup
		var progress pace.Progress
		defer streams.Wait()
		for i := range 50 {
			c := dial(t, &progress, addr)
			streams.Go(func() {
				const size = 1 << 20
				var sending sync.WaitGroup
				sending.Go(func() { io.Copy(c, noise(byte(i), size)); c.CloseWrite() })
				got, n := sum(t, c)
				sending.Wait()
				if want, _ := sum(t, noise(byte(i), size)); got != want {
					t.Errorf("stream %d: %d of %d bytes came back, or others", i, n, size)
				}
			})
		}
	})
	t.Run("a closed port is refused and does not hang", func(t *testing.T) {
		t.Attr("id", "A1-bytes")
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			t.Fatal(err)
		}
		closed := l.Addr().String()
		l.Close()
		_, addr := g.connect(closed)
		wantReset(t, addr)
	})
	t.Run("what the owner does not allow is refused", func(t *testing.T) {
		t.Attr("id", "A1-bytes")
		_, addr := g.connect("127.0.0.1:" + in.ports[0])
		wantReset(t, addr)
	})
	g.agent.stop()
	in.server.stop()
}

// wantReset connects as a tool whose connection is refused behind the gateway. The reset may come before the connect has
// been seen to work.
func wantReset(t *testing.T, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, pace.Patience)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the tool got %v, want a reset", err)
	}
}

func TestRelayProcessNeverHoldsWhatItCarries(t *testing.T) {
	t.Attr("id", "A1-blind")
	in := newInfra(t)
	// Made at run time and kept in two halves, so that nothing but the session
	// can bring it anywhere whole.
	half := make([]byte, 2*32)
	rand.NewChaCha8([32]byte{byte(os.Getpid())}).Read(half)
	canary := func() []byte { return append(bytes.Clone(half[:32]), half[32:]...) }
	echo := machine(t, func(c net.Conn) { io.Copy(c, c) })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	p, addr := g.connect(echo)
	c := dial(t, new(pace.Progress), addr)
	back := make([]byte, 64)
	for range 1000 { // both directions, still open while the memory is read
		c.Write(canary())
		if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, canary()) {
			t.Fatalf("the canary did not come back: %v", err)
		}
	}
	if n := findInMemory(t, in.server.cmd.Process.Pid, canary()); n > 0 {
		t.Errorf("the canary stands %d times in the memory of the relay", n)
	}
	// The same search finds it where it must be, so it can find.
	if n := findInMemory(t, p.cmd.Process.Pid, canary()); n == 0 {
		t.Error("the canary is not found in the memory of the Manager either: the search does not work")
	}
}

func TestRunningAgentListensOnNothing(t *testing.T) {
	t.Attr("id", "A1-listen")
	in := newInfra(t)
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	g.connect(machine(t, func(c net.Conn) { io.Copy(c, c) }))
	if open := listening(t, g.agent.cmd.Process.Pid); len(open) > 0 {
		t.Errorf("the agent listens on %v", open)
	}
	if open := listening(t, in.server.cmd.Process.Pid); len(open) != 3 {
		t.Errorf("the server listens on %v, want its 3 ports: the search does not work", open)
	}
}

func TestNobodyIsNeededAfterAKill(t *testing.T) {
	t.Attr("id", "A1-restart")
	t.Attr("cases", "9")
	in := newInfra(t)
	echo := machine(t, func(c net.Conn) { io.Copy(c, c) })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	_, addr := g.connect(echo)
	works := func(t *testing.T, what string) {
		t.Helper()
		limit := time.Now().Add(patience)
		for {
			err := roundTrip(addr)
			if err == nil {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("%s: the same forward does not work again: %v", what, err)
			}
		}
	}
	works(t, "at first")
	for range 3 {
		in.server.kill()
		in.serve()
		works(t, "after a kill of Access Server and relay")
		g.agent.kill()
		g.run()
		works(t, "after a kill of the agent")
		in.server.kill()
		g.agent.kill()
		in.serve()
		g.run()
		works(t, "after a kill of all of them")
	}
}

// roundTrip sends a few bytes through a forward; the forward itself makes it
// wait while there is no session.
func roundTrip(addr string) error {
	c, err := net.DialTimeout("tcp", addr, pace.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second)) // of one try: the session under it may be lost without anybody's knowing yet
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err
}

func TestEnrollmentSurvivesAKillAtAnyMoment(t *testing.T) {
	t.Attr("id", "A1-restart")
	const kills = 12
	t.Attr("cases", "12")
	t.Attr("count", "kills during enrollment=12")
	in := newInfra(t)
	for i := range kills {
		g := in.addDevice("press-" + string(rune('a'+i)))
		p := start(t, "hawser-agent", "--data", g.data, "enroll", "--code", g.code)
		select { // from before the first byte of I/O to after the answer
		case <-time.After(time.Duration(i) * 8 * time.Millisecond):
		case err := <-p.ended:
			p.ended <- err
		}
		p.kill()
		var uid string
		if _, code, _ := outcome(t, "hawser-agent", "--data", g.data, "identity", "show", "--json"); code != 0 {
			t.Fatalf("kill %d: the state directory cannot be read any more", i)
		}
		if uid = g.identity(); uid == "" {
			uid = g.enroll() // the same code again, as a person would
		}
		if uid != g.uid {
			t.Errorf("kill %d: enrolled as %s, want %s", i, uid, g.uid)
		}
	}
}

func (g *gateway) identity() string {
	g.t.Helper()
	var got struct {
		UID      string
		Enrolled bool
	}
	command(g.t, &got, "hawser-agent", "--data", g.data, "identity", "show", "--json")
	if !got.Enrolled {
		return ""
	}
	return got.UID
}
