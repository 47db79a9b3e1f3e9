package probe

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
)

// maxAdapterBytes bounds the adapter list; the system asks for a few KiB.
const maxAdapterBytes = 1 << 20

func systemHostsFile() string {
	dir, err := windows.GetSystemDirectory()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "drivers", "etc", "hosts")
}

// systemServers returns the name servers of all adapters that are up, in the
// system's order of preference.
func systemServers() []netip.AddrPort {
	var list []netip.AddrPort
	for a := adapters(); a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		for d := a.FirstDnsServerAddress; d != nil; d = d.Next {
			if addr, ok := adapterServer(a, d); ok {
				list = appendNew(list, []netip.AddrPort{netip.AddrPortFrom(addr, dnsPort)})
			}
		}
	}
	return list
}

// adapterServer reads one address, with its zone where it needs one. It drops
// fec0:0:0:ffff::1 to 3, which Windows lists when no server is set.
func adapterServer(a *windows.IpAdapterAddresses, d *windows.IpAdapterDnsServerAdapter) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(d.Address.IP())
	addr = addr.Unmap()
	if !ok || netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0xc0}), 10).Contains(addr) {
		return netip.Addr{}, false
	}
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(strconv.Itoa(int(a.Ipv6IfIndex)))
	}
	return addr, true
}

// adapters asks the system for its adapters, again while the list is larger than the
// buffer. The result points into the buffer, and keeps it alive.
func adapters() *windows.IpAdapterAddresses {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST
	for size := uint32(16 << 10); size <= maxAdapterBytes; {
		buf := make([]byte, size)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first, &size)
		if err == nil {
			return first
		}
		if !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) {
			return nil
		}
	}
	return nil
}
