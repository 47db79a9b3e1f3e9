package probe

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Files are read to this length: a hosts file may be a long block list.
const (
	maxHostsBytes  = 4 << 20
	maxResolvBytes = 64 << 10
	dnsPort        = 53
)

// ServersInUse returns the resolvers that are asked. The system's are looked up each time, because they change with the
// network. tailscale/tailscale#6110 and #14902 are what becomes of a resolver that keeps a stale resolv.conf.
func (r *Resolver) ServersInUse() []netip.AddrPort {
	list := r.Servers
	switch {
	case len(list) > 0:
	case r.ResolvConf != "":
		list = readResolvConf(r.ResolvConf)
	default:
		list = systemServers()
	}
	return list[:min(len(list), maxServers)]
}

func (r *Resolver) hostsFile() string {
	if r.HostsFile != "" {
		return r.HostsFile
	}
	return systemHostsFile()
}

// readResolvConf returns the name servers of a resolv.conf(5), or none if it cannot be read: the caller then reports that
// there is no resolver. Its search list is left out: our names are whole (names §1), and a list would send each of them
// to a stranger's domain first.
func readResolvConf(path string) []netip.AddrPort {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	conf, err := dns.ClientConfigFromReader(io.LimitReader(f, maxResolvBytes))
	if err != nil {
		return nil
	}
	var list []netip.AddrPort
	for _, s := range conf.Servers {
		if addr, err := netip.ParseAddr(s); err == nil {
			list = appendNew(list, []netip.AddrPort{netip.AddrPortFrom(addr, dnsPort)})
		}
	}
	return list
}

// lookupHosts returns the addresses that the hosts file gives to name. A file that cannot be read gives none, and no
// error: the resolvers are asked anyway.
func lookupHosts(path, name string) []netip.Addr {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var addrs []netip.Addr
	lines := bufio.NewScanner(io.LimitReader(f, maxHostsBytes))
	for lines.Scan() && len(addrs) < maxAddrs {
		if addr, ok := hostsLine(lines.Text(), name); ok {
			addrs = appendNew(addrs, []netip.Addr{addr})
		}
	}
	return addrs
}

// hostsLine returns the address of a hosts(5) line that lists name.
func hostsLine(line, name string) (netip.Addr, bool) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if len(fields) < 2 || !slices.ContainsFunc(fields[1:], func(f string) bool {
		return strings.EqualFold(strings.TrimSuffix(f, "."), name)
	}) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(fields[0])
	return addr.Unmap(), err == nil
}
