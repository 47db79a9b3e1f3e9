package manager

import (
	"net/netip"
	"testing"
	"time"

	"hawser/transport"
)

// As a Runtime's (wire §8.1): what is dialled in small searches does not make them last longer.
func TestSmallFormIsGivenUpAfterADayWhateverIsDialled(t *testing.T) {
	var g goodAddrs
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for at := time.Duration(0); at < 24*time.Hour; at += time.Hour {
		for _, host := range []string{"a", "b"} {
			for _, addr := range []string{"192.0.2.1:443", "192.0.2.2:443"} {
				g.add(transport.Candidate{Host: host, Addr: netip.MustParseAddrPort(addr), Small: true}, begun.Add(at))
			}
		}
	}
	if !g.onlySmall(begun.Add(24*time.Hour-1)) || g.onlySmall(begun.Add(24*time.Hour)) {
		t.Errorf("%+v", g.list)
	}
}
