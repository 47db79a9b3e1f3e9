//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
	"hawser/internal/soak"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

// What a flood may cost (wire §1.3): memory of the server, and time until nothing of it is left.
const (
	floodBytes = 64 << 20
	floodRest  = 30 * time.Second

	manyDescriptors = 65536 // which not every machine gives
)

// While strangers flood the server with all that they can think of, whoever has proven who he is notices nothing.
func TestServerStandsWhileItIsFlooded(t *testing.T) {
	t.Attr("id", "L-flood")
	type run struct {
		sources, descriptors int
		kinds                []*attack
	}
	runs := []run{{1, 1024, attacks(20)}, {200, 1024, attacks(10)}, {200, manyDescriptors, attacks(4)}}
	if soak.On() {
		runs = nil
		for _, sources := range []int{1, 200} {
			for _, descriptors := range []int{1024, manyDescriptors} {
				runs = append(runs, run{sources, descriptors, attacks(1)})
				for _, one := range attacks(1) {
					runs = append(runs, run{sources, descriptors, []*attack{one}})
				}
			}
		}
	}
	t.Attr("cases", strconv.Itoa(len(runs)))
	var all stood
	for _, r := range runs {
		var names []string
		for _, a := range r.kinds {
			names = append(names, fmt.Sprint(a.n, " ", a.name))
		}
		name := fmt.Sprintf("%d addresses, %d descriptors, %s", r.sources, r.descriptors, strings.Join(names, ", "))
		t.Run(name, func(t *testing.T) {
			got := standFlood(t, r.sources, r.descriptors, r.kinds)
			all.asked, all.first = all.asked+got.asked, all.first+got.first
			if r.descriptors == manyDescriptors {
				all.descriptors = got.descriptors
			}
		})
	}
	// A client that finds no place comes again: how often it had to is no promise, and is said.
	t.Attr("count", fmt.Sprintf("honest calls and devices during a flood=%d", all.asked))
	t.Attr("count", fmt.Sprintf("answered at the first try=%d", all.first))
	t.Attr("count", fmt.Sprintf("descriptors of the server, of %d wanted=%d", manyDescriptors, all.descriptors))
}

// stood is what a flood was like for those who are honest, and how many descriptors the server had.
type stood struct{ asked, first, descriptors int }

func standFlood(t *testing.T, sources, descriptors int, kinds []*attack) (s stood) {
	l := newLoad(t, "")
	l.server.stop()
	s.descriptors = l.serveWith(descriptors)
	l.wantService()
	watch := pace.Start(os.Getpid())
	var attached []*online
	for i := range 10 {
		attached = append(attached, l.attach(fmt.Sprint("press ", i)))
	}
	comes, _ := l.addClient("comes later")
	before, open := l.memory(), l.descriptors()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &flood{load: l, sources: sources}
	var attackers, counting sync.WaitGroup
	for i := range kinds {
		attackers.Go(func() { f.run(ctx, kinds[i]) })
	}
	var most atomic.Int64
	counting.Go(func() {
		for ; ctx.Err() == nil; wait.Sleep(ctx, 50*time.Millisecond) {
			most.Store(max(most.Load(), l.memory()))
		}
	})
	f.underWay(kinds)
	began := time.Now()
	honest := func(what string, try func() error) {
		s.asked++
		tries, err := search(try)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if tries == 1 && err == nil {
			s.first++
		}
	}
	for i := range 10 {
		honest(fmt.Sprint("honest call ", i), func() error {
			if status, code := l.ask(l.admin, "GET", "/api/v1/devices", nil, nil); status != http.StatusOK {
				return fmt.Errorf("%d %s", status, code)
			}
			return nil
		})
		honest(fmt.Sprint("device ", i), func() error { return l.welcome(comes) })
	}
	calls := time.Since(began) / time.Duration(s.asked)
	t.Logf("%d of %d were answered at the first try", s.first, s.asked)
	for _, o := range attached {
		o.wantAlive()
	}
	// The attackers open nothing more, and close nothing.
	f.enough.Store(true)
	began = time.Now()
	for l.descriptors() > open+5 && time.Since(began) < patience {
		wait.Sleep(ctx, 100*time.Millisecond)
	}
	watch.Within(t, "all of the flood is gone", time.Since(began), floodRest)
	cancel()
	attackers.Wait()
	counting.Wait()
	for i := range kinds {
		t.Logf("%s: %d connections, %d of them were let begin", kinds[i].name, kinds[i].opened.Load(), kinds[i].begun.Load())
	}
	t.Logf("%v for an honest call; %d MiB of memory before, %d at most; gone after %v",
		calls.Round(time.Millisecond), before>>20, most.Load()>>20, time.Since(began).Round(time.Second))
	if more := most.Load() - before; more > floodBytes {
		t.Errorf("the flood cost %d MiB of memory, want at most %d", more>>20, floodBytes>>20)
	}
	for _, o := range attached {
		o.wantAlive()
	}
	// One kind alone may leave as fast as it comes, and find a place each time.
	if len(kinds) > 1 && !strings.Contains(l.server.log.String(), "more strangers than places") {
		t.Error("the log says nothing of it")
	}
	return s
}

