//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// networks are three network namespaces without a name: the relay's, the agent's and the technician's, each of the last
// two joined to the first by a line that is late and slow on purpose. Kernels with netem could do it too; not every
// kernel has it, and what a line of our own does is the same everywhere.
type networks struct {
	relay, agent string // addresses: the relay's, as both ends dial it, and the agent's, as the relay dials it
	spaces       [3]*os.File
	lines        []*line
	running      sync.WaitGroup
}

// The two lines are networks of their own; the relay's address, which both ends dial, is on its loopback.
const relayAddr, agentAddr = "10.77.0.1", "10.77.1.2"

// newNetworks makes them. It needs the right to make namespaces, which root has.
func newNetworks(agent, client route) (*networks, error) {
	n := &networks{relay: relayAddr, agent: agentAddr}
	for i := range n.spaces {
		var err error
		if n.spaces[i], err = newSpace(); err != nil {
			return nil, errors.Join(fmt.Errorf("make a network namespace (as root?): %w", err), n.close())
		}
	}
	err := n.inside(atRelay, func() error { return setAddress("lo:1", relayAddr, 32) })
	for i, c := range []struct {
		at   site
		far  route
		near string
		own  string
	}{{atAgent, agent, "10.77.1.1", agentAddr}, {atClient, client, "10.77.2.1", "10.77.2.2"}} {
		if err == nil {
			err = n.lay(c.at, fmt.Sprintf("line%d", i), c.far, c.near, c.own)
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// newSpace makes a namespace with a loopback that is up. It lives while the file is open or a process is in it.
func newSpace() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is thrown away with its namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = setUp("lo"); err == nil {
			err = raiseBuffers()
		}
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
	}()
	<-done
	return f, err
}

// raiseBuffers lets TCP keep enough on the way for the longest line here: with the usual 4 MiB for what is sent, of
// which the kernel's own bookkeeping takes a part, TCP itself carries 72 Mbit/s at 300 ms, whoever uses it. The sizes
// with which a connection begins stay what they are: they are what waits in front of a keystroke.
func raiseBuffers() error {
	const most = "33554432"
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		file := "/proc/sys/net/ipv4/" + name
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		sizes := strings.Fields(string(text)) // least, at the begin, most
		if len(sizes) != 3 {
			return fmt.Errorf("%s: %q", file, text)
		}
		if err := os.WriteFile(file, []byte(sizes[0]+" "+sizes[1]+" "+most), 0); err != nil {
			return err
		}
	}
	return nil
}

// inside runs f on a thread that is in the namespace of a site. Sockets that f makes belong there for good.
func (n *networks) inside(at site, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(n.spaces[at].Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// listen is net.Listen at a site.
func (n *networks) listen(at site, addr string) (l net.Listener, err error) {
	err = n.inside(at, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// command prepares a program to run at a site: this program enters the namespace and becomes the other.
func (n *networks) command(ctx context.Context, at site, program string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"enter", program}, args...)...)
	cmd.ExtraFiles = []*os.File{n.spaces[at]}
	return cmd, nil
}

// enterNetwork is the first of these programs: file 3 is the namespace.
func enterNetwork(args []string) error {
	const space = 3
	if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	unix.Close(space)
	return syscall.Exec(args[0], args, os.Environ())
}

// lay lays a line from the relay to a site.
func (n *networks) lay(at site, name string, far route, near, own string) error {
	var ends [2]*os.File
	for i, e := range []struct {
		at   site
		addr string
	}{{atRelay, near}, {at, own}} {
		if err := n.inside(e.at, func() (err error) {
			if ends[i], err = openTUN(name); err != nil {
				return err
			}
			if err = setAddress(name, e.addr, 24); err == nil {
				err = setUp(name)
			}
			return err
		}); err != nil {
			return fmt.Errorf("lay %s: %w", name, err)
		}
	}
	err := n.inside(at, func() error { return addRoute(relayAddr, near) })
	if err != nil {
		return fmt.Errorf("route to the relay: %w", err)
	}
	l := newLine(ends[0], ends[1], far)
	n.lines = append(n.lines, l)
	n.running.Go(l.run)
	return nil
}

// close ends the lines. The programs in the namespaces have ended before.
func (n *networks) close() error {
	for _, l := range n.lines {
		l.close()
	}
	n.running.Wait()
	for _, f := range n.spaces {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// openTUN makes a device that gives its packets to us.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// control runs f with a socket on which a device of this namespace is configured.
func control(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func setUp(name string) error {
	return control(func(fd int) error {
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	})
}

func setAddress(name, addr string, bits int) error {
	return control(func(fd int) error {
		return errors.Join(setInet4(fd, name, unix.SIOCSIFADDR, netip.MustParseAddr(addr)),
			setInet4(fd, name, unix.SIOCSIFNETMASK, netip.AddrFrom4([4]byte(net.CIDRMask(bits, 32)))))
	})
}

func setInet4(fd int, name string, request uint, a netip.Addr) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	raw := a.As4()
	if err := req.SetInet4Addr(raw[:]); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, request, req)
}

// addRoute leads to a host by way of another, with a netlink message made by hand: the ioctl for it has no safe form in
// Go.
func addRoute(dst, via string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, routeMessage(netip.MustParseAddr(dst), netip.MustParseAddr(via)), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 4 {
		return errors.Join(errors.New("no answer to a route: "+strconv.Itoa(n)+" bytes"), err)
	}
	if code := int32(nativeUint32(messages[0].Data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
