//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
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

// lookDir is guardDir, which only looks.
func lookDir(path string) error { return guardDir(path) }

// private refuses an open file that others may read or write.
func private(_ *os.File, info fs.FileInfo) error { return closed(info, 0o600) }

// trusted refuses an open file that others may write.
func trusted(_ *os.File, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("mode %04o, change it to %04o: %w", mode, mode&^0o022, ErrExposed)
	}
	return owned(info)
}

// closed refuses a mode with any bit for group or others; want is named in the advice.
func closed(info fs.FileInfo, want fs.FileMode) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("mode %04o, change it to %04o: %w", mode, want, ErrExposed)
	}
	return owned(info)
}

// firstPerson is the first number of a user who is a person: below are those of services (login.defs, UID_MIN).
const firstPerson = 1000

// owned refuses what belongs to another person, who may change it, and its mode, at any time. What a service's user owns
// is taken by root alone, who enrolls for it and looks at its files.
func owned(info fs.FileInfo) error {
	owner, self := info.Sys().(*syscall.Stat_t).Uid, uint32(os.Geteuid())
	if !mayOwn(owner, self) {
		return fmt.Errorf("it belongs to user %d, give it to root or to user %d: %w", owner, self, ErrExposed)
	}
	return nil
}

func mayOwn(owner, self uint32) bool {
	return owner == 0 || owner == self || self == 0 && owner < firstPerson
}

func setMode(f *os.File, perm fs.FileMode) error { return f.Chmod(perm) }

// giveToOwner makes a file of root belong to the owner of its directory: a command of an administrator must not leave files
// that a service, which is not root, cannot read.
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

func syncDir(d *os.File) error { return d.Sync() }

// createLocked returns the new file path, locked until it is closed. errBusy means to try again: another process writes
// it, or the file that a cut had left is gone now. It never writes into a file that exists already: in a directory such as
// /tmp, a stranger may have made it.
func createLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, removeLeft(path)
	}
	if err != nil {
		return nil, err
	}
	// Until it is locked it looks like one that a cut has left.
	if err := lock(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeLeft removes path unless a living process writes it. It returns errBusy when that is worth another try.
func removeLeft(path string) error {
	f, err := os.OpenFile(path, openFlags|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errBusy
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f, path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return errBusy
}

// lock locks f, and fails with errBusy when another has it locked or path is no longer its name: it was renamed, or
// removed, between open and lock.
func lock(f *os.File, path string) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return errBusy
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(path); err != nil || !os.SameFile(mine, named) {
		return errBusy
	}
	return nil
}
