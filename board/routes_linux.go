package board

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// dumpTries is how often the kernel's tables are read when they change meanwhile. A router with a flapping BGP session
// may change them all the time; then the caller gets an error and no guess.
const dumpTries = 5

// errInterrupted: the tables changed while they were read, so something may be missing.
var errInterrupted = errors.New("routing tables keep changing")

// routesNow is Board.Routes on the real machine. It asks the kernel (RFC 3549 §3), which tells the routes of all tables
// and families; /proc/net/route has those of the main table only. Routes that nobody needs are dropped as they come, so
// that a router's million of them takes no memory.
func routesNow() (routes []Route, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	hops, err := dumpHops(within(prefixesOf(addrs)))
	if err != nil {
		return nil, err
	}
	names := map[int32]string{}
	for _, i := range interfaces {
		names[int32(i.Index)] = i.Name
	}
	for _, h := range hops {
		r, ok := h.route, false
		if r.Interface, ok = names[h.index]; !ok {
			// Not skipped: without its name the interface could come back as a LAN, which sessions may reach.
			return nil, fmt.Errorf("a route leads to interface %d, which has just come or gone", h.index)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// within tells whether a route leads to a part of one of these networks: it takes that part away from their interface.
func within(networks []netip.Prefix) func(netip.Prefix) bool {
	return func(to netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Bits() <= to.Bits() && n.Contains(to.Addr()) })
	}
}

// hop is a route whose interface has its number only. The kernel tells numbers; names are looked up once for all.
type hop struct {
	index int32
	route Route
}

// dumpHops returns the default routes of all tables, and those to what wanted asks for.
func dumpHops(wanted func(netip.Prefix) bool) (hops []hop, err error) {
	// A family of 0 is all of them.
	err = dump(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), func() { hops = nil }, func(m syscall.NetlinkMessage) error {
		if m.Header.Type != unix.RTM_NEWROUTE {
			return nil
		}
		of, err := readHops(m.Data, wanted)
		hops = append(hops, of...)
		return err
	})
	return hops, err
}

// dump asks the kernel for all it has of a kind, and hands each message to each. When the kernel's table changes
// meanwhile it begins again, after a call of again.
func dump(kind uint16, head []byte, again func(), each func(syscall.NetlinkMessage) error) (err error) {
	for range dumpTries {
		again()
		if err = dumpOnce(kind, head, each); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

func dumpOnce(kind uint16, head []byte, each func(syscall.NetlinkMessage) error) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(head)))
	request = binary.NativeEndian.AppendUint16(request, kind)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request = append(append(request, make([]byte, 8)...), head...) // sequence, sender
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := readDump(buf[:n], each); done || err != nil {
			return err
		}
	}
}

// readDump hands on one batch of messages, and tells whether it was the last one.
func readDump(b []byte, each func(syscall.NetlinkMessage) error) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, fmt.Errorf("parse netlink: %w", err)
	}
	for _, m := range messages {
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return false, errInterrupted
		}
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return false, errors.New("the kernel does not tell its tables")
		}
		if err := each(m); err != nil {
			return false, err
		}
	}
	return false, nil
}

// isDefault reads the head of a route message: family, lengths of destination and source, type of service, table,
// protocol, scope, type (1 byte each), flags (4). Routes that lead nowhere (unreachable, blackhole) are none. A length
// of at most 1 takes the halves 0/1 and 128/1 as well, by which VPNs override a default route.
func isDefault(b []byte) bool {
	return len(b) >= unix.SizeofRtMsg && (b[0] == unix.AF_INET || b[0] == unix.AF_INET6) && b[1] <= 1 && b[7] == unix.RTN_UNICAST
}

// destination reads where a route leads to: the zero value for a default route. It is false for a message that is no
// route to another machine, such as those to the machine's own addresses.
func destination(b []byte) (to netip.Prefix, ok bool) {
	if isDefault(b) {
		return to, true
	}
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 || b[7] != unix.RTN_UNICAST {
		return to, false
	}
	for kind, value := range attributes(b[unix.SizeofRtMsg:]) {
		if a, valid := netip.AddrFromSlice(value); kind == unix.RTA_DST && valid {
			to = netip.PrefixFrom(a, int(b[1])).Masked()
		}
	}
	return to, to.IsValid()
}

// readHops reads a route message: none for a route that nobody wants, several for one with several next hops. A default
// route that names no interface is an error: its uplink would be taken for a LAN.
func readHops(b []byte, wanted func(netip.Prefix) bool) (hops []hop, err error) {
	to, ok := destination(b)
	if !ok || to.IsValid() && !wanted(to) {
		return nil, nil
	}
	common := hop{route: Route{To: to, Table: uint32(b[4]), IPv6: b[0] == unix.AF_INET6, Advertised: b[5] == unix.RTPROT_RA}}
	flags := binary.NativeEndian.Uint32(b[8:])
	var several []byte
	for kind, value := range attributes(b[unix.SizeofRtMsg:]) {
		switch {
		case kind == unix.RTA_TABLE && len(value) == 4: // the byte in the head is too small for most tables
			common.route.Table = binary.NativeEndian.Uint32(value)
		case kind == unix.RTA_PRIORITY && len(value) == 4:
			common.route.Metric = binary.NativeEndian.Uint32(value)
		case kind == unix.RTA_MULTIPATH:
			several = value
		default:
			common.attribute(kind, value)
		}
	}
	if several == nil {
		hops = []hop{common.with(flags)}
	}
	// A next hop: length (2 bytes), flags, weight (1 each), interface (4), attributes; padding to 4.
	for len(several) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(several))
		if n < unix.SizeofRtNexthop || n > len(several) {
			return nil, errors.New("parse route: a next hop has a wrong length")
		}
		h := common
		h.index = int32(binary.NativeEndian.Uint32(several[4:]))
		for kind, value := range attributes(several[unix.SizeofRtNexthop:n]) {
			h.attribute(kind, value)
		}
		hops = append(hops, h.with(uint32(several[2])))
		several = several[min((n+3)&^3, len(several)):]
	}
	for _, h := range hops {
		if h.index == 0 {
			return nil, errors.New("a route names no interface")
		}
	}
	return hops, nil
}

// attribute takes what a route and a next hop may both have.
func (h *hop) attribute(kind uint16, value []byte) {
	switch {
	case kind == unix.RTA_OIF && len(value) == 4:
		h.index = int32(binary.NativeEndian.Uint32(value))
	case kind == unix.RTA_GATEWAY:
		h.route.Gateway, _ = netip.AddrFromSlice(value)
	case kind == unix.RTA_VIA && len(value) > 2: // a gateway of the other family, behind that family's number
		h.route.Gateway, _ = netip.AddrFromSlice(value[2:])
	}
}

// with takes the flags; either of the two means that nothing leaves by this hop now.
func (h hop) with(flags uint32) hop {
	h.route.Live = flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) == 0
	return h
}

// attributes goes through what follows the head of a route message: length and kind (2 bytes each, in the machine's byte
// order), value, padding to 4. The parser of package syscall panics if the last one is cut off.
func attributes(b []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if n < unix.SizeofRtAttr || n > len(b) || !yield(kind, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
