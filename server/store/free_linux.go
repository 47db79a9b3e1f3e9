package store

import (
	"fmt"
	"syscall"
)

// freeSpace returns how many bytes can be written to the file system of a directory, without root's reserve.
func freeSpace(dir string) (int64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil // 32 bits on some processors
}
