package board

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// LinkUp calls up each time that a network may have come: an interface got its
// carrier, or an address. It blocks until ctx ends and then returns nil; an
// error says that the kernel does not tell.
func (b *Board) LinkUp(ctx context.Context, up func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	defer f.Close()
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	seen := linksNow()
	buf := make([]byte, 64<<10) // more than the kernel puts into one message
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil: // ENOBUFS: some messages were lost, so anything may have come up
			up()
		case seen.cameUp(buf[:n]):
			up()
		}
	}
}

// links knows which interfaces have a carrier, and which addresses there are:
// the kernel also reports what has not changed, with IPv6 every few minutes.
type links struct {
	running map[int32]bool
	addrs   map[netip.Addr]bool
}

// linksNow is how it is at the start. Without it, the first word of each counts
// as news: one try too many.
func linksNow() links {
	l := links{map[int32]bool{}, map[netip.Addr]bool{}}
	list, _ := net.Interfaces()
	for _, i := range list {
		l.running[int32(i.Index)] = i.Flags&net.FlagRunning != 0
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			l.addrs[p.Addr()] = true
		}
	}
	return l
}

// cameUp reads route messages (RFC 3549 §3) and reports whether one of them
// says that a network has come.
func (l links) cameUp(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false
	}
	up := false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			up = l.link(m) || up
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			up = l.addr(m) || up
		}
	}
	return up
}

// link books a link message: family and type (4 bytes), index, flags (4 each,
// in the machine's byte order).
func (l links) link(m syscall.NetlinkMessage) bool {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return false
	}
	index, flags := int32(binary.NativeEndian.Uint32(m.Data[4:])), binary.NativeEndian.Uint32(m.Data[8:])
	had := l.running[index]
	if m.Header.Type == unix.RTM_DELLINK {
		delete(l.running, index)
		return false
	}
	has := flags&unix.IFF_RUNNING != 0 && flags&unix.IFF_LOWER_UP != 0
	l.running[index] = has
	return has && !had
}

// addr books an address message.
func (l links) addr(m syscall.NetlinkMessage) bool {
	addr, ok := addressOf(m.Data)
	if !ok {
		return false
	}
	had := l.addrs[addr]
	if m.Header.Type == unix.RTM_DELADDR {
		delete(l.addrs, addr)
		return false
	}
	l.addrs[addr] = true
	return !had
}

// addressOf finds IFA_ADDRESS among the attributes behind the header: length
// and type (2 bytes each), value, padding to 4. The parser of package syscall
// panics where the last one is cut.
func addressOf(b []byte) (netip.Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, false
	}
	for b = b[unix.SizeofIfAddrmsg:]; len(b) >= unix.SizeofRtAttr; {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		if kind == unix.IFA_ADDRESS {
			return netip.AddrFromSlice(b[unix.SizeofRtAttr:n])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return netip.Addr{}, false
}
