//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
	"hawser/internal/soak"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// What a restart may cost those who were attached, and a technician meanwhile.
const (
	restartBack = 60 * time.Second
	restartCall = 2 * time.Second // 99 of 100 calls
)

// After a kill of the server all devices come back by the rules of an agent, evenly, and leave room for a technician.
func TestAllDevicesComeBackAfterARestart(t *testing.T) {
	t.Attr("id", "L-restart")
	n := soak.Or(500, 5000)
	t.Attr("cases", strconv.Itoa(n))
	l := newLoad(t, "")
	if soak.On() { // a processor for the server alone: 5,000 devices need one as well, and what they take from it makes gaps
		l.by = "taskset -c 0"
	}
	l.server.stop()
	had := l.serveWith(manyDescriptors)
	t.Attr("count", fmt.Sprintf("descriptors of the server, of %d wanted=%d", manyDescriptors, had))
	l.wantService()
	f := &fleet{load: l, back: make(chan time.Time, n)}
	f.enrollAll(n)
	ctx, cancel := context.WithCancel(t.Context())
	var devices sync.WaitGroup
	defer devices.Wait()
	defer cancel()
	for i := range f.clients {
		devices.Go(func() { f.live(ctx, i) })
	}
	f.await(n)
	watch := pace.Start(os.Getpid())
	l.server.kill()
	l.serveWith(manyDescriptors)
	ready := time.Now()
	calls := f.callMeanwhile(ctx)
	arrivals := f.await(n)
	took := slices.MaxFunc(arrivals, time.Time.Compare).Sub(ready)
	latencies := calls()
	slow := latencies[len(latencies)*99/100]
	// Nine tenths, since a few who come late make the mean of all small, and say nothing of a crowd. So does the time that others
	// had the machine.
	slices.SortFunc(arrivals, time.Time.Compare)
	middle := arrivals[n-1-n/20].Sub(arrivals[n/20]) - watch.Others()
	peak, mean := busiest(arrivals, ready), 0.9*float64(n)/max(1, middle.Seconds())
	t.Logf("%d devices back %v after the server was ready, %d in the peak second, %.0f in the mean, %.0f in that of the middle; "+
		"%d searches failed, %d were told to come later", n, took.Round(100*time.Millisecond), peak, float64(n)/took.Seconds(), mean, f.failed.Load(), f.later.Load())
	t.Logf("back in each second: %v", bySecond(arrivals, ready))
	t.Logf("%d calls: the median took %v, 99 of 100 at most %v", len(latencies), latencies[len(latencies)/2], slow)
	watch.Within(t, "all are back", took, restartBack)
	watch.Within(t, "99 of 100 calls are answered", slow, restartCall)
	if float64(peak) > 2*mean {
		t.Errorf("%d came back in one second, want at most twice the mean, which is %.0f", peak, mean)
	}
}

func bySecond(arrivals []time.Time, from time.Time) []int {
	seconds := make([]int, 100)
	for _, at := range arrivals {
		seconds[min(99, max(0, int(at.Sub(from)/time.Second)))]++
	}
	return seconds
}

// busiest is how many arrived in the second in which most did.
func busiest(arrivals []time.Time, from time.Time) (most int) {
	seconds := map[int]int{}
	for _, at := range arrivals {
		s := int(at.Sub(from) / time.Second)
		seconds[s]++
		most = max(most, seconds[s])
	}
	return most
}

// A fleet is devices with real keys and real TLS, each at an address of its own, which live by the rules of an agent.
type fleet struct {
	*load
	clients       []*accesstest.Client
	back          chan time.Time // when one was welcomed
	failed, later atomic.Int64
}

func (f *fleet) enrollAll(n int) {
	f.t.Helper()
	f.clients = make([]*accesstest.Client, n)
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := w; i < n && !f.t.Failed(); i += 8 {
				added, status, code := f.add(fmt.Sprint("press ", i))
				if status != http.StatusCreated {
					f.t.Errorf("add: %d %s", status, code)
					return
				}
				var err error
				if f.clients[i], err = f.enroll(f.t.Context(), added); err != nil {
					f.t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// live is a device: attached, or on the search for the server. As an agent does, it comes back within 2 s after a link that
// was up, and later after a search that failed (wire §4.6.1).
func (f *fleet) live(ctx context.Context, i int) {
	backoff := wait.Backoff{First: 2 * time.Second, Longest: time.Minute}
	told := false
	for failures := 0; ctx.Err() == nil; {
		up, err := f.attachOnce(ctx, i)
		if up {
			failures = 0
			wait.Sleep(ctx, wait.Random(2*time.Second))
			continue
		}
		hint := control.RetryAfter(err)
		failures, told = wait.InARow(failures, told, hint > 0), hint > 0
		f.failed.Add(1)
		if told {
			f.later.Add(1)
		}
		wait.Sleep(ctx, backoff.After(failures, hint))
	}
}

// attachOnce searches once, port after port, and stays attached while that lasts.
func (f *fleet) attachOnce(ctx context.Context, i int) (up bool, err error) {
	var conn *tls.Conn
	for p := range f.ports {
		if conn, err = f.reach(ctx, i, f.ports[(i+p)%len(f.ports)]); err == nil {
			break
		}
	}
	if err != nil {
		return false, err
	}
	defer conn.NetConn().Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err = accesstest.Prelude(conn); err == nil {
		err = wire.WriteJSON(conn, wire.TypeHello, hello(f.clients[i]))
	}
	for err == nil {
		var frame wire.Frame
		if frame, err = wire.Read(conn); err != nil {
			break
		}
		switch frame.Type {
		case wire.TypeRefuse:
			return up, frame.Refusal()
		case wire.TypeWelcome:
			up = true
			conn.SetDeadline(time.Time{})
			f.back <- time.Now()
		}
	}
	return up, err
}

// reach connects to a port from the device's own address. It starts no goroutine of its own, of which the race detector
// can watch few.
func (f *fleet) reach(ctx context.Context, i int, port string) (*tls.Conn, error) {
	from := net.IPv4(127, 67, byte(i/250), byte(1+i%250))
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, f.clients[i].TLS(transport.ALPNAccess))
	conn.SetDeadline(time.Now().Add(4 * time.Second)) // wire §8
	if err := secured.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// await waits until so many were welcomed, and returns when they were.
func (f *fleet) await(n int) (at []time.Time) {
	f.t.Helper()
	for len(at) < n {
		select {
		case when := <-f.back:
			at = append(at, when)
		case <-time.After(patience):
			f.t.Fatalf("%d of %d devices are attached, and no more come", len(at), n)
		}
	}
	return at
}

// callMeanwhile is a technician who calls again and again. result ends that, and returns what each call took, in order.
func (f *fleet) callMeanwhile(ctx context.Context) (result func() []time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	var calling sync.WaitGroup
	var took []time.Duration
	calling.Go(func() {
		for {
			began := time.Now()
			_, err := search(func() error {
				if status, code := f.ask(f.admin, "GET", "/api/v1/devices?limit=10", nil, nil); status != http.StatusOK {
					return fmt.Errorf("%d %s", status, code)
				}
				return nil
			})
			if err != nil {
				f.t.Errorf("a call is answered %v", err)
			}
			if took = append(took, time.Since(began)); !wait.Sleep(ctx, 50*time.Millisecond) {
				return
			}
		}
	})
	return func() []time.Duration {
		cancel()
		calling.Wait()
		slices.Sort(took)
		return took
	}
}
