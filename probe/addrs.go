package probe

import (
	"net/netip"
	"slices"
)

// judgeAddrs turns what DNS said into what a caller may dial (names §5).
func (r *Resolver) judgeAddrs(host string, f found) result {
	if len(f.addrs) == 0 {
		return result{err: &NameError{Host: host, Reason: f.reason, Attempts: f.attempts}}
	}
	addrs := usable(f.addrs, r.Private)
	if len(addrs) == 0 {
		return result{err: &NameError{Host: host, Reason: ReasonBadAddress, Attempts: f.attempts}}
	}
	return result{addrs: addrs, ttl: f.ttl}
}

// usable drops what no server can have, puts private addresses last unless
// the infrastructure is private, and keeps at most maxAddrs.
func usable(addrs []netip.Addr, private bool) []netip.Addr {
	var first, last []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case !dialable(a) || slices.Contains(first, a) || slices.Contains(last, a):
		case a.IsPrivate() && !private:
			last = append(last, a)
		default:
			first = append(first, a)
		}
	}
	return limit(append(first, last...))
}

// dialable is false for addresses that a lying or captive resolver hands out
// and that would make the client talk to itself or to everybody.
func dialable(a netip.Addr) bool {
	thisNetwork := a.Is4() && a.As4()[0] == 0 // RFC 1122 §3.2.1.3, with 0.0.0.0
	broadcast := a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return a.IsValid() && !thisNetwork && !broadcast && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsLinkLocalUnicast() && !a.IsMulticast()
}

func limit(addrs []netip.Addr) []netip.Addr {
	return addrs[:min(len(addrs), maxAddrs)]
}

// appendNew appends those of more that are not in all yet.
func appendNew[T comparable](all, more []T) []T {
	for _, v := range more {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}
