package board

import (
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// Where DHCP clients store the site's time servers (DHCP option 42): a file that the image's udhcpc script writes, with
// one address a line, and the lease files of systemd-networkd, with a line NTP=.
const (
	ntpFile   = "run/hawser/ntp"
	ntpLeases = "run/systemd/netif/leases/*"
)

// maxTimeServers bounds what TimeServers returns; the site must not have the majority (time §6.2).
const maxTimeServers = 2

// TimeServers returns the time servers from the site's DHCP, as far as they are known: at most 2, those of the first
// network first. It takes addresses only, and none that no server can have. Each call reads the files again. Addresses
// only, since whoever gives the lease gives the DNS too, and a name could be another server at each look-up.
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
