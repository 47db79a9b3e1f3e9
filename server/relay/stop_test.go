package relay

import (
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// alertRecord is the length of TLS's close_notify as it travels (RFC 8446
// §5.2): header, alert, type, tag.
const alertRecord = 5 + 2 + 1 + 16

// wantClose wants the relay to end a connection in order, at once.
func wantClose(t *testing.T, conn *transport.Conn) {
	t.Helper()
	began := time.Now()
	b, err := io.ReadAll(conn.NetConn())
	if err != nil || len(b) != alertRecord || time.Since(began) != 0 {
		t.Errorf("after %v: %d bytes, %v, want close_notify and the end", time.Since(began), len(b), err)
	}
}

func TestStoppedRelayEndsWhatItHoldsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(t), r.user(t)
		runtime, manager := r.pair(t, "s1")
		waiting := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s2"))
		silent, measuring := r.dial(t, device), r.dial(t, device)
		must(t, echo(measuring, 16))
		synctest.Wait()
		r.cancel()
		wantClose(t, runtime)
		wantClose(t, manager)
		wantClose(t, measuring)
		wantReason(t, answer(waiting), transport.Closed)
		wantReason(t, answer(silent), transport.Closed)
		r.conns.Wait()
		if log := r.log.String(); strings.Count(log, "session over") != 1 || !strings.Contains(log, "reason=closed") {
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
		r.conns.Wait()
		if took := time.Since(began); took > 10*time.Second {
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
		end  func(r *rig, runtime, manager *transport.Conn)
		want string
	}{
		{"Manager closes", func(_ *rig, _, manager *transport.Conn) { manager.Close() }, "closed"},
		{"Runtime closes", func(_ *rig, runtime, _ *transport.Conn) { runtime.Close() }, "closed"},
		{"both close", func(_ *rig, runtime, manager *transport.Conn) { runtime.Close(); manager.Close() }, "closed"},
		{"Manager's network fails", func(r *rig, _, _ *transport.Conn) { r.net.Cut(r.addr, elsewhere) }, "reset"},
		{"Access says so", func(r *rig, _, _ *transport.Conn) { r.server.table.endSession("s1", transport.NoDevice) }, "no-device"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				device, user := r.device(t), r.user(t)
				runtime := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
				r.client = r.net.Host(elsewhere)
				manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
				must(t, answer(runtime))
				must(t, answer(manager))
				var talk sync.WaitGroup
				for _, conn := range []*transport.Conn{runtime, manager} { // both talk until they cannot, and none listens
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
				time.Sleep(lingerTime)
				log := r.log.String()
				_, over, _ := strings.Cut(log, "session over")
				if !strings.Contains(over, "reason="+c.want+"\n") || strings.Contains(over, "session over") {
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
		if _, _, hellos := f.access.seen(); len(hellos) != 1 {
			t.Errorf("%d hellos through a network that is cut", len(hellos))
		}
		f.net.Heal(f.addr, away)
		time.Sleep(2 * longWait)
		if _, _, hellos := f.access.seen(); len(hellos) != 2 {
			t.Errorf("%d hellos, want a second when the server is back", len(hellos))
		}
		must(t, stop())
	})
}
