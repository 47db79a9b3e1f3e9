package board

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// A Route is a default route, or one next hop of it. It stands for 0/1 and 128/1 too, with which VPNs override a default
// route. Or it leads to a part of a network that is attached to the machine. Routes are comparable.
type Route struct {
	Interface  string
	To         netip.Prefix // zero: everywhere
	Table      uint32       // of the kernel's routing tables; 254 is the main one
	IPv6       bool         // family of what it leads to
	Metric     uint32       // among the routes of one table and family the lowest counts
	Gateway    netip.Addr   // zero: the interface itself leads there
	Live       bool         // its interface is up and has a carrier
	Advertised bool         // a router advertisement made it, which any machine of a network can send
}

// IsDefault reports whether the route leads everywhere.
func (r Route) IsDefault() bool { return !r.To.IsValid() }

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
		return !slices.ContainsFunc(routes, func(r Route) bool { return r.IsDefault() && r.Live && r.Interface == i.Name })
	}), err
}

// interfaces is Board.Interfaces on the real machine.
func interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	links, err := readLinks()
	if err != nil {
		return nil, fmt.Errorf("list kinds of interfaces: %w", err)
	}
	var list []Interface
	for _, n := range all {
		l, known := links[n.Index]
		if !known && links != nil { // without its kind it would be taken for hardware
			return nil, fmt.Errorf("interface %s has just come or gone", n.Name)
		}
		i := Interface{
			Name:         n.Name,
			Kind:         l.kind,
			Master:       links[l.master].name,
			Lower:        links[l.lower].name,
			Up:           n.Flags&net.FlagUp != 0,
			Loopback:     n.Flags&net.FlagLoopback != 0,
			PointToPoint: n.Flags&net.FlagPointToPoint != 0,
		}
		addrs, err := n.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", n.Name, err)
		}
		i.Prefixes = prefixesOf(addrs)
		list = append(list, i)
	}
	return list, nil
}

// A link is what only the kernel of Linux says about an interface. Others are named by their index; 0: none.
type link struct {
	name, kind    string
	master, lower int
}

func prefixesOf(addrs []net.Addr) (all []netip.Prefix) {
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p)
		}
	}
	return all
}
