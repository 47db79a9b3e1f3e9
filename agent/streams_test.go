package agent

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A gateway that has run out of something does not blame the machine.
func TestWhoIsToBlameForAMachineThatIsNotReached(t *testing.T) {
	addr := netip.MustParseAddrPort("192.168.10.20:502")
	failed := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(call, errno)}
	}
	for want, err := range map[string]error{
		"the gateway has no file descriptors left":                            failed("socket", syscall.EMFILE),
		"the gateway could not try: dial tcp: socket: cannot allocate memory": failed("socket", syscall.ENOMEM),
		"the device cannot reach 192.168.10.20:502":                           failed("connect", syscall.ECONNREFUSED),
	} {
		if got := unreached(addr, reasonOfDial(err), err); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
