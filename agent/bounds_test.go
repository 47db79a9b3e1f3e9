package agent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// tcpDials notes where the agent connects.
type tcpDials struct {
	mu   sync.Mutex // guards list
	list []string
}

func (d *tcpDials) watch(r *rig) {
	dial := r.opts.DialContext
	r.opts.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "tcp" {
			d.mu.Lock()
			d.list = append(d.list, address)
			d.mu.Unlock()
		}
		return dial(ctx, network, address)
	}
}

// to lists where it connected, each address once, besides the Access Server and resolvers.
func (d *tcpDials) to() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(d.list), func(a string) bool {
		to := netip.MustParseAddrPort(a)
		return to.Addr() == accessAddr || to.Port() == 53
	})
	slices.Sort(list)
	return slices.Compact(list)
}

// A relay that was stolen says that it is inside the LAN, and elsewhere where no server is. The gateway says so, once, and
// sends nothing there, to measure or for a session; where it may go it goes.
func TestAStolenRelayLeadsAGatewayNowhere(t *testing.T) {
	t.Attr("id", "T-address")
	for name, tt := range map[string]struct {
		private bool
		want    []string
	}{
		"as it is":         {false, []string{"203.0.113.1:443"}},
		"declared private": {true, []string{"10.1.2.3:443", "203.0.113.1:443"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.enrollNow()
				r.opts.Config.Private = tt.private
				r.opts.Config.Allow = rules(t, "10.7.0.9:443", "0.0.0.0/0:80")
				var inside atomic.Pointer[resolverKind]
				kind := record("%s 60 A 192.168.10.20", "%s 60 A 203.0.113.1")
				inside.Store(&kind)
				serveNames(r, &inside)
				var dials tcpDials
				dials.watch(r)
				evil := wire.Relay{Name: "r1", Ports: []transport.Port{502, 22, 8080, 443}, Hosts: []string{"192.168.10.20", "169.254.169.254",
					"plc.factory.internal", "127.0.0.1", "10.7.0.9", "10.1.2.3", "[2001:db8:10::20]:443", "64:ff9b::c0a8:a14"}}
				r.access.Welcome.Pool = wire.Pool{Relays: []wire.Relay{evil}}
				p := r.start()
				l := <-r.access.Links
				var m wire.Measurements
				r.next(l, wire.TypeMeasurements, &m)
				if got := dials.to(); !slices.Equal(got, tt.want) {
					t.Errorf("measuring dialled %v, want %v", got, tt.want)
				}
				offer, _ := r.manager().offers("s1", p.self.Load().SPKI)
				offer.Relay = evil
				if reason := r.offer(l, offer); reason != "" {
					t.Fatal(reason)
				}
				var end wire.EndSession
				r.next(l, wire.TypeEndSession, &end)
				offer.Epoch++ // it moves
				r.offer(l, offer)
				r.next(l, wire.TypeEndSession, &end)
				if got := dials.to(); !slices.Equal(got, tt.want) {
					t.Errorf("sessions dialled %v, want %v", got, tt.want)
				}
				said := strings.Join(p.Status().Troubles, "\n")
				if n := r.notes.count("address not dialled"); n != maxOutOfBounds || !strings.Contains(said, ": bad-address: it is on the LAN side, where the machines are") {
					t.Errorf("said %d times; status:\n%s", n, said)
				}
				p.stop(2 * time.Second)
			})
		})
	}
}

// What the configuration names is dialled wherever it is, and is a relay's address too.
func TestTheOwnConfigurationMayNameAnyAddress(t *testing.T) {
	t.Attr("id", "T-address")
	around := Surroundings{}
	for text, want := range map[string]bool{"192.168.10.20": true, "192.168.10.21": false} {
		b := Config{Access: []string{"192.168.10.20", "access.example"}}.Bounds(NewPolicy(nil, around))
		c := transport.Candidate{Host: text, Addr: netip.AddrPortFrom(netip.MustParseAddr(text), 443)}
		if got := b.Judge(c); (got == nil) != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
