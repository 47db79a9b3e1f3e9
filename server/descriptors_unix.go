//go:build unix

package server

import "syscall"

// descriptors is how many descriptors this process may open. Go has raised the soft limit to the hard one. 0: it cannot
// be known.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), mostDescriptors))
}

// mostDescriptors is more than any share is taken of; the system's "no limit" does not fit an int everywhere.
const mostDescriptors = 1 << 24
