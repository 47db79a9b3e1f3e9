package board

import (
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// Where a DHCP client leaves the time servers that the site named (DHCP option 42): a file that the image's udhcpc script
// writes, one address a line, and what systemd-networkd notes of each lease, on a line NTP=.
const (
	ntpFile   = "run/hawser/ntp"
	ntpLeases = "run/systemd/netif/leases/*"
)

// maxTimeServers bounds what TimeServers returns: the site has a say, and no majority (time §6.2).
const maxTimeServers = 2

// TimeServers returns the time servers that the site's DHCP named, where that is known: at most 2 addresses, those of
// the first network first. Names are not taken, nor addresses that no server of a site has. It reads files anew each time.
func (b *Board) TimeServers() (list []netip.Addr) {
	text, _ := readFile(b.Root, ntpFile, maxHintFile)
	named := string(text)
	leases, _ := fs.Glob(b.Root, ntpLeases) // the pattern is well-formed
	for _, lease := range leases {
		text, _ = readFile(b.Root, lease, maxHintFile)
		_, value, _ := strings.Cut("\n"+string(text), "\nNTP=")
		value, _, _ = strings.Cut(value, "\n")
		named += " " + value
	}
	for _, word := range strings.Fields(named) {
		a, err := netip.ParseAddr(word)
		if a = a.Unmap(); err != nil || !a.IsGlobalUnicast() || a.Zone() != "" || slices.Contains(list, a) {
			continue
		}
		if list = append(list, a); len(list) == maxTimeServers {
			break
		}
	}
	return list
}
