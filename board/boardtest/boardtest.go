// Package boardtest makes boards for tests: a gateway that has just booted, with its wall clock where the test wants it.
package boardtest

import (
	"net/netip"
	"testing/fstest"
	"time"

	"hawser/board"
)

// New returns a gateway that boots at this moment with its wall clock at wall; both its clocks then run with time.Now,
// which in a synctest bubble is fake. It has an uplink wan0, whose networks are not LAN, and a LAN of 192.168.10.0/24
// and 2001:db8:10::/64 on lan0. Fields may be replaced before use. LANPrefixes answers on Linux alone, as ever.
func New(wall time.Time) *board.Board {
	boot := time.Now()
	uptime := func() time.Duration { return time.Since(boot) }
	return &board.Board{
		Root:       root(),
		Now:        func() time.Time { return wall.Add(uptime()) },
		Uptime:     uptime,
		Interfaces: interfaces,
	}
}

// root is fresh each time, so that a test may add to it.
func root() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		"sys/firmware/devicetree/base/serial-number": file("0123456789abcdef\x00"),
		"sys/block/mmcblk0/device/cid":               file("150100424a4e423452073a1b2c3d4e5f\n"),
		"sys/class/net/lan0/address":                 file("02:00:00:00:00:01\n"),
		"sys/class/net/lan0/device/uevent":           file(""),
		"etc/machine-id":                             file("00112233445566778899aabbccddeeff\n"),
		"proc/self/net/route": file("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
			"wan0\t00000000\t0100007F\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
			"lan0\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"),
	}
}

func interfaces() ([]board.Interface, error) {
	return []board.Interface{
		{Name: "lo", Up: true, Loopback: true, Prefixes: prefixes("127.0.0.1/8", "::1/128")},
		{Name: "wan0", Up: true, Prefixes: prefixes("198.51.100.7/24", "fe80::7/64")},
		{Name: "lan0", Up: true, Prefixes: prefixes("192.168.10.1/24", "2001:db8:10::1/64", "fe80::1/64")},
	}, nil
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
