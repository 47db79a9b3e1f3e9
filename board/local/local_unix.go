//go:build !windows

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Listen opens the socket address, a path, with mode 0600. It makes the directory if it is missing. A socket whose
// server died is still there as a file: only a connection tells whether somebody serves it.
func Listen(address string) (net.Listener, error) {
	if err := fits(address); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(address), 0o755); err != nil {
		return nil, err
	}
	if conn, err := net.DialTimeout("unix", address, time.Second); err == nil {
		conn.Close()
		return nil, ErrTaken
	}
	if info, err := os.Lstat(address); err == nil && (info.Mode().IsRegular() || info.IsDir()) {
		return nil, errors.New("there is a file that is no socket")
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	// The umask of whoever starts the agent decides otherwise.
	if err := os.Chmod(address, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Dial connects to the server at address. The error is fs.ErrPermission if this user may not.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	if err := fits(address); err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "unix", address)
}

// fits refuses in words what the system refuses as an invalid argument. The path ends with a NUL.
func fits(address string) error {
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(address) > most {
		return fmt.Errorf("%w: the path has %d bytes, and that of a socket %d at most", ErrTooLong, len(address), most)
	}
	return nil
}

// In is the address that belongs to the state directory dir.
func In(dir string) string { return filepath.Join(dir, "agent.sock") }