// search tries as often as a client has ports to try, before it says that the server is not there (wire §8).
func search(try func() error) (tries int, err error) {
	for tries = 1; ; tries++ {
		if err = try(); err == nil || tries == 3 {
			return tries, err
		}
	}
}

// welcome attaches a device, and leaves again.
func (l *load) welcome(c *accesstest.Client) error {
	conn, err := l.prelude(l.t.Context(), c, wire.TypeHello, wire.Hello{Version: "test", Instance: "01", SessionVersion: wire.SessionVersion})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = wire.Expect(conn, wire.TypeWelcome)
	return err
}

// serveWith starts the server with so many descriptors, or as many as this machine gives, and says how many these are.
func (l *load) serveWith(descriptors int) (got int) {
	l.t.Helper()
	l.server = watch(l.t, exec.Command("sh", "-c", `{ ulimit -n "$1" || ulimit -n "$(ulimit -Hn)"; } && exec $4 "$2" run --config "$3"`, "sh",
		strconv.Itoa(descriptors), program(l.t, "hawser-server"), l.path("server/server.yaml"), l.by))
	l.server.line("ready ")
	limits, err := os.ReadFile(l.proc("limits"))
	_, line, found := strings.Cut(string(limits), "Max open files")
	if err != nil || !found {
		l.t.Fatalf("limits of the server: %v\n%s", err, limits)
	}
	if got, err = strconv.Atoi(strings.Fields(line)[0]); err != nil {
		l.t.Fatal(err)
	}
	if got > descriptors || got < min(descriptors, 1024) {
		l.t.Errorf("the server has %d descriptors, want %d", got, descriptors)
	}
	return got
}

// memory is what the server has resident.
func (l *load) memory() int64 {
	text, err := os.ReadFile(l.proc("statm"))
	if err != nil {
		l.t.Error(err)
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		l.t.Error(err)
	}
	return pages * int64(os.Getpagesize())
}

// descriptors is how many the server has open.
func (l *load) descriptors() int {
	list, err := os.ReadDir(l.proc("fd"))
	if err != nil {
		l.t.Error(err)
	}
	return len(list)
}

func (l *load) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(l.server.cmd.Process.Pid), name)
}

// An attack is one kind of connection that costs a stranger little.
type attack struct {
	name   string
	n      int                                      // how many there are at least before it is seen what the server does
	api    bool                                     // it does TLS, for the API
	relay  bool                                     // likewise, for the relay
	act    func(ctx context.Context, conn net.Conn) // until the server ends it
	opened atomic.Int64
	begun  atomic.Int64 // that got through TLS, if they ask for it
}

