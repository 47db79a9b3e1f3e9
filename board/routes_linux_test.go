package board

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attribute is one of a route message as the kernel writes it.
func attribute(kind uint16, data ...any) []byte {
	var value bytes.Buffer
	for _, d := range data {
		binary.Write(&value, binary.NativeEndian, d)
	}
	n := unix.SizeofRtAttr + value.Len()
	b := binary.NativeEndian.AppendUint16(nil, uint16(n))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value.Bytes()...)
	return append(b, make([]byte, (4-n%4)%4)...)
}

// nextHop is one of several of a route.
func nextHop(index int32, flags uint8, more ...[]byte) []byte {
	attributes := bytes.Join(more, nil)
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtNexthop+len(attributes)))
	b = binary.NativeEndian.AppendUint32(append(b, flags, 0), uint32(index))
	return append(b, attributes...)
}

func routeMessage(head unix.RtMsg, more ...[]byte) []byte {
	return message(unix.RTM_NEWROUTE, head, bytes.Join(more, nil))
}

// readRoutes reads one batch of a dump as dumpHops does.
func readRoutes(b []byte, attached ...netip.Prefix) (hops []hop, done bool, err error) {
	done, err = readDump(b, func(m syscall.NetlinkMessage) error {
		if m.Header.Type != unix.RTM_NEWROUTE {
			return nil
		}
		of, err := readHops(m.Data, within(attached))
		hops = append(hops, of...)
		return err
	})
	return hops, done, err
}

func TestDefaultRoutesOfAllTables(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.20.0.1"), netip.MustParseAddr("fe80::1")
	unicast := unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
	with := func(change func(*unix.RtMsg)) unix.RtMsg {
		head := unicast
		change(&head)
		return head
	}
	out, gateway := attribute(unix.RTA_OIF, int32(2)), attribute(unix.RTA_GATEWAY, v4.AsSlice())
	network, attached := netip.MustParsePrefix("10.20.7.0/24"), netip.MustParsePrefix("10.20.0.9/16")
	to := func(head unix.RtMsg, n netip.Prefix, more ...[]byte) []byte {
		head.Dst_len = uint8(n.Bits())
		return routeMessage(head, append(more, attribute(unix.RTA_DST, n.Addr().AsSlice()))...)
	}
	plain := hop{2, Route{Table: 254, Gateway: v4, Live: true}}
	for name, c := range map[string]struct {
		message []byte
		want    []hop
	}{
		"default":           {routeMessage(unicast, gateway, out), []hop{plain}},
		"default on a link": {routeMessage(unicast, out), []hop{{2, Route{Table: 254, Live: true}}}},
		"another table": {routeMessage(with(func(h *unix.RtMsg) { h.Table = unix.RT_TABLE_COMPAT }), attribute(unix.RTA_TABLE, uint32(51820)), gateway, out),
			[]hop{{2, Route{Table: 51820, Gateway: v4, Live: true}}}},
		"a backup, in IPv6": {routeMessage(with(func(h *unix.RtMsg) { h.Family = unix.AF_INET6 }), attribute(unix.RTA_PRIORITY, uint32(1024)),
			attribute(unix.RTA_GATEWAY, v6.AsSlice()), out), []hop{{2, Route{Table: 254, IPv6: true, Metric: 1024, Gateway: v6, Live: true}}}},
		"behind IPv6":      {routeMessage(unicast, attribute(unix.RTA_VIA, uint16(unix.AF_INET6), v6.AsSlice()), out), []hop{{2, Route{Table: 254, Gateway: v6, Live: true}}}},
		"half of a VPN":    {routeMessage(with(func(h *unix.RtMsg) { h.Dst_len = 1 }), attribute(unix.RTA_DST, [4]byte{128}), out), []hop{{2, Route{Table: 254, Live: true}}}},
		"its cable is out": {routeMessage(with(func(h *unix.RtMsg) { h.Flags = unix.RTNH_F_LINKDOWN }), out), []hop{{2, Route{Table: 254}}}},
		"two next hops": {routeMessage(unicast, attribute(unix.RTA_MULTIPATH, nextHop(2, 0, gateway), nextHop(3, unix.RTNH_F_DEAD))),
			[]hop{plain, {3, Route{Table: 254}}}},
		"by an advertisement": {routeMessage(with(func(h *unix.RtMsg) { h.Family, h.Protocol = unix.AF_INET6, unix.RTPROT_RA }), attribute(unix.RTA_GATEWAY, v6.AsSlice()), out),
			[]hop{{2, Route{Table: 254, IPv6: true, Gateway: v6, Live: true, Advertised: true}}}},
		"a part of what is attached": {to(unicast, network, gateway, out), []hop{{2, Route{To: network, Table: 254, Gateway: v4, Live: true}}}},
		"what is attached":           {to(unicast, attached.Masked(), out), []hop{{2, Route{To: attached.Masked(), Table: 254, Live: true}}}},
		"more than what is attached": {to(unicast, netip.MustParsePrefix("10.0.0.0/8"), gateway, out), nil},
		"another network":            {to(unicast, netip.MustParsePrefix("10.21.0.0/24"), gateway, out), nil},
		"an address of its own":      {to(with(func(h *unix.RtMsg) { h.Type = unix.RTN_LOCAL }), network, out), nil},
		"a network without a number": {routeMessage(with(func(h *unix.RtMsg) { h.Dst_len = 24 }), out), nil},
		"unreachable":                {routeMessage(with(func(h *unix.RtMsg) { h.Type = unix.RTN_UNREACHABLE })), nil},
		"another family":             {routeMessage(with(func(h *unix.RtMsg) { h.Family = unix.AF_MPLS }), out), nil},
		"head cut off":               {message(unix.RTM_NEWROUTE, uint32(0)), nil},
		"no message about a route":   {linkMessage(unix.RTM_NEWLINK, 2, carrier), nil},
	} {
		got, done, err := readRoutes(c.message, attached)
		if err != nil || done || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, %v; want %v", name, got, done, err, c.want)
		}
	}
	for name, b := range map[string][]byte{
		"no interface":              routeMessage(unicast, gateway),
		"next hop of no interface":  routeMessage(unicast, attribute(unix.RTA_MULTIPATH, nextHop(0, 0))),
		"next hop longer than all":  routeMessage(unicast, attribute(unix.RTA_MULTIPATH, []byte{200, 200, 0, 0, 2, 0, 0, 0})),
		"next hop of no length":     routeMessage(unicast, attribute(unix.RTA_MULTIPATH, make([]byte, 8))),
		"the kernel refuses":        message(unix.NLMSG_ERROR, uint32(1)),
		"no message":                []byte("no message, but long enough"),
		"the tables have changed":   interrupted(routeMessage(unicast, gateway, out)),
		"they have changed, at end": interrupted(message(unix.NLMSG_DONE, uint32(0))),
	} {
		if got, done, err := readRoutes(b); err == nil || done || got != nil {
			t.Errorf("%s: %v, %v, %v; want an error", name, got, done, err)
		}
	}
	got, done, err := readRoutes(append(routeMessage(unicast, gateway, out), message(unix.NLMSG_DONE, uint32(0))...))
	if err != nil || !done || !slices.Equal(got, []hop{plain}) {
		t.Errorf("with the end: %v, %v, %v", got, done, err)
	}
}

