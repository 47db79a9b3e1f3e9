//go:build !linux

package relay

import (
	"net"
	"time"
)

// setUserTimeout does nothing here: keepalive has to find a vanished client.
func setUserTimeout(*net.TCPConn, time.Duration) {}
