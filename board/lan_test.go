package board

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestUplinksAreWhatDefaultRoutesGoOutBy(t *testing.T) {
	b := gateway()
	got, err := b.uplinks()
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"eth0": true, "wwan0": true}; !maps.Equal(got, want) {
		t.Errorf("uplinks %v, want %v", got, want)
	}
}

const heading = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"

func TestUplinks4(t *testing.T) {
	for name, c := range map[string]struct {
		table string
		want  string // names, joined; "error"
	}{
		"nothing":             {"", ""},
		"heading":             {heading, ""},
		"default":             {heading + "eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n", "eth0"},
		"default on a link":   {heading + "ppp0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n", "ppp0"},
		"halves of a VPN":     {heading + "tun0 00000000 0100080A 0003 0 0 0 00000080 0 0 0\n", "tun0"},
		"halves, big endian":  {heading + "tun0 00000000 0A080001 0003 0 0 0 80000000 0 0 0\n", "tun0"},
		"a network":           {heading + "eth1 000AA8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n", ""},
		"down":                {heading + "eth0 00000000 0100A8C0 0002 0 0 0 00000000 0 0 0\n", ""},
		"unreachable":         {heading + "* 00000000 00000000 0201 0 0 0 00000000 0 0 0\n", ""},
		"short line":          {heading + "eth0 00000000 0100A8C0 0003 0 0 0\n", "error"},
		"flags not hex":       {heading + "eth0 00000000 0100A8C0 up 0 0 0 00000000 0 0 0\n", "error"},
		"mask over 32 bits":   {heading + "eth0 00000000 0100A8C0 0003 0 0 0 100000000 0 0 0\n", "error"},
		"line in the middle":  {heading + "\neth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n", "error"},
		"heading is not read": {"eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n", ""},
	} {
		check(t, name, uplinks4, c.table, c.want)
	}
}

func TestUplinks6(t *testing.T) {
	zero := strings.Repeat("0", 32)
	line := func(length, flags, name string) string {
		return strings.Join([]string{zero, length, zero, "00", zero, "00000400", "1", "0", flags, name}, " ") + "\n"
	}
	for name, c := range map[string]struct{ table, want string }{
		"nothing":           {"", ""},
		"default":           {line("00", "00000003", "eth0"), "eth0"},
		"half":              {line("01", "00000003", "tun0"), "tun0"},
		"two":               {line("00", "00000003", "eth0") + line("40", "00000001", "eth1") + line("00", "00000003", "wwan0"), "eth0 wwan0"},
		"unreachable":       {line("00", "00200201", "lo"), ""},
		"short":             {"00 00 eth0\n", "error"},
		"length not hex":    {line("xx", "00000003", "eth0"), "error"},
		"length over 8 bit": {line("100", "00000003", "eth0"), "error"},
		"flags not hex":     {line("00", "up", "eth0"), "error"},
	} {
		check(t, name, uplinks6, c.table, c.want)
	}
}

func check(t *testing.T, name string, parse func(string, map[string]bool) error, table, want string) {
	t.Helper()
	names := make(map[string]bool)
	err := parse(table, names)
	got := strings.Join(slices.Sorted(maps.Keys(names)), " ")
	if (err != nil) != (want == "error") || err == nil && got != want {
		t.Errorf("%s: %q, %v; want %q", name, got, err, want)
	}
}

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
	}, map[string]bool{"eth0": true})
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("2001:db8:10::/64"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
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
	none := func() ([]Interface, error) { return nil, nil }
	route := text(heading)
	broken := errors.New("no netlink")
	for name, c := range map[string]struct {
		files      fstest.MapFS
		interfaces func() ([]Interface, error)
		want       error // nil: any error
	}{
		"no route table":     {fstest.MapFS{}, none, fs.ErrNotExist},
		"damaged table":      {fstest.MapFS{"proc/self/net/route": text(heading + "eth0\n")}, none, nil},
		"damaged IPv6 table": {fstest.MapFS{"proc/self/net/route": route, "proc/self/net/ipv6_route": text("x\n")}, none, nil},
		"endless table":      {fstest.MapFS{"proc/self/net/route": text(strings.Repeat("x", maxRoutes+1))}, none, nil},
		"no interfaces":      {fstest.MapFS{"proc/self/net/route": route}, func() ([]Interface, error) { return nil, broken }, broken},
	} {
		b := &Board{Root: c.files, Interfaces: c.interfaces}
		if got, err := b.LANPrefixes(); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; want an error", name, got, err)
		}
	}
	b := &Board{Root: fstest.MapFS{"proc/self/net/route": route}, Interfaces: none}
	if got, err := b.LANPrefixes(); len(got) != 0 || err != nil {
		t.Errorf("a kernel without IPv6: %v, %v", got, err)
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

// FuzzUplinks: whatever the tables hold, the names found are in them.
func FuzzUplinks(f *testing.F) {
	for _, name := range []string{"route", "ipv6_route"} {
		b, err := os.ReadFile("testdata/gateway/proc/self/net/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(heading + "eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n")
	f.Fuzz(func(t *testing.T, table string) {
		for _, parse := range []func(string, map[string]bool) error{uplinks4, uplinks6} {
			names := make(map[string]bool)
			if err := parse(table, names); err != nil {
				continue
			}
			for name := range names {
				if name == "" || !strings.Contains(table, name) {
					t.Errorf("%q is not in %q", name, table)
				}
			}
		}
	})
}
