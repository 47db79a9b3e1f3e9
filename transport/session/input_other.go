//go:build !unix

package session

import (
	"net"

	"hawser/transport/mux"
)

// input reads a socket. Without a way to wait for it first, its buffer is that of TLS.
type input struct {
	conn   net.Conn
	before func() // called before a wait
}

func newInput(conn net.Conn, _ *mux.Budget) input { return input{conn, func() {}} }

// Read is called by one goroutine at a time.
func (i *input) Read(b []byte) (int, error) {
	i.before()
	return i.conn.Read(b)
}
