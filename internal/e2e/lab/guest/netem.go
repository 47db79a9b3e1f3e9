//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

// Of rtnetlink(7) and the kernel's pkt_sched.h.
const (
	rootHandle     = 0xffffffff
	attrKind       = 1 // TCA_KIND
	attrOptions    = 2 // TCA_OPTIONS
	attrLatency64  = 10
	netemQueue     = 1000 // packets
	qdiscRequest   = 36   // RTM_NEWQDISC
	createOrChange = syscall.NLM_F_REQUEST | syscall.NLM_F_ACK | syscall.NLM_F_CREATE | syscall.NLM_F_REPLACE
)

// netem is `tc qdisc replace dev DEV root netem delay DELAY loss LOSS%`, without tc and the libraries it needs, which
// the image does not have.
func netem(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("want DEV DELAY LOSS, not %q", args)
	}
	dev, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	delay, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	percent, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	var options []byte // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter
	for _, v := range []uint32{0, netemQueue, uint32(percent / 100 * (1<<32 - 1)), 0, 0, 0} {
		options = binary.NativeEndian.AppendUint32(options, v)
	}
	options = append(options, attribute(attrLatency64, binary.NativeEndian.AppendUint64(nil, uint64(delay)))...)
	body := binary.NativeEndian.AppendUint32(nil, 0) // struct tcmsg: family, index, handle, parent, info
	for _, v := range []uint32{uint32(dev.Index), 0, rootHandle, 0} {
		body = binary.NativeEndian.AppendUint32(body, v)
	}
	body = append(body, attribute(attrKind, []byte("netem\x00"))...)
	return request(qdiscRequest, append(body, attribute(attrOptions, options)...))
}

// attribute is one of rtnetlink's, filled up to four bytes.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// request sends one message to the kernel and waits for its yes.
func request(kind uint16, body []byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	message := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, createOrChange)
	message = append(message, make([]byte, 8)...) // sequence, port
	if err := syscall.Sendto(fd, append(message, body...), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, answer, 0)
	if err != nil || n < syscall.NLMSG_HDRLEN+4 {
		return fmt.Errorf("read answer of %d bytes: %w", n, err)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[syscall.NLMSG_HDRLEN:])); code != 0 {
		return fmt.Errorf("set queue: %w", syscall.Errno(-code))
	}
	return nil
}
