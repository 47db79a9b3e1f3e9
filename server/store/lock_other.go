//go:build !unix

package store

import (
	"io"
	"os"
	"path/filepath"
)

// lockDir opens a file of dir for the store's life. Here that keeps nobody out:
// the servers are built for Linux, and this file for compilers elsewhere.
func lockDir(dir string) (io.Closer, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
}
