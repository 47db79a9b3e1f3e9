package manager

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
)

// rig is a Connect in a bubble, over the fakes of newFake.
type rig struct {
	account *Account
	*fake
	out, notes buffer
	cancel     context.CancelFunc
	ended      chan error
	resets     atomic.Int32 // connections of tools that were closed by RST
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// take returns what was written since it was asked last.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

// lingering counts resets, which the in-memory network does not tell from an end in order.
type lingering struct {
	net.Conn
	resets *atomic.Int32
}

func (c lingering) SetLinger(int) error { c.resets.Add(1); return nil }
func (c lingering) CloseWrite() error   { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

type lingeringListener struct {
	net.Listener
	resets *atomic.Int32
}

func (l lingeringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return lingering{c, l.resets}, nil
}

// connect starts a Connect with the forwards and lets it settle.
func connect(t *testing.T, specs ...string) *rig {
	r := &rig{fake: newFake(t), ended: make(chan error, 1)}
	m := r.manager()
	m.Listen = func(_ context.Context, _, address string) (net.Listener, error) {
		l, err := r.client.Listen(netip.MustParseAddrPort(address).Port())
		return lingeringListener{l, &r.resets}, err
	}
	a := r.loggedIn(m)
	r.account = a
	var forwards []Forward
	for _, s := range specs {
		forwards = append(forwards, must(ParseForward(s)))
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(t.Context())
	done := make(chan struct{})
	r.running.Go(func() {
		defer close(done)
		r.ended <- a.Connect(ctx, "press", forwards, &r.out, &r.notes)
	})
	t.Cleanup(func() { // before the account is closed
		r.cancel()
		<-done
	})
	synctest.Wait()
	return r
}

// tool connects like a tool, sends a line and returns what comes back until the end.
func (r *rig) tool(port uint16, say string) (string, error) {
	c, err := r.client.DialContext(r.t.Context(), "tcp", netip.AddrPortFrom(clientAddr, port).String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, say); err != nil {
		return "", err
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

func (r *rig) echoes(port uint16) {
	r.t.Helper()
	if got, err := r.tool(port, "hello"); got != "hello" || err != nil {
		r.t.Errorf("port %d: %q, %v", port, got, err)
	}
}

func TestConnectForwardsUntilItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80", "127.0.0.1:8081:[fd00::10]:502")
		out := r.out.take()
		if strings.Count(out, "\n") != 2 || !strings.Contains(out, ":8080 -> 192.168.1.10:80\n") || !strings.Contains(out, ":8081 -> [fd00::10]:502\n") {
			t.Errorf("ready lines:\n%s", out)
		}
		if got := r.notes.take(); got != "session up via relay r1\n" {
			t.Errorf("notes %q", got)
		}
		r.echoes(8080)
		r.echoes(8081)
		if r.resets.Load() != 0 {
			t.Error("a connection that ended in order was reset")
		}
		r.cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("after ^C: %v", err)
		}
		if r.called("DELETE /sessions/s1") != 1 {
			t.Errorf("the session was not ended at the server: %v", r.calls)
		}
		if _, err := r.tool(8080, ""); err == nil {
			t.Error("the port is still open")
		}
	})
}

// A machine has said all it had to say, and a tool keeps its connection, as browsers do. Connect ends all the same.
func TestConnectEndsThoughAToolStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:4")
		c := must(r.client.DialContext(t.Context(), "tcp", netip.AddrPortFrom(clientAddr, 8080).String()))
		defer c.Close()
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		began := time.Now()
		r.cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("after ^C: %v", err)
		}
		if took := time.Since(began); took > toolEnd {
			t.Errorf("it took %v to end, want %v at most", took, toolEnd)
		}
	})
}

func TestRefusedStreamResetsTheToolAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8081:192.168.1.10:1", "8082:192.168.1.10:2", "8083:192.168.1.10:3")
		r.notes.take()
		for i, tt := range []struct {
			port uint16
			want string
		}{
			{8081, "connection to 192.168.1.10:1 refused: policy, says the device's owner (not allowed here)\n"},
			{8082, "connection to 192.168.1.10:2 refused: refused, says the address behind it\n"},
		} {
			if got, _ := r.tool(tt.port, "hello"); got != "" {
				t.Errorf("port %d answered %q", tt.port, got)
			}
			synctest.Wait()
			if got := r.notes.take(); got != tt.want {
				t.Errorf("notes %q, want %q", got, tt.want)
			}
			if got := r.resets.Load(); got != int32(i+1) {
				t.Errorf("%d resets, want %d", got, i+1)
			}
		}
		for range 20 {
			r.tool(8081, "hello")
		}
		synctest.Wait()
		if got := r.notes.take(); got != "" {
			t.Errorf("the same refusal was said again within a minute: %q", got)
		}
		time.Sleep(sayAgain)
		r.tool(8081, "hello")
		synctest.Wait()
		if got := r.notes.take(); !strings.HasSuffix(got, " (20 more since the last line)\n") {
			t.Errorf("a minute later: %q", got)
		}
		r.echoes(8083)
	})
}

