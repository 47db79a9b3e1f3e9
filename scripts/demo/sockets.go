package main

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sockets are the TCP and UDP sockets of one process.
type sockets struct {
	listening []string // "tcp 127.0.0.1:443"; a UDP socket listens when it takes datagrams from anybody
	connected int
}

// String is for a line of the output.
func (s sockets) String() string {
	listening := "nothing listens"
	if len(s.listening) > 0 {
		listening = "listens on " + strings.Join(s.listening, ", ")
	}
	return fmt.Sprintf("%s; connections: %d", listening, s.connected)
}

// socketsOf reads them from /proc: the process's descriptors name inodes, and the tables of its network name their
// state. The process must be the caller's own.
func socketsOf(pid int) (s sockets, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	inodes, err := inodesOf(filepath.Join(proc, "fd"))
	if err != nil {
		return s, fmt.Errorf("list descriptors: %w", err)
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(filepath.Join(proc, "net", table))
		if os.IsNotExist(err) && strings.HasSuffix(table, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return s, fmt.Errorf("read sockets: %w", err)
		}
		if err := s.add(table, string(b), inodes); err != nil {
			return s, fmt.Errorf("read /proc/net/%s: %w", table, err)
		}
	}
	slices.Sort(s.listening)
	return s, nil
}

// inodesOf returns the inodes of the sockets among the links in a directory of descriptors.
func inodesOf(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed in between
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes, nil
}

// add takes the rows of a table that belong to inodes. Columns and states are those of proc(5) and the kernel's
// tcp_states.h.
func (s *sockets) add(table, text string, inodes map[string]bool) error {
	const (
		local, state, inode = 1, 3, 9
		listen, unconnected = "0A", "07" // LISTEN; what UDP shows for a socket with no peer
	)
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) <= inode || !inodes[f[inode]] {
			continue // the heading, or another process's
		}
		wanted := listen
		if strings.HasPrefix(table, "udp") {
			wanted = unconnected
		}
		if f[state] != wanted {
			s.connected++
			continue
		}
		a, err := parseHexAddr(f[local])
		if err != nil {
			return err
		}
		s.listening = append(s.listening, strings.TrimSuffix(table, "6")+" "+a.String())
	}
	return nil
}

// parseHexAddr reads "0100007F:01BB": 32-bit words of a little-endian machine, then the port. On a big-endian machine
// the address would be printed the wrong way round, and the verdict would still be right.
func parseHexAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err1 := hex.DecodeString(host)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err1 != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q: want HEX:HEX", s)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}
