//go:build unix

package manager

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile waits until no other process has f locked. Closing f unlocks it, and so does the end of the process. It is
// the kernel's lock and not a file that is there or not: a program that was killed leaves nothing to clean up.
func lockFile(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