// A black hole gives no error: the silence is what tells (session §3.6).
func TestSilentLinkIsLostWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.notes.take()
		r.net.Stall(clientAddr, relayAddr)
		time.Sleep(10 * time.Second)
		if got := r.notes.take(); !strings.HasPrefix(got, "session lost: link-lost via relay r1; moved to relay r2\n") {
			t.Errorf("notes %q", got)
		}
		r.net.Heal(clientAddr, relayAddr)
		time.Sleep(30 * time.Second)
		r.echoes(8080)
	})
}

// A transfer that the loss cut off must not look whole to the tool: it is reset, not ended.
func TestToolIsResetWhenItsSessionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		c := must(r.client.DialContext(t.Context(), "tcp", netip.AddrPortFrom(clientAddr, 8080).String()))
		defer c.Close()
		io.WriteString(c, "half a file")
		io.ReadFull(c, make([]byte, 11))
		r.net.Cut(clientAddr, relayAddr)
		synctest.Wait()
		if r.resets.Load() != 1 {
			t.Errorf("%d resets, want 1", r.resets.Load())
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v", n, err)
		}
		r.net.Heal(clientAddr, relayAddr)
	})
}

func TestToolWaitsFifteenSecondsForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.answer("POST /sessions/s1/move", problemAnswer(409, "offline", "the device has no connection"))
		r.net.Cut(clientAddr, relayAddr)
		r.net.Heal(clientAddr, relayAddr)
		time.Sleep(5 * time.Second)
		r.notes.take()
		begin := time.Now()
		if got, _ := r.tool(8080, "hello"); got != "" {
			t.Errorf("answered %q", got)
		}
		if took := time.Since(begin); took != toolWait {
			t.Errorf("the tool waited %v, want %v", took, toolWait)
		}
		synctest.Wait()
		if got, want := r.notes.take(), "connection to 192.168.1.10:80 refused: wait for the session: timeout\n"; got != want {
			t.Errorf("notes %q, want %q", got, want)
		}
		time.Sleep(10 * time.Minute)
		if n := r.called("POST /sessions/s1/move"); n < 40 || n > 250 {
			t.Errorf("%d tries in 10 min, want about one each %v", n, backoff().Longest/2)
		}
		if got := r.notes.take(); got != "" {
			t.Errorf("the same trouble was said again: %q", got)
		}
		r.answer("POST /sessions/s1/move", func(w http.ResponseWriter, req *http.Request) { r.moveSession("s1", w, req) })
		time.Sleep(backoff().Longest)
		r.echoes(8080)
	})
}

func TestRefusalThatAPersonMustCureEndsConnect(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		want   int
	}{
		{404, "no-device", answer.ExitFailed},
		{404, "not-found", answer.ExitFailed},
		{403, "policy", answer.ExitRefused},
		{403, "revoked", answer.ExitRefused},
		{401, "not-logged-in", answer.ExitNotEnrolled},
	} {
		t.Run(tt.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connect(t, "8080:192.168.1.10:80")
				r.answer("POST /sessions", problemAnswer(tt.status, tt.code, "no"))
				r.answer("POST /sessions/s1/move", problemAnswer(tt.status, tt.code, "no"))
				r.net.Cut(clientAddr, relayAddr)
				time.Sleep(backoff().First)
				synctest.Wait()
				select {
				case err := <-r.ended:
					if ExitCode(err) != tt.want {
						t.Errorf("exit code %d (%v), want %d", ExitCode(err), err, tt.want)
					}
				default:
					t.Fatal("it goes on")
				}
				if _, err := r.tool(8080, ""); err == nil {
					t.Error("the port is still open")
				}
			})
		})
	}
}

func TestConnectFailsWhenThereIsNoFirstSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		m.Listen = func(_ context.Context, _, address string) (net.Listener, error) {
			return f.client.Listen(netip.MustParseAddrPort(address).Port())
		}
		forwards := []Forward{must(ParseForward("8080:192.168.1.10:80"))}
		f.answer("POST /sessions", problemAnswer(409, "offline", "the device has no connection"))
		if err := a.Connect(t.Context(), "press", forwards, io.Discard, io.Discard); ExitCode(err) != answer.ExitUnreachable {
			t.Errorf("offline: %v", err)
		}
		twice := append(forwards, forwards[0])
		if err := a.Connect(t.Context(), "press", twice, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "8080") {
			t.Errorf("a port that is taken: %v", err)
		}
		if n := f.called("POST /sessions"); n != 1 {
			t.Errorf("%d sessions were asked for, and the ports were taken", n)
		}
		for _, device := range []string{"", "../x", "a\x1b[2J", strings.Repeat("x", 65)} {
			if err := a.Connect(t.Context(), device, forwards, io.Discard, io.Discard); ExitCode(err) != answer.ExitUsage {
				t.Errorf("device %q: %v", device, err)
			}
		}
		if err := a.Connect(t.Context(), "press", nil, io.Discard, io.Discard); ExitCode(err) != answer.ExitUsage {
			t.Errorf("no forwards: %v", err)
		}
	})
}

