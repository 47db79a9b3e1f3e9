package board

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// LinkUp calls up each time that a network may have come up: an interface got a carrier, or an address, or the default
// routes whose interfaces have a carrier are others than before, which is so when one of two uplinks goes. It blocks until
// ctx ends and then returns nil. An error means that the kernel sends no such messages. Without it a gateway whose cable
// was out would wait for the end of its back-off, up to a minute.
func (b *Board) LinkUp(ctx context.Context, up func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	defer f.Close()
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	// After the bind: a change between the two would be neither in the state nor in a message.
	seen, out := linksNow(), ways{}
	b.waysChanged(&out)
	buf := make([]byte, 64<<10) // more than the kernel puts into one message
	for {
		n, err := f.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		// A flood of messages must not end the watch for the rest of the run, and one attempt too many costs little.
		lost := err != nil // ENOBUFS: messages were lost, and one may have been about a link
		came := !lost && seen.cameUp(buf[:n])
		another := (lost || mayChangeWays(buf[:n])) && b.waysChanged(&out)
		if lost || came || another {
			up()
		}
	}
}

// waysChanged looks at the routes. Routes that cannot be read are no news: a carrier and an address still are.
func (b *Board) waysChanged(w *ways) bool {
	now, err := b.Routes()
	return err == nil && w.changed(now)
}

// links knows which interfaces have a carrier, and which addresses there are:
// the kernel also reports what has not changed, with IPv6 every few minutes.
type links struct {
	running map[int32]bool
	addrs   map[netip.Addr]bool
}

// linksNow is the state at the start. Without it the first message about each
// interface would count as a change, and cost one attempt to connect.
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

// cameUp reads route messages (RFC 3549 §3) and reports whether a network came up
// with one of them.
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

// link handles a link message: family and type (4 bytes), index, flags (4 each,
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
	// Up alone is what the administrator wants; running and lower up say that the cable is in.
	has := flags&unix.IFF_RUNNING != 0 && flags&unix.IFF_LOWER_UP != 0
	l.running[index] = has
	return has && !had
}

// addr handles an address message. An address counts for itself: DHCP brings it seconds after the carrier, and a dial
// in between only fails.
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

// addressOf finds IFA_ADDRESS among the attributes behind the header.
func addressOf(b []byte) (netip.Addr, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, false
	}
	for kind, value := range attributes(b[unix.SizeofIfAddrmsg:]) {
		if kind == unix.IFA_ADDRESS {
			return netip.AddrFromSlice(value)
		}
	}
	return netip.Addr{}, false
}

// ways are the live default routes, sorted.
type ways []Route

// changed takes the routes as they are now, and reports whether there is another way out than before. Whoever has lost
// his only one has to wait, so that is no such change.
func (w *ways) changed(now []Route) bool {
	live := slices.DeleteFunc(slices.Clone(now), func(r Route) bool { return !r.Live || !r.IsDefault() })
	slices.SortFunc(live, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric),
			a.Gateway.Compare(b.Gateway), cmp.Compare(a.family(), b.family()))
	})
	before := *w
	*w = live
	return len(live) > 0 && !slices.Equal(live, before)
}

// family is a number that sorts.
func (r Route) family() int {
	if r.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// mayChangeWays reports whether route messages are about links, addresses or default routes. An interface that goes down
// takes its routes with it, and the kernel says nothing of these.
func mayChangeWays(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	return err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		switch m.Header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			return isDefault(m.Data)
		}
		return true
	})
}
