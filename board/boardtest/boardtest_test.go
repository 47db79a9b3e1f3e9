package boardtest

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGatewayBootsAtTheWallClockItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wall := time.Unix(0, 0)
		b := New(wall)
		time.Sleep(time.Hour)
		if got := b.Now(); !got.Equal(wall.Add(time.Hour)) || b.Uptime() != time.Hour {
			t.Errorf("after an hour it is %v, up for %v", got, b.Uptime())
		}
		if n := len(b.Hints()); n != 4 {
			t.Errorf("%d hints, want all 4", n)
		}
		lan, err := b.LANPrefixes()
		want := []netip.Prefix{netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("2001:db8:10::/64")}
		if runtime.GOOS == "linux" && (err != nil || !slices.Equal(lan, want)) {
			t.Errorf("LAN %v, %v; want %v", lan, err, want)
		}
	})
}