// interrupted sets a message's flag that says that the dump may lack something.
func interrupted(b []byte) []byte {
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_DUMP_INTR)
	return b
}

func TestAnotherWayOutIsToldOnce(t *testing.T) {
	first := Route{Interface: "eth0", Table: 254, Gateway: netip.MustParseAddr("10.20.0.1"), Live: true}
	second := Route{Interface: "wwan0", Table: 254, Metric: 500, Live: true}
	dead, moved, other := first, first, first
	dead.Live, moved.Gateway, other.Table = false, netip.MustParseAddr("10.20.0.254"), 100
	w := ways{}
	for i, step := range []struct {
		routes []Route
		want   bool
	}{
		{[]Route{first}, true}, // the first look is of the watcher's own
		{[]Route{first}, false},
		{[]Route{first, second}, true},
		{[]Route{second, first}, false},
		{[]Route{dead, second}, true}, // the first one has lost its carrier
		{[]Route{second}, false},
		{nil, false}, // nothing leads out: there is nothing to try
		{[]Route{second}, true},
		{[]Route{moved}, true},
		{[]Route{other}, true},
		{[]Route{dead}, false},
	} {
		if got := w.changed(step.routes); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestMessagesThatMayChangeTheWayOut(t *testing.T) {
	route := unix.RtMsg{Family: unix.AF_INET, Type: unix.RTN_UNICAST}
	network := route
	network.Dst_len = 24
	for name, c := range map[string]struct {
		message []byte
		want    bool
	}{
		"link":          {linkMessage(unix.RTM_NEWLINK, 2, 0), true},
		"address":       {addrMessage(unix.RTM_DELADDR, "192.0.2.7"), true},
		"default route": {message(unix.RTM_DELROUTE, route), true},
		"other route":   {routeMessage(network), false},
		"damaged":       {[]byte("no message, but long enough"), true},
	} {
		if got := mayChangeWays(c.message); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What the real kernel tells depends on the machine.
func TestThisMachineTellsItsRoutes(t *testing.T) {
	b := New()
	before, err := b.Routes()
	if err != nil && !errors.Is(err, errInterrupted) {
		t.Fatal(err)
	}
	for _, r := range before {
		if r.Interface == "" || r.Table == 0 {
			t.Errorf("%+v", r)
		}
	}
}

func FuzzRouteMessage(f *testing.F) {
	head := unix.RtMsg{Family: unix.AF_INET, Type: unix.RTN_UNICAST}
	f.Add(routeMessage(head, attribute(unix.RTA_OIF, int32(2)), attribute(unix.RTA_GATEWAY, [4]byte{10, 20, 0, 1})))
	f.Add(routeMessage(head, attribute(unix.RTA_MULTIPATH, nextHop(2, 0), nextHop(3, 1))))
	f.Add(message(unix.NLMSG_DONE, uint32(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		hops, _, err := readRoutes(b, netip.MustParsePrefix("10.20.0.0/16"))
		if err != nil && hops != nil || len(hops) > len(b) {
			t.Fatalf("%d routes of %d bytes, %v", len(hops), len(b), err)
		}
		for _, h := range hops {
			if h.index == 0 {
				t.Fatal("a route without an interface")
			}
		}
		mayChangeWays(b)
	})
}
