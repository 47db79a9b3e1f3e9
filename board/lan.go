package board

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// maxRoutes bounds a routing table, in bytes: about 7000 routes. A gateway has ten.
const maxRoutes = 1 << 20

// LANPrefixes returns the networks on the board's LAN side, sorted: those attached to interfaces that are up and carry
// no default route, without loopback, tunnels, link-local and single addresses. It is what a session may reach when the
// owner says nothing, so it fails rather than guess. Routes are read from the main table; an uplink whose default
// route is in another table alone looks like a LAN, and is the owner's to exclude. On platforms other than Linux there
// are none.
func (b *Board) LANPrefixes() ([]netip.Prefix, error) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	uplinks, err := b.uplinks()
	if err != nil {
		return nil, fmt.Errorf("find uplinks: %w", err)
	}
	all, err := b.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return lanPrefixes(all, uplinks), nil
}

func lanPrefixes(all []Interface, uplinks map[string]bool) (lan []netip.Prefix) {
	for _, i := range all {
		if !i.Up || i.Loopback || i.PointToPoint || uplinks[i.Name] {
			continue
		}
		for _, p := range i.Prefixes {
			a := p.Addr()
			if p.Bits() > 0 && !p.IsSingleIP() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() {
				lan = append(lan, p.Masked())
			}
		}
	}
	slices.SortFunc(lan, netip.Prefix.Compare)
	return slices.Compact(lan)
}

// uplinks returns the names of the interfaces that a default route goes out by. It reads below /proc/self because a
// service manager may hide the rest of /proc.
func (b *Board) uplinks() (map[string]bool, error) {
	v4, err := readFile(b.Root, "proc/self/net/route", maxRoutes)
	if err != nil {
		return nil, err
	}
	v6, err := readFile(b.Root, "proc/self/net/ipv6_route", maxRoutes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // missing: a kernel without IPv6
		return nil, err
	}
	names := make(map[string]bool)
	if err := errors.Join(uplinks4(string(v4), names), uplinks6(string(v6), names)); err != nil {
		return nil, err
	}
	return names, nil
}

// Of the kernel's include/uapi/linux/route.h.
const (
	flagUp     = 0x0001
	flagReject = 0x0200
)

// isDefault also takes the two halves 0/1 and 128/1 that VPNs install to win over a default route.
func isDefault(flags uint64, prefixBits int) bool {
	return flags&flagUp != 0 && flags&flagReject == 0 && prefixBits <= 1
}

// uplinks4 parses /proc/net/route: after a heading, lines of interface, destination, gateway, flags, reference count,
// use, metric, mask and more, numbers in hexadecimal. The mask is in the machine's byte order, and counting its ones
// works in any.
func uplinks4(table string, names map[string]bool) error {
	for i, line := range lines(table) {
		if i == 0 {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 8 {
			return fmt.Errorf("parse route: line %d has %d fields", i+1, len(f))
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		mask, err2 := strconv.ParseUint(f[7], 16, 32)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("parse route: line %d: %w", i+1, err)
		}
		if isDefault(flags, bits.OnesCount64(mask)) {
			names[f[0]] = true
		}
	}
	return nil
}

// uplinks6 parses /proc/net/ipv6_route: lines of destination, its prefix length, source, its prefix length, next hop,
// metric, reference count, use, flags and interface, numbers in hexadecimal.
func uplinks6(table string, names map[string]bool) error {
	for i, line := range lines(table) {
		f := strings.Fields(line)
		if len(f) != 10 {
			return fmt.Errorf("parse ipv6_route: line %d has %d fields", i+1, len(f))
		}
		length, err := strconv.ParseUint(f[1], 16, 8)
		flags, err2 := strconv.ParseUint(f[8], 16, 32)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("parse ipv6_route: line %d: %w", i+1, err)
		}
		if isDefault(flags, int(length)) {
			names[f[9]] = true
		}
	}
	return nil
}

func lines(table string) []string {
	if table = strings.TrimRight(table, "\n"); table == "" {
		return nil
	}
	return strings.Split(table, "\n")
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
