package board

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
)

// A Route is a default route, or one next hop of it. It stands for 0/1 and 128/1 too, with which VPNs override a default
// route. Routes are comparable.
type Route struct {
	Interface string
	Table     uint32     // of the kernel's routing tables; 254 is the main one
	IPv6      bool       // family of what it leads to
	Metric    uint32     // among the routes of one table and family the lowest counts
	Gateway   netip.Addr // zero: the interface itself leads everywhere
	Live      bool       // its interface is up and has a carrier
}

// LANPrefixes returns the networks on the board's LAN side, sorted: those attached to interfaces that are up and carry
// no default route, without loopback, tunnels, link-local and single addresses. Sessions may reach them when the owner
// has no rules, so it returns an error rather than a guess. A default route in any table makes its interface an uplink:
// with policy routing the main table may have none. On platforms other than Linux there are none.
func (b *Board) LANPrefixes() ([]netip.Prefix, error) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	routes, err := b.Routes()
	if err != nil {
		return nil, fmt.Errorf("find uplinks: %w", err)
	}
	all, err := b.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return lanPrefixes(all, routes), nil
}

// Uplinks lists the interfaces with a live default route in any table, on Linux: by one of them the system sends what
// leaves the machine, and the others may lead out as well. It is for netcheck: a gateway with two uplinks goes by the
// one with the lower metric, also when that is dead.
func (b *Board) Uplinks() ([]Interface, error) {
	routes, err := b.Routes()
	if err != nil {
		return nil, err
	}
	all, err := b.Interfaces()
	return slices.DeleteFunc(all, func(i Interface) bool {
		return !slices.ContainsFunc(routes, func(r Route) bool { return r.Live && r.Interface == i.Name })
	}), err
}

// lanPrefixes leaves out each interface with a default route, also one whose cable is out: it is plugged in again, and
// until then what is behind it is still not the owner's.
func lanPrefixes(all []Interface, routes []Route) (lan []netip.Prefix) {
	for _, i := range all {
		uplink := slices.ContainsFunc(routes, func(r Route) bool { return r.Interface == i.Name })
		if !i.Up || i.Loopback || i.PointToPoint || uplink {
			continue
		}
		for _, p := range i.Prefixes {
			a := p.Addr()
			// A network of length 0 would be all addresses there are. Link-local networks are left out because the
			// metadata service of clouds has such an address.
			if p.Bits() > 0 && !p.IsSingleIP() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() {
				lan = append(lan, p.Masked())
			}
		}
	}
	slices.SortFunc(lan, netip.Prefix.Compare)
	return slices.Compact(lan)
}

// interfaces is Board.Interfaces on the real machine.
func interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []Interface
	for _, n := range all {
		i := Interface{
			Name:         n.Name,
			Up:           n.Flags&net.FlagUp != 0,
			Loopback:     n.Flags&net.FlagLoopback != 0,
			PointToPoint: n.Flags&net.FlagPointToPoint != 0,
		}
		addrs, err := n.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", n.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				i.Prefixes = append(i.Prefixes, p)
			}
		}
		list = append(list, i)
	}
	return list, nil
}
