package board

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// localNow is Board.Local on the real machine. The kernel is asked for the one route to the address: a list of addresses
// would not have those that a route makes its own.
func localNow(a netip.Addr) (bool, error) {
	a = a.Unmap()
	family := byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[1] = family, byte(a.BitLen())
	to := a.AsSlice()
	head = binary.NativeEndian.AppendUint16(head, uint16(unix.SizeofRtAttr+len(to)))
	head = binary.NativeEndian.AppendUint16(head, unix.RTA_DST)
	head = append(head, to...)
	b, err := ask(unix.RTM_GETROUTE, head)
	if err != nil {
		return false, err
	}
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil || len(messages) != 1 {
		return false, errors.Join(errNoRoute, err)
	}
	return isLocal(messages[0])
}

var errNoRoute = errors.New("the kernel does not tell the route")

// isLocal reads the answer: a route, or an error with its number (4 bytes, negative).
func isLocal(m syscall.NetlinkMessage) (bool, error) {
	switch {
	case m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg:
		return m.Data[7] == unix.RTN_LOCAL, nil
	case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
		return false, os.NewSyscallError("route", syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
	}
	return false, errNoRoute
}

// ask sends one request to the kernel, and returns what it answers.
func ask(kind uint16, body []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(int64(time.Second)) // it answers at once
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	request := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	request = binary.NativeEndian.AppendUint16(request, kind)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST)
	request = append(append(request, make([]byte, 8)...), body...) // sequence, sender
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	return buf[:n], os.NewSyscallError("recvfrom", err)
}