// attacks are those of L-flood, with a part of their numbers.
func attacks(part int) []*attack {
	return []*attack{
		{name: "silent", n: 5000 / part, act: hold},
		{name: "half hellos", n: 5000 / part, act: halfHello},
		{name: "anonymous API connections", n: 5000 / part, api: true, act: askAgain},
		{name: "slow bodies", n: 2000 / part, api: true, act: slowBody},
	}
}

func hold(_ context.Context, conn net.Conn) { io.Copy(io.Discard, conn) }

// halfHello begins as a client of ours does, says how long its hello is, and sends half of it.
func halfHello(ctx context.Context, conn net.Conn) {
	if _, err := conn.Write(append([]byte{22, 3, 1, 6, 0, 1, 0, 5, 252, 3, 3}, make([]byte, 760)...)); err == nil {
		hold(ctx, conn)
	}
}

// askAgain asks for nothing that there is, as often as it is let.
func askAgain(ctx context.Context, conn net.Conn) {
	for ctx.Err() == nil {
		if _, _, err := accesstest.Ask(keptOpen{conn}, "GET", "/x", nil); err != nil {
			return
		}
		wait.Sleep(ctx, 5*time.Second)
	}
}

// keptOpen is a connection that its user cannot close.
type keptOpen struct{ net.Conn }

// Close does nothing.
func (keptOpen) Close() error { return nil }

func slowBody(ctx context.Context, conn net.Conn) {
	_, err := io.WriteString(conn, "POST /api/v1/login HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n{")
	for ; err == nil && ctx.Err() == nil; wait.Sleep(ctx, time.Second) {
		_, err = conn.Write([]byte(" "))
	}
}

// A flood is strangers at so many addresses.
type flood struct {
	*load
	sources int
	enough  atomic.Bool // nothing more is opened
}

// atOnce is how many connections of one kind the test has itself at most, however many the server keeps: the race detector
// can watch 8128 goroutines.
const atOnce = 1800

// run opens connections of one kind, as fast as few workers can, and each again that the server closes.
func (f *flood) run(ctx context.Context, a *attack) {
	held := make(chan struct{}, atOnce)
	var workers, conns sync.WaitGroup
	defer conns.Wait()
	defer workers.Wait()
	for w := range 4 {
		workers.Go(func() {
			for i := w; ctx.Err() == nil && !f.enough.Load(); i += 4 {
				select {
				case held <- struct{}{}:
				case <-ctx.Done():
					return
				case <-time.After(time.Second): // the server keeps them all; that counts as an attempt
					continue
				}
				conns.Go(func() {
					defer func() { <-held }()
					f.connect(ctx, a, i)
				})
				wait.Sleep(ctx, 15*time.Millisecond) // a thousand a second of all kinds: 410 did it before
			}
		})
	}
}

func (f *flood) connect(ctx context.Context, a *attack, i int) {
	from := net.IPv4(127, 66, byte(i%f.sources/100), byte(1+i%f.sources%100))
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", f.ports[i%3]))
	a.opened.Add(1)
	if err != nil {
		return
	}
	defer conn.Close()
	socket := conn
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	if a.api || a.relay {
		alpn := transport.ALPNAPI
		if a.relay {
			alpn = transport.ALPNRelay
		}
		t := tls.Client(conn, (*accesstest.Client)(nil).TLS(alpn))
		if t.HandshakeContext(ctx) != nil {
			return
		}
		conn = t
	}
	a.begun.Add(1)
	a.act(ctx, conn)
}

// underWay waits until each kind has begun as often as it should.
func (f *flood) underWay(kinds []*attack) {
	f.t.Helper()
	for i := range kinds {
		last, moved := int64(-1), time.Now()
		for kinds[i].opened.Load() < int64(kinds[i].n) {
			if n := kinds[i].opened.Load(); n != last {
				last, moved = n, time.Now()
			}
			if time.Since(moved) > patience {
				f.t.Fatalf("%s: only %d connections", kinds[i].name, last)
			}
			wait.Sleep(f.t.Context(), 20*time.Millisecond)
		}
	}
}
