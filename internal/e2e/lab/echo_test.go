//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echoMachine has plc1 send back what it is sent, and returns the forward that leads there from a free port.
func echoMachine(t *testing.T) (forward string) {
	t.Helper()
	address := net.JoinHostPort(plc(t), "7")
	serveAt(t, "plc1", []string{address}, func(c net.Conn) { _, _ = io.Copy(c, c) })
	return "0:" + address
}

// A tool is the technician's client of the echo machine.
type tool struct{ net.Conn }

// useForward connects one to a forward's address, from the technician's machine, and makes a trip.
func useForward(address string, limit time.Duration) (*tool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := dialAt(ctx, "tech", address)
	if err != nil {
		return nil, err
	}
	t := &tool{c}
	if _, err := t.trip(limit); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// trip sends something to the machine, which must come back within limit, and returns how long that took.
func (t *tool) trip(limit time.Duration) (time.Duration, error) {
	var out, in [32]byte
	if _, err := rand.Read(out[:]); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := t.SetDeadline(began.Add(limit)); err != nil {
		return 0, err
	}
	if _, err := t.Write(out[:]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(t, in[:]); err != nil {
		return 0, err
	}
	if !bytes.Equal(in[:], out[:]) {
		return 0, errors.New("other bytes came back")
	}
	return time.Since(began), nil
}

// awaitForward uses a forward until the machine answers through it, with a new connection each time, and returns how long
// after since that was.
func awaitForward(t *testing.T, address string, since time.Time) time.Duration {
	t.Helper()
	// The session under a try may be dead without anybody's knowing yet, so no try takes long at first.
	limit, poll := time.Second, time.NewTicker(10*time.Millisecond)
	defer poll.Stop()
	for ; ; <-poll.C {
		tool, err := useForward(address, limit)
		limit += limit / 4
		took := time.Since(since)
		if err == nil {
			tool.Close()
			return took
		}
		if took > outer {
			t.Fatalf("the forward is of no use %v later: %v", took, err)
		}
	}
}
