package agent

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board"
	"hawser/board/boardtest"
)

// up is an interface as "NAME[ KIND[ master=NAME][ lower=NAME]]".
func up(words string, list ...string) board.Interface {
	w := strings.Fields(words)
	i := board.Interface{Name: w[0], Up: true}
	for _, word := range w[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "master":
			i.Master = value
		case "lower":
			i.Lower = value
		default:
			i.Kind = key
		}
	}
	for _, s := range list {
		i.Prefixes = append(i.Prefixes, netip.MustParsePrefix(s))
	}
	return i
}

func by(name string) board.Route { return board.Route{Interface: name, Table: 254, Live: true} }

func advertised(name string) board.Route {
	return board.Route{Interface: name, Table: 254, Live: true, IPv6: true, Advertised: true}
}

func to(network, name string) board.Route {
	return board.Route{Interface: name, To: netip.MustParsePrefix(network), Table: 254, Live: true}
}

// On the real machine this is shown by L-policy, as far as its kernel has such interfaces.
func TestDefaultPolicy(t *testing.T) {
	lo := up("lo", "127.0.0.1/8", "::1/128")
	lo.Loopback = true
	down := func(i board.Interface) board.Interface { i.Up = false; return i }
	tunnel := func(i board.Interface) board.Interface { i.PointToPoint = true; return i }
	wan, lan := up("wan0", "198.51.100.7/24", "fe80::7/64"), up("lan0", "192.168.10.1/24", "2001:db8:10::1/64", "fe80::1/64")
	some := func(more ...board.Interface) []board.Interface {
		return append([]board.Interface{lo, wan, lan}, more...)
	}
	out := []board.Route{by("wan0")}
	for name, tt := range map[string]struct {
		all     []board.Interface
		routes  []board.Route
		were    string // uplinks of before
		yes, no string // addresses
	}{
		"LAN and uplink": {some(), out, "",
			"192.168.10.20 192.168.10.2 192.168.10.254 2001:db8:10::20 ::ffff:192.168.10.20",
			"192.168.10.1 2001:db8:10::1 ::ffff:192.168.10.1 198.51.100.7 198.51.100.8 192.168.10.0 192.168.10.255 2001:db8:10:: 192.168.11.1 " +
				"127.0.0.1 127.8.8.8 ::1 ::ffff:127.0.0.1 169.254.169.254 fe80::1 fe80::1%lan0 2001:db8:10::20%lan0 224.0.0.1 ff02::1 0.0.0.0 :: 255.255.255.255 203.0.113.1"},
		"an uplink without its default route": {some(), nil, "wan0", "192.168.10.20", "198.51.100.8"},
		"no uplink yet":                       {some(), nil, "", "192.168.10.20 198.51.100.8", "198.51.100.7"},
		"an uplink in another table":          {some(), []board.Route{{Interface: "wan0", Table: 100, Live: true}}, "", "192.168.10.20", "198.51.100.8"},
		"an uplink whose cable is out":        {some(), []board.Route{{Interface: "wan0", Table: 254}}, "", "192.168.10.20", "198.51.100.8"},
		"an advertisement on the LAN":         {some(), []board.Route{by("wan0"), advertised("lan0")}, "", "192.168.10.20 2001:db8:10::20", "198.51.100.8"},
		"an advertisement alone":              {some(), []board.Route{advertised("wan0")}, "", "192.168.10.20", "198.51.100.8"},
		"advertisements everywhere":           {some(), []board.Route{advertised("wan0"), advertised("lan0")}, "", "", "192.168.10.20 198.51.100.8"},
		"an uplink of IPv6 only": {[]board.Interface{lo, up("wan0", "2001:db8:99::7/64", "169.254.3.3/16"), lan}, []board.Route{advertised("wan0"), advertised("lan0")}, "",
			"192.168.10.20 2001:db8:10::20", "2001:db8:99::8"},
		"a second uplink of IPv6 only": {some(up("wan1", "2001:db8:99::7/64")), []board.Route{by("wan0"), advertised("wan1")}, "", "192.168.10.20", "2001:db8:99::8"},
		"docker": {some(up("docker0 bridge", "172.17.0.1/16"), up("veth1 veth master=docker0", "172.17.9.1/24"), up("br-0a1b bridge", "172.18.0.1/16")), out, "",
			"192.168.10.20", "172.17.0.1 172.17.0.2 172.17.9.2 172.18.0.2"},
		"a docker bridge that got a card": {some(up("docker0 bridge", "172.17.0.1/16"), up("eth3 master=docker0")), out, "", "192.168.10.20", "172.17.0.2"},
		"a bridge of cards and of nothing": {some(up("br-lan bridge", "10.1.0.1/24"), up("lan1 dsa master=br-lan"), up("br1 bridge", "10.2.0.1/24"), up("veth1 veth master=br1"),
			up("br2 bridge", "10.3.0.1/24")), out, "", "10.1.0.2 192.168.10.20", "10.1.0.1 10.2.0.2 10.3.0.2"},
		"a bridge of a bond":        {some(up("br-lan bridge", "10.1.0.1/24"), up("bond0 bond master=br-lan"), up("eth5 master=bond0")), out, "", "10.1.0.2", ""},
		"a bridge in a circle":      {some(up("a bridge master=b", "10.1.0.1/24"), up("b bridge master=a")), out, "", "192.168.10.20", "10.1.0.2"},
		"tunnels":                   {some(up("tun0 tun", "10.8.0.1/24"), up("tap0 tun", "10.9.0.1/24"), up("wg0 wireguard", "10.10.0.1/24")), out, "", "", "10.8.0.2 10.9.0.2 10.10.0.2"},
		"a modem":                   {some(tunnel(up("ppp0", "10.64.0.1/24"))), out, "", "", "10.64.0.2"},
		"an unknown kind":           {some(up("x0 xfrm", "10.8.0.1/24")), out, "", "192.168.10.20", "10.8.0.2"},
		"an interface that is down": {some(down(up("lan1", "10.1.0.1/24"))), out, "", "", "10.1.0.1 10.1.0.2"},
		"a vlan of the uplink's card": {some(up("wan0.5 vlan lower=wan0", "10.5.0.1/24"), up("v0 vlan lower=veth0", "10.6.0.1/24"), up("veth0 veth")), out, "",
			"10.5.0.2", "10.6.0.2 198.51.100.8"},
		"a macvlan of the uplink": {some(up("mac0 macvlan lower=wan0", "198.51.100.9/25"), up("mac1 macvlan lower=lan0", "10.7.0.1/24")), out, "", "10.7.0.2", "198.51.100.10"},
		"in a container": {[]board.Interface{lo, up("eth0 veth", "172.17.0.2/16"), up("eth1 veth", "192.168.10.9/24"), up("net2 macvlan", "10.7.0.9/24"), up("docker0 bridge", "172.30.0.1/16"),
			up("br-1 bridge", "172.31.0.1/16"), up("veth2 veth master=br-1")}, []board.Route{by("eth0")}, "", "192.168.10.20 10.7.0.2", "172.17.0.3 172.30.0.2 172.31.0.2"},
		"the uplink's network is a part of the LAN's":      {[]board.Interface{lo, up("wan0", "10.9.0.2/24"), up("lan0", "10.0.0.1/8")}, out, "", "10.1.2.3 10.9.1.1", "10.9.0.2 10.9.0.77"},
		"the LAN's network is a part of the uplink's":      {[]board.Interface{lo, up("wan0", "10.0.0.2/8"), up("lan0", "10.9.0.1/24")}, out, "", "10.9.0.77", "10.1.2.3"},
		"both have the same network":                       {[]board.Interface{lo, up("lan0", "192.168.1.1/24"), up("wan0", "192.168.1.2/24")}, out, "", "", "192.168.1.77"},
		"a part of the LAN's network is behind the uplink": {[]board.Interface{lo, up("lan0", "10.0.0.1/8"), wan}, []board.Route{by("wan0"), to("10.20.0.0/16", "wan0"), to("10.30.0.0/16", "lan0")}, "", "10.19.0.1 10.30.0.1", "10.20.0.1"},
		"a part of the LAN's network is behind a tunnel":   {[]board.Interface{lo, up("lan0", "10.0.0.1/8"), wan, up("tun0 tun", "10.8.0.1/32")}, []board.Route{by("wan0"), to("10.8.0.0/24", "tun0")}, "", "10.9.0.1", "10.8.0.1 10.8.0.2"},
		"networks of no machines":                          {some(up("odd0", "10.5.5.5/32", "0.0.0.0/0", "127.0.0.2/8", "10.6.0.0/31", "10.6.1.1/30")), out, "", "10.6.0.1 10.6.1.2", "10.5.5.5 203.0.113.1 10.6.0.0 10.6.1.0 10.6.1.3"},
		"nothing":                                          {nil, nil, "", "", "192.168.10.20 127.0.0.1"},
	} {
		s := Surroundings{Interfaces: tt.all, Routes: tt.routes, Routed: true, Uplinks: map[string]bool{}}
		for name := range strings.FieldsSeq(tt.were) {
			s.Uplinks[name] = true
		}
		p := NewPolicy(nil, s)
		s.Routed = false
		unrouted := NewPolicy(nil, s)
		for want, list := range map[bool]string{true: tt.yes, false: tt.no} {
			for a := range strings.FieldsSeq(list) {
				target := netip.AddrPortFrom(netip.MustParseAddr(a), 502)
				if got, why := p.Judge(target); got != want || why == "" {
					t.Errorf("%s: %s allowed: %v, %s", name, a, got, why)
				}
				if p.Allows(netip.AddrPortFrom(target.Addr(), 0)) || unrouted.Allows(target) {
					t.Errorf("%s: %s is allowed on port 0, or without routes", name, a)
				}
			}
		}
	}
}

