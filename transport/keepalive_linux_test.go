package transport

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TCP's keepalive is off where the client pings, and finds a dead peer within a minute elsewhere (wire §4.6).
func TestKeepAliveIsOffOnControlConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for alpn, want := range map[string][4]int{ALPNAccess: {0, 15, 15, 3}, ALPNRelay: {1, 15, 15, 3}, ALPNAPI: {1, 15, 15, 3}} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		setKeepAlive(conn, alpn)
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got [4]int
		err = raw.Control(func(fd uintptr) {
			got[0], _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			for i, option := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
				got[i+1], _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option)
			}
		})
		if err != nil || got != want {
			t.Errorf("%s: on, idle, interval, count are %v, want %v; %v", alpn, got, want, err)
		}
	}
}
