package transport

import (
	"iter"
	"net/netip"
	"time"
)

// A Known is a candidate that worked, as programs store it beside its host (wire §8). The address is stored and not
// only the host, so that a search can begin while DNS is silent (wire §8, rule 4).
type Known struct {
	Addr  netip.AddrPort `json:"addr,omitzero"`   // zero: through Proxy
	Port  Port           `json:"port,omitzero"`   // of the host, through Proxy
	Proxy string         `json:"proxy,omitempty"` // as Candidate has it
	Small time.Time      `json:"small,omitzero"`  // when only the small form was found to pass; zero: the full one does
}

// NewKnown makes one of a candidate that worked. A small form that did was found at a
// time.
func NewKnown(c Candidate, found time.Time) Known {
	k := Known{Addr: c.Addr}
	if c.Proxy != "" {
		k = Known{Port: c.Port(), Proxy: c.Proxy}
	}
	if c.Small {
		k.Small = found
	}
	return k
}

// Candidate is the candidate that was stored, for its host. It is small as long as
// that counts.
func (k Known) Candidate(host string, now time.Time) Candidate {
	c := Candidate{Host: host, Addr: k.Addr, Proxy: k.Proxy, Small: SmallCounts(k.Small, now)}
	if k.Proxy != "" {
		c.Addr = netip.AddrPortFrom(netip.Addr{}, uint16(k.Port))
	}
	return c
}

// Is reports whether c leads the same way, in whatever form. Otherwise an address that changes its form would fill two
// places in the list of its host.
func (k Known) Is(c Candidate) bool { return k.Candidate(c.Host, time.Time{}).full() == c.full() }

// Says reports whether k says the same as c, which worked now, so that nothing has to
// be stored: a small form is stored once a day, or it would never be given up.
func (k Known) Says(c Candidate, now time.Time) bool {
	return k.Is(c) && SmallCounts(k.Small, now) == c.Small && (c.Small || k.Small.IsZero()) && !k.Small.After(now)
}

// Found returns when the small form was found that known says of: the newest time that
// counts now, or now for none. Whoever stores a small form that worked stores that time,
// or each server that is dialled in a small search would begin another day of it. Times
// of the future, which a wrong clock left, are brought back to now, or they would count
// until then.
func Found(known iter.Seq[*Known], now time.Time) (found time.Time) {
	for k := range known {
		if k.Small.After(now) {
			k.Small = now
		}
		if SmallCounts(k.Small, now) && k.Small.After(found) {
			found = k.Small
		}
	}
	if found.IsZero() {
		return now
	}
	return found
}
