package main

import (
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C001 0100007F:01BB 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0000000000000000 100 0 0 10 0
`
	udp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 100: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 13 2 0000000000000000 0
 101: 00000000000000000000000001000000:A000 00000000000000000000000001000000:0035 01 00000000:00000000 00:00000000 00000000  1000        0 14 2 0000000000000000 0
`
)

func TestSocketsAreToldApart(t *testing.T) {
	var s sockets
	own := map[string]bool{"11": true, "12": true, "13": true, "14": true}
	if err := s.add("tcp", tcpTable, own); err != nil {
		t.Fatal(err)
	}
	if err := s.add("udp6", udp6Table, own); err != nil {
		t.Fatal(err)
	}
	want := []string{"tcp 127.0.0.1:443", "udp [::1]:53"}
	if diff := cmp.Diff(want, s.listening); diff != "" || s.connected != 2 {
		t.Errorf("%d connected, listening (-want +got):\n%s", s.connected, diff)
	}
}

func TestAddressThatIsNoneIsAnError(t *testing.T) {
	for _, text := range []string{"", "0100007F", "0100007F:GG", "01:01BB", "0100007F:10000", "zz00007F:01BB"} {
		if a, err := parseHexAddr(text); err == nil {
			t.Errorf("%q is read as %v", text, a)
		}
	}
}

// TestOwnSocketsAreFound asks the kernel about sockets of each kind that this process opens.
func TestOwnSocketsAreFound(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux has /proc/net")
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s, err := socketsOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tcp " + l.Addr().String(), "udp " + u.LocalAddr().String()} {
		if !slices.Contains(s.listening, want) {
			t.Errorf("%q is not among %q", want, s.listening)
		}
	}
}
