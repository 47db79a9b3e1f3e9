package board

import (
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLoopbackIsLocal(t *testing.T) {
	for _, text := range []string{"127.0.0.1", "127.200.1.1", "::ffff:127.0.0.1"} {
		if local, err := localNow(netip.MustParseAddr(text)); !local || err != nil {
			t.Errorf("%s: %v, %v", text, local, err)
		}
	}
}

func TestTheAnswerAboutARoute(t *testing.T) {
	route := func(kind byte) []byte { return []byte{unix.AF_INET, 32, 0, 0, 255, 0, 0, kind, 0, 0, 0, 0} }
	for name, tt := range map[string]struct {
		of   uint16
		data []byte
		want bool
		bad  bool
	}{
		"its own":    {unix.RTM_NEWROUTE, route(unix.RTN_LOCAL), true, false},
		"another's":  {unix.RTM_NEWROUTE, route(unix.RTN_UNICAST), false, false},
		"cut off":    {unix.RTM_NEWROUTE, route(unix.RTN_LOCAL)[:7], false, true},
		"none":       {unix.NLMSG_ERROR, []byte{0x9b, 0xff, 0xff, 0xff}, false, true},
		"else":       {unix.NLMSG_DONE, nil, false, true},
		"half error": {unix.NLMSG_ERROR, []byte{1}, false, true},
	} {
		got, err := isLocal(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: tt.of}, Data: tt.data})
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
