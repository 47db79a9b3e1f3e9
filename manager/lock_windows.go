package manager

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile waits until no other process has f locked. Closing f unlocks it, and so does the end of the process.
func lockFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, new(windows.Overlapped))
}
