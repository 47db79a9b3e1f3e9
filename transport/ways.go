package transport

import (
	"slices"
	"time"
)

// ways is what a race knows of proxies and the direct way (wire §8.2): those of them
// that do not go first join later. A list was written by somebody for this machine, so its
// proxies go first; variables of the environment are often of another place and time (docs/decisions/0015).
type ways struct {
	proxies Proxies
	hosts   []hostPorts
	direct  []Candidate // held back, while proxies go first
	joined  bool        // nothing is held back any more
	failed  []string    // URLs of proxies that failed by themselves
	named   bool        // some name was resolved
}

// hostPorts is a host of the target with the ports to try on it.
type hostPorts struct {
	host  string
	ports []Port
}

// directHeld reports whether direct candidates have to wait for those of proxies.
func (w *ways) directHeld() bool { return w.proxies.First && !w.joined }

// serves reports whether the proxy of a candidate is one of the configured ones, and has
// not failed in this search.
func (w *ways) serves(c Candidate) bool {
	return !slices.Contains(w.failed, c.Proxy) && slices.ContainsFunc(w.proxies.For(c.Host, c.Port()), func(p Proxy) bool { return p.String() == c.Proxy })
}

// through lists all candidates that lead through proxies.
func (w *ways) through() (list []Candidate) {
	for _, h := range w.hosts {
		for _, c := range proxied(h.host, w.proxies.list, h.ports) {
			if w.serves(c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// beginWays queues what needs no names: the proxies of a list, or the one that worked
// last. Without proxies nothing is held back.
func (r *race) beginWays() {
	through := r.ways.through()
	switch {
	case len(through) == 0:
		r.ways.joined = true
	case r.ways.proxies.First:
		r.add(through)
	default:
		r.add(slices.DeleteFunc(through, func(c Candidate) bool { return !r.isGood(c) }))
	}
}

// addDirect queues the addresses of a host that was resolved. When no name could be
// resolved, proxies need not wait any longer.
func (r *race) addDirect(found []Candidate) {
	r.ways.named = r.ways.named || len(found) > 0
	if r.ways.directHeld() {
		r.ways.direct = append(r.ways.direct, found...)
		return
	}
	r.add(found)
	if r.lookups == 0 && !r.ways.named {
		r.joinWays()
	}
}

// joinWays queues the candidates that were held back, in turns with the others. The
// first of them starts at once, beyond the limit of connects in flight: silent
// addresses must not delay the way that leads out.
func (r *race) joinWays() {
	if r.ways.joined {
		return
	}
	r.ways.joined = true
	// Direct candidates that worked before are held with the others, or a list would be passed by.
	held := append(r.ways.direct, r.remembered()...)
	if !r.ways.proxies.First {
		held = r.ways.through()
	}
	before := r.waiting
	r.waiting, r.ways.direct = nil, nil
	r.add(held)
	if len(r.waiting) > 0 {
		r.extra++
		r.earliest = time.Time{}
	}
	// After those that join: add alternates, and the first of them is to be first.
	r.add(before)
}

// dropProxy takes the other candidates of a proxy out of the search: it failed by
// itself, so another port behind it changes nothing. Those that join later neither: with
// a wrong password each would be one more try of it, and directories lock users out.
func (r *race) dropProxy(url string) {
	r.ways.failed = append(r.ways.failed, url)
	r.waiting = slices.DeleteFunc(r.waiting, func(c Candidate) bool { return c.Proxy == url })
}
