package board

import (
	"net/netip"
	"slices"
	"testing"
)

func TestUplinksAreLive(t *testing.T) {
	b := &Board{
		Interfaces: func() ([]Interface, error) {
			return []Interface{{Name: "eth0"}, {Name: "eth1"}, {Name: "wwan0"}, {Name: "eth2"}}, nil
		},
		Routes: func() ([]Route, error) {
			return []Route{{Interface: "wwan0", Table: 100, Live: true}, {Interface: "eth0", Live: true}, {Interface: "eth2"},
				{Interface: "eth1", To: netip.MustParsePrefix("10.1.0.0/16"), Live: true}}, nil
		},
	}
	got, err := b.Uplinks()
	if err != nil || len(got) != 2 || got[0].Name != "eth0" || got[1].Name != "wwan0" {
		t.Errorf("%v, %v; want eth0 and wwan0", got, err)
	}
}

func TestThisMachineHasInterfaces(t *testing.T) {
	all, err := New().Interfaces()
	if err != nil || !slices.ContainsFunc(all, func(i Interface) bool { return i.Loopback }) {
		t.Errorf("%v, %v; want at least a loopback", all, err)
	}
	if _, err := New().Routes(); err != nil {
		t.Error(err)
	}
	New().Hints()
}
