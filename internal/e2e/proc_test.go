//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// findInMemory counts where want stands in the memory of a process that runs.
func findInMemory(t *testing.T, pid int, want []byte) (found int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	buf := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "r") {
			continue
		}
		for at := from; at < to; {
			n, err := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			found += bytes.Count(buf[:n], want)
			if err != nil || n < len(want) {
				break // a mapping that cannot be read, such as [vvar]
			}
			if at+int64(n) == to {
				break
			}
			at += int64(n - len(want) + 1)
		}
	}
	return found
}

// listening lists the TCP and UDP sockets of a process that take what comes
// from anywhere.
func listening(t *testing.T, pid int) (open []string) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("cannot list the descriptors of %d", pid)
	}
	var own []string
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.HasPrefix(target, "socket:[") {
			own = append(own, strings.Trim(strings.TrimPrefix(target, "socket:"), "[]"))
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			// sl local remote st … inode; a socket without a peer listens
			w := strings.Fields(s.Text())
			if len(w) > 9 && slices.Contains(own, w[9]) && strings.HasSuffix(w[2], ":0000") {
				open = append(open, table+" "+w[1])
			}
		}
	}
	return open
}
