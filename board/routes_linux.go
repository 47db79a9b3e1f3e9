package board

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dumpTries is how often the kernel's tables are read when they change meanwhile. A router with a flapping BGP session
// may change them all the time; then the caller gets an error and no guess.
const dumpTries = 5

// errInterrupted: the tables changed while they were read, so something may be missing.
var errInterrupted = errors.New("routing tables keep changing")

// defaultRoutes is Board.Routes on the real machine. It asks the kernel (RFC 3549 §3), which tells the routes of all
// tables and families; /proc/net/route has those of the main table only. Other routes are dropped as they come, so that a
// router's million of them takes no memory.
func defaultRoutes() (routes []Route, err error) {
	var hops []hop
	for range dumpTries {
		if hops, err = dumpHops(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	interfaces, err := net.Interfaces()
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
			return nil, fmt.Errorf("a default route leads to interface %d, which is gone", h.index)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// hop is a route whose interface has its number only. The kernel tells numbers; names are looked up once for all, after
// the dump.
type hop struct {
	index int32
	route Route
}

// A socket of its own for each dump: on that of LinkUp the answers would come among the news.
func dumpHops() (hops []hop, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := binary.NativeEndian.AppendUint32(nil, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	request = binary.NativeEndian.AppendUint16(request, unix.RTM_GETROUTE)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request = append(request, make([]byte, 8+unix.SizeofRtMsg)...) // sequence, sender; a family of 0 is all of them
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		}
		found, done, err := readDump(buf[:n])
		if err != nil {
			return nil, err
		}
		if hops = append(hops, found...); done {
			return hops, nil
		}
	}
}

// readDump returns the default routes of one batch of messages, and whether it was the last one.
func readDump(b []byte) (hops []hop, done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, false, fmt.Errorf("parse routes: %w", err)
	}
	for _, m := range messages {
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return nil, false, errInterrupted
		}
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return hops, true, nil
		case unix.NLMSG_ERROR:
			return nil, false, errors.New("the kernel does not tell its routes")
		case unix.RTM_NEWROUTE:
			of, err := defaultHops(m.Data)
			if err != nil {
				return nil, false, err
			}
			hops = append(hops, of...)
		}
	}
	return hops, false, nil
}

// isDefault reads the head of a route message: family, lengths of destination and source, type of service, table,
// protocol, scope, type (1 byte each), flags (4). Routes that lead nowhere (unreachable, blackhole) are none. A length
// of at most 1 takes the halves 0/1 and 128/1 as well, by which VPNs override a default route.
func isDefault(b []byte) bool {
	return len(b) >= unix.SizeofRtMsg && (b[0] == unix.AF_INET || b[0] == unix.AF_INET6) && b[1] <= 1 && b[7] == unix.RTN_UNICAST
}

// defaultHops reads a route message: none for a route that is no default route, several for one with several next hops.
// A default route that names no interface is an error: its uplink would be taken for a LAN.
func defaultHops(b []byte) (hops []hop, err error) {
	if !isDefault(b) {
		return nil, nil
	}
	common := hop{route: Route{Table: uint32(b[4]), IPv6: b[0] == unix.AF_INET6}}
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
			return nil, errors.New("a default route names no interface")
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
