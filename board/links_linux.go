package board

import (
	"bytes"
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// readLinks asks the kernel what its interfaces are made of, by index. It is asked and not /sys, which shows another
// network namespace than the agent's when a container did not mount its own.
func readLinks() (links map[int]link, err error) {
	err = dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func() { links = map[int]link{} }, func(m syscall.NetlinkMessage) error {
		if m.Header.Type == unix.RTM_NEWLINK && len(m.Data) >= unix.SizeofIfInfomsg {
			links[int(int32(binary.NativeEndian.Uint32(m.Data[4:])))] = parseLink(m.Data[unix.SizeofIfInfomsg:])
		}
		return nil
	})
	return links, err
}

// parseLink reads the attributes of a link message.
func parseLink(b []byte) (l link) {
	elsewhere := false
	for kind, value := range attributes(b) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = cString(value)
		case unix.IFLA_MASTER:
			l.master = index(value)
		case unix.IFLA_LINK:
			l.lower = index(value)
		case unix.IFLA_LINK_NETNSID: // the number is of another namespace, and here another interface may have it
			elsewhere = true
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_INFO_KIND {
					l.kind = cString(value)
				}
			}
		}
	}
	if elsewhere {
		l.lower = 0
	}
	return l
}

func index(b []byte) int {
	if len(b) != 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(b)))
}

// cString is a string that may have a NUL at its end.
func cString(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }
