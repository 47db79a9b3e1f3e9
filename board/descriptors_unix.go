//go:build unix

package board

import (
	"math"

	"golang.org/x/sys/unix"
)

// descriptors is the soft limit, which the Go runtime has raised to the hard one at the start.
func descriptors() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
