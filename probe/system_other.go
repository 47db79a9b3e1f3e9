//go:build !windows

package probe

import "net/netip"

func systemHostsFile() string { return "/etc/hosts" }

func systemServers() []netip.AddrPort { return readResolvConf("/etc/resolv.conf") }
