package transport

import (
	"net/netip"
	"slices"
	"time"
)

// add queues candidates. Before the first attempt the last good one of them
// goes to the front, unless it failed lately and others did not.
func (r *race) add(found []Candidate) {
	now := r.d.now()
	resting := func(c Candidate) bool { return r.d.memory.resting(c, now) }
	r.waiting = merge(r.waiting, found, func(c Candidate) bool { return r.tried[c] }, resting)
	if len(r.tried) > 0 {
		return
	}
	i := slices.IndexFunc(r.waiting, r.isGood)
	if r.alone = i >= 0 && (!resting(r.waiting[i]) || resting(r.waiting[0])); r.alone {
		r.toFront(i)
	}
}

// toFront makes waiting[i] the next one to be tried.
func (r *race) toFront(i int) {
	c := r.waiting[i]
	copy(r.waiting[1:i+1], r.waiting[:i])
	r.waiting[0] = c
}

// join adds what worked before. If no last good one was tried yet, the first
// starts at once, beside as many as may be in flight: a name that leads to many
// silent addresses must not keep it out.
func (r *race) join() {
	r.add(r.remembered())
	for c := range r.tried {
		if r.isGood(c) {
			return
		}
	}
	i := slices.IndexFunc(r.waiting, r.isGood)
	if i < 0 || r.d.memory.resting(r.waiting[i], r.d.now()) {
		return
	}
	r.toFront(i)
	r.extra, r.earliest = 1, time.Time{}
}

// remembered lists the last good addresses of all hosts: they join when DNS is
// slow or silent, because TLS and not DNS says who answers.
func (r *race) remembered() []Candidate {
	var list []Candidate
	for _, h := range r.t.Hosts {
		host, ports, err := r.split(h)
		if err != nil || r.d.LastGood == nil {
			continue
		}
		for _, a := range r.d.LastGood(host) {
			list = append(list, Candidate{host, a})
			list = append(list, candidates(host, []netip.Addr{a.Addr()}, ports)...)
		}
	}
	return list
}

func (r *race) isGood(c Candidate) bool {
	if r.d.LastGood == nil {
		return false
	}
	good := r.d.LastGood(c.Host)
	return len(good) > 0 && good[0] == c.Addr
}
