package transport

import (
	"net"
	"syscall"
	"testing"
)

// Both ends keep their segments small, although only the client asked for it.
func TestSmallSegmentsOfBothEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, small := range []bool{true, false} {
		ctx := t.Context()
		if small {
			ctx = withSmallSegments(ctx)
		}
		near, err := SystemDial(ctx, "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		for _, end := range []net.Conn{near, far} {
			if got := segmentOf(t, end); small && got > smallSegment || !small && got <= smallSegment {
				t.Errorf("small %v: segments of %d bytes", small, got)
			}
		}
	}
}

func segmentOf(t *testing.T, c net.Conn) (size int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { size, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return size
}
