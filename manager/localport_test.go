package manager

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"hawser/internal/answer"
)

// A port of this computer that cannot be opened is no matter of the network.
func TestLocalPortThatCannotBeOpenedIsNamed(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EACCES:        "this user may not open port 502 on this computer: take one above 1023",
		syscall.EADDRINUSE:    "port 502 is in use on this computer",
		syscall.EADDRNOTAVAIL: "127.0.0.9 is no address of this computer",
	} {
		cause := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", errno)}
		err := fmt.Errorf("forward: %w", localPort(netip.MustParseAddrPort("127.0.0.9:502"), cause))
		line := Explain(err)
		if !strings.Contains(line, want) || strings.Contains(line, "firewall") || ExitCode(err) != answer.ExitFailed {
			t.Errorf("%d: %s", ExitCode(err), line)
		}
	}
}
