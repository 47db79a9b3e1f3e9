package board

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKindsOfInterfaces(t *testing.T) {
	kind := func(s string) []byte {
		return attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte(s+"\x00")))
	}
	name := attribute(unix.IFLA_IFNAME, []byte("lan0\x00"))
	for what, c := range map[string]struct {
		attributes [][]byte
		want       link
	}{
		"hardware":             {[][]byte{name}, link{name: "lan0"}},
		"port of a bridge":     {[][]byte{attribute(unix.IFLA_MASTER, int32(7)), name}, link{name: "lan0", master: 7}},
		"vlan":                 {[][]byte{name, attribute(unix.IFLA_LINK, int32(2)), kind("vlan")}, link{name: "lan0", kind: "vlan", lower: 2}},
		"of another namespace": {[][]byte{attribute(unix.IFLA_LINK_NETNSID, int32(0)), attribute(unix.IFLA_LINK, int32(2)), kind("veth")}, link{kind: "veth"}},
		"cut off":              {[][]byte{name[:7]}, link{}},
		"number of no size":    {[][]byte{attribute(unix.IFLA_MASTER, int16(7)), name}, link{name: "lan0"}},
	} {
		if got := parseLink(bytes.Join(c.attributes, nil)); got != c.want {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte("bridge"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := parseLink(b); len(got.name)+len(got.kind) > len(b) {
			t.Errorf("%+v of %d bytes", got, len(b))
		}
	})
}

func TestTheLoopbackOfThisMachineIsNoVirtualKind(t *testing.T) {
	all, err := interfaces()
	if err != nil || !slices.ContainsFunc(all, func(i Interface) bool { return i.Loopback && i.Kind == "" && i.Master == "" }) {
		t.Errorf("%+v, %v", all, err)
	}
}
