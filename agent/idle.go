package agent

import (
	"net/netip"
	"time"

	"hawser/transport/control"
)

// The idle link learns how long the way to a server may be silent (wire §4.6.1).
const (
	// As often as during a session. What cuts a link sooner is no idle limit, or nobody could work through it either.
	leastIdle   = 4 * time.Second // no shorter interval is learnt
	longestIdle = 20 * time.Minute
	soonBack    = 10 * time.Second // a search that takes longer met a network that was gone
	stepEvery   = 24 * time.Hour
)

// learnt is what is kept of an address.
type learnt struct {
	Interval time.Duration `json:"interval"` // between two pings, in ns; 0: nothing was learnt
	From     netip.Addr    `json:"from"`     // our own address
	Tried    time.Time     `json:"tried"`    // when a longer one was tried last
}

// checked returns what can be true of a value from a file. The file may be of another version or damaged in a way that
// JSON survives.
func (k learnt) checked() learnt {
	if k.Interval < leastIdle || k.Interval > longestIdle {
		return learnt{}
	}
	return k
}

// idleLink is what this process knows of idle links to an address. It is a value with pure methods, so that the tests
// play years of cuts as step lists, without a network or a clock.
type idleLink struct {
	learnt
	pace    time.Duration // climbs to Interval
	before  time.Duration // the interval before a step that is being tried; 0: none
	last    control.Loss  // the last one that counted
	longest time.Duration // idle time that was survived since
}

// interval returns how often to ping, if nothing stood against want.
func (k idleLink) interval(want time.Duration) time.Duration {
	if k.Interval == 0 {
		return want
	}
	return min(k.pace, want)
}

// attached is a new link from one of our addresses. Another own address is likely another network with another NAT:
// that is the moment to try a longer interval, but what was learnt is not thrown away, since DHCP gives new addresses
// in old networks too.
func (k idleLink) attached(from netip.Addr, now time.Time) idleLink {
	if k.Interval == 0 || k.From == from {
		return k
	}
	k.From = from
	return k.step(now)
}

// survived is an idle time that the link has survived.
func (k idleLink) survived(idle, want time.Duration, now time.Time) idleLink {
	k.longest = max(k.longest, idle)
	switch {
	case k.Interval == 0 || !reaches(idle, min(k.pace, want)):
	// The way bears the full heartbeat: all that was learnt is forgotten, so that the file holds the bad networks only.
	case reaches(idle, want):
		return idleLink{last: k.last, longest: k.longest}
	case k.pace < k.Interval:
		k.pace = min(k.pace*3/2, k.Interval)
	case k.before != 0:
		k.before = 0
	case now.Sub(k.Tried) >= stepEvery || now.Before(k.Tried): // the clock was set back
		return k.step(now)
	}
	return k
}

// step tries a longer interval, unless one is being tried. One step may cost one cut, so once a day is the price
// (docs/decisions/0012); without steps a gateway that was carried to a better network would ping every 4 s for ever.
func (k idleLink) step(now time.Time) idleLink {
	if k.before == 0 && k.pace == k.Interval {
		k.before, k.Interval = k.Interval, k.Interval*3/2
		k.pace, k.Tried = k.Interval, now
	}
	return k
}

// lost is a loss after which the next search found a way soon. One of a link that was
// busy, or lived too short to be kept by any interval, does not count. Two losses and not one: a line that is cut off
// each night is no lesson (docs/decisions/0012).
func (k idleLink) lost(l control.Loss, now time.Time) idleLink {
	if l.Idle < leastIdle {
		return k
	}
	before, survived := k.last, k.longest
	k.last, k.longest = l, 0
	if k.before != 0 && !reaches(k.before, l.Idle) {
		// One loss is enough to take back a step, because it only restores what had worked before.
		k.Interval, k.pace, k.before = k.before, k.before, 0
		return k
	}
	if t := min(before.Idle, l.Idle); oneLimit(before, l) && !reaches(survived, t) {
		k.Interval, k.pace, k.before, k.Tried = max(t/2, leastIdle), leastIdle, 0, now
	}
	return k
}

// oneLimit reports whether two losses may come of one limit. That of a silent one may be
// anywhere below its idle time.
func oneLimit(a, b control.Loss) bool {
	if a.Idle > b.Idle {
		a, b = b, a
	}
	return a.Idle > 0 && (b.Silent || a.Idle >= b.Idle*8/10)
}

// reaches reports whether an idle time is as long as another one, up to the jitter of
// timers. A loaded gateway fires late and a pong takes its round trip: exact comparison would never find an interval
// survived.
func reaches(idle, d time.Duration) bool { return idle >= d*95/100 }

// idleLinks has the knowledge of all addresses. Only the state machine uses it, and
// Link.Run, which that waits for.
type idleLinks struct {
	store *store
	links map[netip.AddrPort]idleLink

	// The last loss, until the next search ends.
	from netip.AddrPort
	loss control.Loss
	at   time.Time // monotonic
}

func (i *idleLinks) of(addr netip.AddrPort) idleLink {
	k, ok := i.links[addr]
	if !ok {
		k.learnt = i.store.learnt(addr)
		k.pace = k.Interval
	}
	return k
}

// set keeps what is known now. It reports whether the interval is another one.
func (i *idleLinks) set(addr netip.AddrPort, k idleLink) (changed bool) {
	before := i.of(addr).learnt
	if len(i.links) >= maxGoodHosts {
		clear(i.links) // what was learnt is in the store
	}
	i.links[addr] = k
	if k.learnt != before {
		i.store.learn(addr, k.learnt)
	}
	return k.Interval != before.Interval
}

// lost keeps a loss that counts if the next search ends soon.
func (i *idleLinks) lost(addr netip.AddrPort, l control.Loss) {
	i.from, i.loss, i.at = addr, l, time.Now()
}

// found ends the search after a loss. It returns the address that has another interval
// now, if one has.
func (i *idleLinks) found(own netip.Addr, now time.Time) (addr netip.AddrPort, changed bool) {
	if addr = i.from; !addr.IsValid() {
		return addr, false
	}
	i.from = netip.AddrPort{}
	// The network itself was away, such as a modem that redials: its idle limit is not what ended the link.
	if time.Since(i.at) > soonBack {
		return addr, false
	}
	k := i.of(addr).lost(i.loss, now)
	if k.Interval != 0 && !k.From.IsValid() {
		k.From = own
	}
	return addr, i.set(addr, k)
}
