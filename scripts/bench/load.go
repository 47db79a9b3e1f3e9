//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The backend takes one byte that says what it does for a connection: 'D' sends until the peer closes, 'U' discards,
// 'E' echoes.
const (
	commandDown = 'D'
	commandUp   = 'U'
	commandEcho = 'E'
	chunk       = 256 << 10
)

// backend is what all tunnels lead to. Its CPU time counts for nobody.
type backend struct {
	l     net.Listener
	conns sync.WaitGroup
}

func (b *backend) addr() string { return b.l.Addr().String() }

// serveBackend answers on a listener until it is closed.
func serveBackend(l net.Listener) *backend {
	b := &backend{l: l}
	b.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.conns.Go(func() { defer c.Close(); serve(c) })
		}
	})
	return b
}

// close waits until the tunnels in front of it are gone.
func (b *backend) close() {
	b.l.Close()
	b.conns.Wait()
}

func serve(c net.Conn) {
	var command [1]byte
	if _, err := io.ReadFull(c, command[:]); err != nil {
		return
	}
	switch command[0] {
	case commandDown:
		var reading sync.WaitGroup
		reading.Go(func() { io.Copy(io.Discard, c); c.Close() })
		for buf := make([]byte, chunk); ; {
			if _, err := c.Write(buf); err != nil {
				break
			}
		}
		c.Close()
		reading.Wait()
	case commandUp:
		for buf := make([]byte, chunk); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	case commandEcho:
		// Not io.Copy, which would splice: an echo of one byte is what a program answers.
		for buf := make([]byte, 64<<10); ; {
			n, err := c.Read(buf)
			if n > 0 {
				_, werr := c.Write(buf[:n])
				err = errors.Join(err, werr)
			}
			if err != nil {
				return
			}
		}
	}
}

// echo opens a stream on which the backend echoes.
func (t *tunnel) echo() (net.Conn, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * patience))
	if _, err := c.Write([]byte{commandEcho}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// pingOn sends one byte and takes it back.
func pingOn(c net.Conn) (time.Duration, error) {
	b := []byte{'x'}
	begin := time.Now()
	if _, err := c.Write(b); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, b)
	return time.Since(begin), err
}

// works waits until an echo through the tunnel works.
func (t *tunnel) works(ctx context.Context) error {
	var last error
	err := until(ctx, "no echo through the tunnel", func() bool {
		_, last = t.opening()
		return last == nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// opening is the time from dialling to the first echoed byte of a fresh stream.
func (t *tunnel) opening() (time.Duration, error) {
	begin := time.Now()
	c, err := t.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{commandEcho, 'x'}); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// flow is one kind of load: so many streams in one direction.
type flow struct {
	streams int
	up      bool
}

func (f flow) String() string {
	if f.up {
		return fmt.Sprintf("up %d", f.streams)
	}
	return fmt.Sprintf("down %d", f.streams)
}

// moved is what a flow did within its time.
type moved struct {
	bytes             int64
	took              time.Duration
	all, relay, agent usage // of the processes, in that time
}

// carry moves bytes through the tunnel, lets the flow settle for warm, and measures for d. Down counts what has
// arrived, up what the tunnel has accepted.
func (t *tunnel) carry(f flow, warm, d time.Duration) (m moved, err error) {
	var total atomic.Int64
	var running sync.WaitGroup
	conns := make([]net.Conn, f.streams)
	defer running.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		if conns[i], err = t.dial(); err != nil {
			return m, err
		}
	}
	for _, c := range conns {
		running.Go(func() { pump(c, f.up, &total) })
	}
	time.Sleep(warm)
	groups := [3][]int{tree(t.roots...), tree(t.relay), tree(t.agent)}
	var before [3]usage
	for i, g := range groups {
		before[i] = usageOf(g)
	}
	start, begin := total.Load(), time.Now()
	time.Sleep(d)
	m.bytes, m.took = total.Load()-start, time.Since(begin)
	for i, u := range []*usage{&m.all, &m.relay, &m.agent} {
		*u = usageOf(groups[i]).minus(before[i])
	}
	if m.bytes == 0 {
		return m, errors.New("no byte was carried")
	}
	return m, nil
}

func pump(c net.Conn, up bool, total *atomic.Int64) {
	command := byte(commandDown)
	if up {
		command = commandUp
	}
	if _, err := c.Write([]byte{command}); err != nil {
		return
	}
	step := c.Read
	if up {
		step = c.Write
	}
	for buf := make([]byte, chunk); ; {
		n, err := step(buf)
		total.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (m moved) gib() float64  { return float64(m.bytes) / (1 << 30) }
func (m moved) mbps() float64 { return float64(m.bytes) / 1e6 / m.took.Seconds() }

// percentile of values, which it sorts.
func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}

// pings measures n round trips of one byte on one stream, pause apart, or as many as there are within half a minute:
// behind a full buffer one takes seconds.
func (t *tunnel) pings(n int, pause time.Duration) ([]time.Duration, error) {
	c, err := t.echo()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all := make([]time.Duration, 0, n)
	const warm = 5
	for i, begin := 0, time.Now(); i < n+warm && time.Since(begin) < 30*time.Second; i++ {
		d, err := pingOn(c)
		if err != nil {
			return nil, err
		}
		if i >= warm || time.Since(begin) > 20*time.Second {
			all = append(all, d)
		}
		time.Sleep(pause)
	}
	if len(all) == 0 {
		return nil, errors.New("no round trip within 30 s")
	}
	return all, nil
}
