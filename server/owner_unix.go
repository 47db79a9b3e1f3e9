//go:build unix

package server

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner refuses to work as root on the directory of a service that has a user of its own: what root writes into a
// store, that user cannot read.
func checkOwner(dir string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, and root would leave it files that it cannot read: run this as that user", dir, stat.Uid)
	}
	return nil
}

// giveBack gives a file that was replaced to the user and the group of the one before.
func giveBack(path string, before fs.FileInfo) error {
	stat, ok := before.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(stat.Uid), int(stat.Gid))
}