func TestUplinksAreRemembered(t *testing.T) {
	step := func(routes ...board.Route) Surroundings {
		return Surroundings{Routed: true, Routes: routes, Interfaces: []board.Interface{up("wan0", "10.1.0.2/24"), up("wwan0", "10.2.0.2/24"), up("lan0", "10.3.0.1/24"), up("v6", "2001:db8::1/64")}}
	}
	var l lookout
	for i, c := range []struct {
		s    Surroundings
		want string
	}{
		{step(), ""},
		{step(advertised("lan0")), ""}, // before the uplink has its lease
		{step(by("wan0")), "wan0"},
		{step(), "wan0"},
		{step(by("wwan0"), advertised("lan0")), "wan0 wwan0"},
		{step(advertised("v6")), "wan0 wwan0 v6"},
		{Surroundings{}, "wan0 wwan0 v6"}, // the interfaces are gone, or cannot be read
	} {
		want := map[string]bool{}
		for name := range strings.FieldsSeq(c.want) {
			want[name] = true
		}
		b := boardtest.New(time.Now())
		b.Interfaces = func() ([]board.Interface, error) { return c.s.Interfaces, nil }
		b.Routes = func() ([]board.Route, error) { return c.s.Routes, nil }
		if s, err := l.look(b, 0); !maps.Equal(s.Uplinks, want) || err != nil {
			t.Errorf("step %d: %v, %v; want %v", i, s.Uplinks, err, want)
		}
	}
}

func TestTheMachineIsAskedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := boardtest.New(time.Now())
		asked, routes := 0, b.Routes
		broken := error(nil)
		b.Routes = func() ([]board.Route, error) {
			asked++
			if broken != nil {
				return nil, broken
			}
			return routes()
		}
		var l lookout
		for i, step := range []struct {
			after, fresh time.Duration
			broken       error
			asked        int
		}{
			{0, time.Second, nil, 1}, {999 * time.Millisecond, time.Second, nil, 1}, {time.Millisecond, time.Second, nil, 2}, {0, 0, nil, 3},
			{time.Second, time.Second, errors.New("no netlink"), 4}, {0, time.Second, nil, 5}, // an error is not kept
		} {
			time.Sleep(step.after)
			broken = step.broken
			s, err := l.look(b, step.fresh)
			if asked != step.asked || !errors.Is(err, step.broken) || s.Routed != (err == nil) || !s.Uplinks["wan0"] {
				t.Errorf("step %d: asked %d times, %+v, %v", i, asked, s, err)
			}
		}
	})
}

func TestWhatCannotBeReadIsNotOpened(t *testing.T) {
	broken := errors.New("no netlink")
	target := netip.MustParseAddrPort("192.168.10.20:502")
	for name, fail := range map[string]func(*board.Board){
		"routes":     func(b *board.Board) { b.Routes = func() ([]board.Route, error) { return nil, broken } },
		"interfaces": func(b *board.Board) { b.Interfaces = func() ([]board.Interface, error) { return nil, broken } },
	} {
		b := boardtest.New(time.Now())
		fail(b)
		s, err := Around(b)
		if !errors.Is(err, broken) || NewPolicy(nil, s).Allows(target) {
			t.Errorf("%s: %v", name, err)
		}
		// What the gateway has for itself stays its own.
		if p := NewPolicy(rules(t, "192.168.10.0/24:*", "192.168.10.20:502"), s); !p.Allows(target) || p.Allows(netip.MustParseAddrPort("192.168.10.1:22")) {
			t.Errorf("%s: rules are judged in another way", name)
		}
	}
}
