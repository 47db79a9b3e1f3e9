package board

import (
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"testing"
)

func TestLANPrefixes(t *testing.T) {
	up := func(name string, list ...string) Interface {
		i := Interface{Name: name, Up: true}
		for _, s := range list {
			i.Prefixes = append(i.Prefixes, netip.MustParsePrefix(s))
		}
		return i
	}
	down, loop, tunnel := up("eth2", "10.2.0.1/24"), up("lo", "10.3.0.1/24"), up("tun0", "10.4.0.1/24")
	down.Up, loop.Loopback, tunnel.PointToPoint = false, true, true
	got := lanPrefixes([]Interface{
		up("eth1", "192.168.10.1/24", "fe80::1/64", "2001:db8:10::1/64", "169.254.3.4/16", "192.168.10.2/24"),
		up("eth3", "10.0.0.1/8", "127.0.0.2/8", "10.5.5.5/32", "0.0.0.0/0"),
		up("eth0", "198.51.100.7/24"),
		down, loop, tunnel,
		up("eth4", "10.20.0.2/24"), up("eth5", "10.30.0.2/24"),
	}, []Route{
		{Interface: "eth0", Table: 254, Live: true},
		{Interface: "eth4", Table: 100, Live: true}, // policy routing: the main table knows nothing of it
		{Interface: "eth5", Table: 254, IPv6: true}, // an uplink whose cable is out
	})
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("2001:db8:10::/64"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestUplinksAreLive(t *testing.T) {
	b := &Board{
		Interfaces: func() ([]Interface, error) {
			return []Interface{{Name: "eth0"}, {Name: "eth1"}, {Name: "wwan0"}, {Name: "eth2"}}, nil
		},
		Routes: func() ([]Route, error) {
			return []Route{{Interface: "wwan0", Table: 100, Live: true}, {Interface: "eth0", Live: true}, {Interface: "eth2"}}, nil
		},
	}
	got, err := b.Uplinks()
	if err != nil || len(got) != 2 || got[0].Name != "eth0" || got[1].Name != "wwan0" {
		t.Errorf("%v, %v; want eth0 and wwan0", got, err)
	}
}

// Without knowing the uplinks, the site's own network would count as LAN.
func TestLANPrefixesFailRatherThanGuess(t *testing.T) {
	if runtime.GOOS != "linux" {
		if got, err := (&Board{}).LANPrefixes(); got != nil || err != nil {
			t.Errorf("%v, %v; want none where routes are not read", got, err)
		}
		return
	}
	nobody := func() ([]Interface, error) { return nil, nil }
	none := func() ([]Route, error) { return nil, nil }
	broken := errors.New("no netlink")
	for name, b := range map[string]*Board{
		"no routes":     {Interfaces: nobody, Routes: func() ([]Route, error) { return nil, broken }},
		"no interfaces": {Interfaces: func() ([]Interface, error) { return nil, broken }, Routes: none},
	} {
		if got, err := b.LANPrefixes(); !errors.Is(err, broken) {
			t.Errorf("%s: %v, %v; want an error", name, got, err)
		}
	}
	if got, err := (&Board{Interfaces: nobody, Routes: none}).LANPrefixes(); len(got) != 0 || err != nil {
		t.Errorf("a machine without a network: %v, %v", got, err)
	}
}

func TestThisMachineHasInterfaces(t *testing.T) {
	all, err := New().Interfaces()
	if err != nil || !slices.ContainsFunc(all, func(i Interface) bool { return i.Loopback }) {
		t.Errorf("%v, %v; want at least a loopback", all, err)
	}
	if _, err := New().LANPrefixes(); err != nil {
		t.Error(err)
	}
	New().Hints()
}
