//go:build linux

package access

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
	"hawser/server/store"
	"hawser/server/store/storetest"
	"hawser/transport/wire"
)

// BenchmarkPresencesComeBack measures how fast a node of several writes who is attached to it, after a restart that brought
// all its clients back at once, into a real PostgreSQL. S-many wants 100,000 within 120 s: 834 a second.
func BenchmarkPresencesComeBack(b *testing.B) {
	url := new(storetest.Cluster).Server(b).URL(b)
	st, err := store.Open(b.Context(), store.Options{Dir: filepath.Join(b.TempDir(), "store"), URL: url, Node: "a1", Shared: true})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	w := newIdleWorld(b, func(c *Config) { c.Store, c.Shared, c.Bus = st, true, new(memoryBus) })
	s := must(New(w.cfg))
	if err := s.cluster.take(b.Context()); err != nil {
		b.Fatal(err)
	}
	clients := soak.Or(10_000, 100_000)
	links := make(map[identity.Name]*link)
	for range clients {
		name := identity.DeviceName("plant", identity.NewUID())
		links[name] = &link{
			peer: identity.Peer{Name: name, SPKI: identity.SPKI{1}}, hello: wire.Hello{Instance: "01", Version: "v1"},
			from: netip.MustParseAddrPort("192.0.2.1:5000"), since: time.Now(), hints: map[string]string{"board": "b1"},
		}
	}
	s.presence.links = links
	for b.Loop() {
		for name := range links {
			s.cluster.markDirty(name)
		}
		if err := s.mirror(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(clients*b.N)/b.Elapsed().Seconds(), "presences/s")
	b.ReportMetric(0, "ns/op")
}
