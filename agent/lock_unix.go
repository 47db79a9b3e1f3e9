//go:build unix

package agent

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockDir locks the directory itself: it needs no file, and no right to write one. The kernel drops the lock with its
// process, however that ends.
func lockDir(dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, err
	}
	return d, nil
}