// The end-to-end peer is the one of the offer, whatever the relay connects.
func TestSessionWithAnotherDeviceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		namesake := f.leaf(identity.DeviceName("default", f.uid))              // of another key
		stated := f.owner.DeviceChain(f.uid, "press", namesake.Leaf.PublicKey) // after a change of hardware, say
		f.answer("POST /sessions", func(w http.ResponseWriter, r *http.Request) { f.openSessionWith(namesake, stated, w, r) })
		_, err := a.Ping(t.Context(), "press", 1, nil)
		if transport.ReasonOf(err) != transport.WrongPeer {
			t.Errorf("another key: %v", err)
		}
		f.chain = f.owner.DeviceChain(f.uid, "press", f.gatewayTLS.Leaf.PublicKey)
		f.answer("POST /sessions", f.openSession)
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Errorf("the right one: %v", err)
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", "1")
	})
}

func TestPingMeasuresTheWholePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.net.SetLatency(10 * time.Millisecond)
		var rounds []time.Duration
		got, err := a.Ping(t.Context(), "press", 4, func(_ int, rtt time.Duration) { rounds = append(rounds, rtt) })
		want := PingResult{Device: "press", Relay: "r1", Sent: 4, Received: 4, Min: 40, Median: 40, Max: 40}
		if err != nil || got != want || len(rounds) != 4 {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		if f.called("DELETE /sessions/s1") != 1 {
			t.Error("the session was not ended")
		}
		for _, count := range []int{0, -1, MaxPing + 1} {
			if _, err := a.Ping(t.Context(), "press", count, nil); ExitCode(err) != answer.ExitUsage {
				t.Errorf("count %d: %v", count, err)
			}
		}
	})
}

func TestPingOverALostLinkSaysHowFarItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		got, err := a.Ping(t.Context(), "press", 4, func(round int, _ time.Duration) {
			if round == 2 {
				f.net.Stall(gatewayAddr, relayAddr)
			}
		})
		if got.Sent != 3 || got.Received != 2 || ExitCode(err) != answer.ExitUnreachable {
			t.Errorf("%+v, %v", got, err)
		}
		f.net.Heal(gatewayAddr, relayAddr)
	})
}

func TestPingEndsAtOnceWhenItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		got, err := a.Ping(ctx, "press", 100, func(int, time.Duration) { cancel() })
		if got.Received != 1 || err == nil || time.Since(begin) > time.Second {
			t.Errorf("%+v, %v after %v", got, err, time.Since(begin))
		}
	})
}

// dial connects a tool that stays.
func (r *rig) dial(port uint16) net.Conn {
	c := must(r.client.DialContext(r.t.Context(), "tcp", netip.AddrPortFrom(clientAddr, port).String()))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// The first words of a tool go along with the question for the stream (session §4.1).
func TestFirstWordsOfAToolCostNoRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.net.SetLatency(50 * time.Millisecond)
		time.Sleep(time.Minute) // the line knows its round trip
		c := r.dial(8080)
		answered := func(say string) time.Duration {
			began := time.Now()
			io.WriteString(c, say)
			if _, err := io.ReadFull(c, make([]byte, len(say))); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if first, later := answered("first"), answered("later"); first > later+time.Millisecond {
			t.Errorf("the first answer took %v, a later one %v", first, later)
		}
	})
}

// What a machine may have got is not said to it again in another session; a tool that has said nothing waits for that.
func TestToolWhoseFirstWordsAreLostIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		time.Sleep(time.Minute)
		r.net.Stall(clientAddr, relayAddr)
		silent, hasty := r.dial(8080), r.dial(8080)
		io.WriteString(hasty, "start")
		time.Sleep(15 * time.Second) // the session goes on at another relay
		synctest.Wait()
		if b, err := io.ReadAll(hasty); len(b) > 0 || r.resets.Load() != 1 {
			t.Errorf("%q, %v and %d resets, want one and no answer", b, err, r.resets.Load())
		}
		io.WriteString(silent, "hello")
		if _, err := io.ReadFull(silent, make([]byte, 5)); err != nil {
			t.Errorf("who had said nothing: %v", err)
		}
		r.net.Heal(clientAddr, relayAddr)
	})
}
