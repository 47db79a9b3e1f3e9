package manager

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"hawser/transport"
	"hawser/transport/wire"
)

// A relay that was stolen leads a technician's PC nowhere, whatever it says of itself. The user's own word is kept.
func TestAStolenRelayLeadsAPCNowhere(t *testing.T) {
	t.Attr("id", "T-address")
	for name, private := range map[string]bool{"as it is": false, "declared private": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				m := f.manager()
				var mu sync.Mutex
				var dialled []string
				m.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					mu.Lock()
					dialled = append(dialled, address)
					mu.Unlock()
					return f.client.DialContext(ctx, network, address)
				}
				m.Resolve = func(context.Context, string) ([]netip.Addr, error) {
					return []netip.Addr{netip.MustParseAddr("192.168.50.1")}, nil
				}
				l := f.founder()
				l.Private = &private
				if _, err := m.Login(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				a := must(m.Open())
				defer a.Close()
				f.answer("GET /relays", jsonAnswer(wire.Pool{Relays: []wire.Relay{{Name: "r1", Ports: []transport.Port{502, 22, 8080, 443},
					Hosts: []string{"192.168.50.1", "169.254.169.254", "plc.factory.internal", "127.0.0.1", "10.1.2.3:80"}}}}))
				f.takeMeasurements()
				if err := a.measure(t.Context(), must(a.pool(t.Context()))); err != nil {
					t.Fatal(err)
				}
				slices.Sort(dialled)
				dialled = slices.Compact(dialled)
				want := []string{accessAddr.String() + ":443"}
				if private {
					want = []string{"10.1.2.3:80", "192.0.2.1:443", "192.168.50.1:443"}
				}
				if !slices.Equal(dialled, want) {
					t.Errorf("dialled %v, want %v", dialled, want)
				}
				if c := must(a.home.readConfig()); c.Private != private || len(c.Own) > 0 {
					t.Errorf("kept %+v", c)
				}
			})
		})
	}
}
