package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// wantClose wants the end of a connection, at once and after so many bytes.
func wantClose(t *testing.T, conn net.Conn, bytes int) {
	t.Helper()
	began := time.Now()
	b, err := io.ReadAll(conn)
	if err != nil || len(b) != bytes || time.Since(began) != 0 {
		t.Errorf("after %v: %d bytes, %v, want %d and the end", time.Since(began), len(b), err, bytes)
	}
}

// alertRecord is the length of TLS's close_notify as it travels (RFC 8446
// §5.2): header, alert, type, tag.
const alertRecord = 5 + 2 + 1 + 16

func TestStoppedRelayEndsWhatItHoldsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		runtime, manager := r.pair(t, "s1")
		framed, _ := r.meet(t, "s3")
		waiting := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s2"))
		silent, measuring := r.dial(t, device), r.dial(t, device)
		must(t, echo(measuring, 16))
		synctest.Wait()
		r.cancel()
		wantClose(t, runtime, 0)
		wantClose(t, manager, 0)
		wantClose(t, framed.under.Raw(), 0)
		wantClose(t, measuring.under.Raw(), alertRecord)
		for _, conn := range []*client{waiting, silent} {
			err := answer(conn)
			if refusal, ok := errors.AsType[*wire.Refusal](err); !ok || refusal.Reason != transport.Busy || refusal.RetryAfter != busyTime {
				t.Errorf("%v, want busy for %v: another relay may be free, or this one is back by then", err, busyTime)
			}
		}
		r.wait()
		if log := r.log.String(); strings.Count(log, "session over") != 2 || !strings.Contains(log, "reason=closed") {
			t.Errorf("the log:\n%s", log)
		}
	})
}

// TestStoppedRelayDoesNotWaitForAStalledReceiver: order has its bounds.
func TestStoppedRelayDoesNotWaitForAStalledReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		_, manager := r.pair(t, "s1")
		var sender sync.WaitGroup
		sender.Go(func() {
			for {
				if _, err := manager.Write(make([]byte, recordBytes)); err != nil {
					return
				}
			}
		})
		time.Sleep(time.Minute)
		began := time.Now()
		r.cancel()
		r.wait()
		if took := time.Since(began); took != endTime {
			t.Errorf("it took %v", took)
		}
		sender.Wait()
	})
}

// TestLogSaysHowAPipeEnded: who closes a session mostly does not read what the
// other end still has to say, and that is no fault of the network.
func TestLogSaysHowAPipeEnded(t *testing.T) {
	elsewhere := netip.MustParseAddr("192.0.2.10")
	tests := []struct {
		name string
		end  func(r *rig, runtime, manager *line)
		want string
	}{
		{"Manager closes", func(_ *rig, _, manager *line) { manager.Close() }, "closed"},
		{"Runtime closes", func(_ *rig, runtime, _ *line) { runtime.Close() }, "closed"},
		{"both close", func(_ *rig, runtime, manager *line) { runtime.Close(); manager.Close() }, "closed"},
		{"Manager's network fails", func(r *rig, _, _ *line) { r.net.Cut(r.addr, elsewhere) }, "reset"},
		{"Access says so", func(r *rig, _, _ *line) { r.server.pairing.endSession("s1", transport.NoDevice) }, "no-device"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				device, user := r.device(), r.user()
				joined := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
				r.client = r.net.Host(elsewhere)
				other := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
				must(t, answer(joined))
				must(t, answer(other))
				runtime, manager := change(t)(joined, other)
				var talk sync.WaitGroup
				for _, conn := range []*line{runtime, manager} { // both talk until they cannot, and none listens
					talk.Go(func() {
						for range 4 {
							if _, err := conn.Write(make([]byte, 1000)); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
				}
				time.Sleep(1500 * time.Millisecond)
				c.end(r, runtime, manager)
				talk.Wait()
				runtime.Close()
				manager.Close()
				time.Sleep(endTime)
				log := r.log.String()
				_, over, _ := strings.Cut(log, "session over")
				if !strings.Contains(over, "reason="+c.want+" ") || strings.Contains(over, "session over") {
					t.Errorf("want one end with reason %s:\n%s", c.want, log)
				}
			})
		})
	}
}

// TestRelayAloneOutlivesItsAccessServers: it carries, takes whoever has a grant
// still, tries on, and registers when one is back.
func TestRelayAloneOutlivesItsAccessServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh(t)
		stop := f.run(t)
		time.Sleep(10 * time.Second)
		runtime, manager := f.pair(t, "s1")
		away := netip.MustParseAddr("192.0.2.2")
		f.net.Cut(f.addr, away)
		time.Sleep(24 * time.Hour)
		send(t, runtime, []byte("still here"))
		receive(t, manager, []byte("still here"))
		f.pair(t, "s2")
		if hellos := f.hellos(t); len(hellos) != 1 {
			t.Errorf("%d hellos through a network that is cut", len(hellos))
		}
		f.net.Heal(f.addr, away)
		time.Sleep(2 * backoff().Longest)
		if hellos := f.hellos(t); len(hellos) != 2 {
			t.Errorf("%d hellos, want a second when the server is back", len(hellos))
		}
		must(t, stop())
	})
}
