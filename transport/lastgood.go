package transport

import (
	"net/netip"
	"slices"
	"time"
)

// add queues candidates. Before the first attempt, the address that worked last goes
// to the front, unless it failed lately and others did not. It keeps to "unless it failed lately and others did not":
// after an outage all are resting, and the last good one is still the best guess.
func (r *race) add(found []Candidate) {
	now := r.d.now()
	resting := func(c Candidate) bool { return r.d.memory.resting(r.form(c), now) }
	r.waiting = merge(r.waiting, found, r.wasTried, resting)
	if len(r.tried) > 0 {
		return
	}
	i := slices.IndexFunc(r.waiting, r.isGood)
	if r.headStart = i >= 0 && (!resting(r.waiting[i]) || resting(r.waiting[0])); r.headStart {
		r.toFront(i)
	}
}

// toFront makes waiting[i] the next one to be tried.
func (r *race) toFront(i int) {
	c := r.waiting[i]
	copy(r.waiting[1:i+1], r.waiting[:i])
	r.waiting[0] = c
}

// join adds the addresses that worked before. If none of them was tried yet, the
// first one starts at once, beyond the limit of connects in flight: a name with many
// silent addresses must not delay it.
func (r *race) join() {
	r.add(r.remembered())
	for c := range r.tried {
		if r.isGood(c) {
			return
		}
	}
	i := slices.IndexFunc(r.waiting, r.isGood)
	if i < 0 || r.d.memory.resting(r.form(r.waiting[i]), r.d.now()) {
		return
	}
	r.toFront(i)
	r.extra++
	r.earliest = time.Time{}
}

// remembered lists the candidates of all hosts that worked before, in the full form:
// whether the search is small is decided for all of it. They need no DNS:
// whether an address is right is decided by TLS.
func (r *race) remembered() []Candidate {
	var list []Candidate
	for _, h := range r.t.Hosts {
		host, ports, err := r.split(h)
		if err != nil || r.d.LastGood == nil {
			continue
		}
		for _, c := range r.d.LastGood(host) {
			c.Host = host
			switch {
			case c.Proxy != "" && r.ways.serves(c):
				list = append(list, c.full())
			// Beside the stored port every other port of that address: a firewall may have closed one since, and DNS
			// may be away.
			case c.Proxy == "" && !r.ways.directHeld():
				list = append(list, c.full())
				list = append(list, candidates(host, []netip.Addr{c.Addr.Addr()}, ports)...)
			}
		}
	}
	return list
}

// isGood ignores the form: whether a search is small is decided for all of it, and a good address stays good.
func (r *race) isGood(c Candidate) bool {
	if r.d.LastGood == nil {
		return false
	}
	good := r.d.LastGood(c.Host)
	return len(good) > 0 && good[0].Addr == c.Addr && good[0].Proxy == c.Proxy
}
