package relay

import (
	"net"
	"time"
)

// How a vanished client is noticed while nothing is sent to it. Sessions send
// something every few seconds, so mostly deadTime finds it first.
const (
	keepAlive = 15 * time.Second
	deadTime  = 30 * time.Second
)

// configureSocket lets the system give up on a client that is gone. Errors
// only mean that it will be noticed later.
func configureSocket(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return // a test's network
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 3})
	setUserTimeout(tcp, deadTime)
}
