package access

import (
	"crypto/tls"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"hawser/transport/record"
)

// A listener turns TCP's keepalive on; a control connection has it off (wire §4.6).
func TestKeepAliveIsOffOnControlConnections(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	defer must(net.Dial("tcp", l.Addr().String())).Close()
	conn := must(l.Accept())
	defer conn.Close()
	on := func() (on int) {
		raw := must(conn.(*net.TCPConn).SyscallConn())
		raw.Control(func(fd uintptr) { on = must(unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)) })
		return on
	}
	before := on()
	noKeepAlive(tls.Server(record.New(conn), nil))
	if before != 1 || on() != 0 {
		t.Errorf("keepalive was %d, is %d", before, on())
	}
}
