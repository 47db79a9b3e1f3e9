//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openFlags: without O_NONBLOCK a FIFO in a file's place would hang the open.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// guardDir refuses what is not a directory, or one that others may enter.
func guardDir(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return syscall.ENOTDIR
	}
	return closed(info, 0o700)
}

// private refuses an open file that others may read or write.
func private(_ *os.File, info fs.FileInfo) error { return closed(info, 0o600) }

// closed refuses a mode with any bit for group or others; want is named in the advice.
func closed(info fs.FileInfo, want fs.FileMode) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("mode %04o, change it to %04o: %w", mode, want, ErrExposed)
	}
	return nil
}

func setMode(f *os.File, perm fs.FileMode) error { return f.Chmod(perm) }

// giveToOwner gives a file that root makes to whom its directory belongs: a command that an administrator types must not
// leave a service, which is not root, with files that it cannot read.
func giveToOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var dir syscall.Stat_t
	if err := syscall.Stat(filepath.Dir(f.Name()), &dir); err != nil || dir.Uid == 0 {
		return err
	}
	return f.Chown(int(dir.Uid), int(dir.Gid))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// escapeGlob lets a directory with glob characters in its name stand for itself.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
