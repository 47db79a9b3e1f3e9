//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// at runs f as if this program ran on a host of the lab: a socket that f makes belongs to that host for ever, whoever uses
// it. It must make them itself, so names are out: a goroutine of the resolver's would ask for them from elsewhere.
func at(host string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the host is the thread's: it is of no other use afterwards, and ends with the goroutine
		done <- enter(host, f)
	}()
	return <-done
}

// enter is at for a thread that is locked.
func enter(host string, f func() error) error {
	network, err := os.Open(filepath.Join("/run/netns", host)) // ip-netns(8)
	if err != nil {
		return err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", host, err)
	}
	return f()
}

// dialAt connects from a host to ADDRESS:PORT.
func dialAt(ctx context.Context, host, address string) (c net.Conn, err error) {
	err = at(host, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// serveAt serves ADDRESS:PORTs of a host until the test ends, whose end ends the connections. They are closed for serve.
func serveAt(t *testing.T, host string, addresses []string, serve func(net.Conn)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
	})
	for _, address := range addresses {
		var l net.Listener
		err := at(host, func() (err error) {
			l, err = net.Listen("tcp", address)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { l.Close() })
		tasks.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				tasks.Go(func() {
					defer c.Close()
					defer context.AfterFunc(ctx, func() { c.Close() })()
					serve(c)
				})
			}
		})
	}
}
