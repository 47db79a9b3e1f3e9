package manager

import (
	"net/netip"
	"slices"
	"sync"

	"hawser/transport"
)

// maxGood bounds config.json: an Access Server and the relays that are measured, with the addresses of a few networks.
const maxGood = 64

// memory is the list of addresses that worked, newest first (wire §8). It is safe for concurrent use.
type memory struct {
	mu      sync.Mutex // guards all below
	list    []good
	changed bool
}

// of lists the addresses of a host.
func (m *memory) of(host string) (addrs []netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.list {
		if g.Host == host {
			addrs = append(addrs, g.Addr)
		}
	}
	return addrs
}

// add notes a success. What is already first of its host changes nothing, so that a home is rarely written.
func (m *memory) add(c transport.Candidate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := good{c.Host, c.Addr}
	if i := slices.IndexFunc(m.list, func(o good) bool { return o.Host == g.Host }); i >= 0 && m.list[i] == g {
		return
	}
	m.list = slices.DeleteFunc(m.list, func(o good) bool { return o == g })
	m.list = slices.Insert(m.list, 0, g)
	m.list = m.list[:min(len(m.list), maxGood)]
	m.changed = true
}

// take returns the list if it has changed since it was loaded or taken last.
func (m *memory) take() (list []good, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, m.changed = m.changed, false
	return slices.Clone(m.list), changed
}
