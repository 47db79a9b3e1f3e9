package mux

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// path is one direction between two ends: so many bytes a second, so long on the way, and a queue as deep as those of
// sockets and relays.
type path struct {
	rate  int           // bytes a second; 0: any
	delay time.Duration // one way
	room  int           // bytes in the queue and on the way, beyond which Write blocks

	mu       sync.Mutex // guards the rest
	changed  chan struct{}
	segments []segment
	held     int
	free     time.Time // when the last byte has left the bottleneck
	closed   bool
	deadline time.Time // of Read
}

type segment struct {
	b  []byte
	at time.Time // of arrival
}

func newPath(rate int, delay time.Duration) *path {
	return &path{rate: rate, delay: delay, room: 4 << 20, changed: make(chan struct{})}
}

func (p *path) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *path) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held >= p.room && !p.closed {
		c := p.changed
		p.mu.Unlock()
		<-c
		p.mu.Lock()
	}
	if p.closed {
		return 0, net.ErrClosed
	}
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	if p.rate > 0 {
		p.free = p.free.Add(time.Duration(len(b)) * time.Second / time.Duration(p.rate))
	}
	p.segments = append(p.segments, segment{append([]byte(nil), b...), p.free.Add(p.delay)})
	p.held += len(b)
	p.changedLocked()
	return len(b), nil
}

func (p *path) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := time.Now()
		wait := time.Duration(-1)
		switch {
		case !p.deadline.IsZero() && !now.Before(p.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(p.segments) > 0 && !now.Before(p.segments[0].at):
			s := &p.segments[0]
			n := copy(b, s.b)
			p.held -= n
			if s.b = s.b[n:]; len(s.b) == 0 {
				p.segments = p.segments[1:]
			}
			p.changedLocked()
			return n, nil
		case p.closed && len(p.segments) == 0:
			return 0, io.EOF
		case len(p.segments) > 0:
			wait = p.segments[0].at.Sub(now)
		}
		if !p.deadline.IsZero() && (wait < 0 || p.deadline.Sub(now) < wait) {
			wait = p.deadline.Sub(now)
		}
		c := p.changed
		p.mu.Unlock()
		if wait < 0 {
			<-c
		} else {
			timer := time.NewTimer(wait)
			select {
			case <-c:
			case <-timer.C:
			}
			timer.Stop()
		}
		p.mu.Lock()
	}
}

func (p *path) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changedLocked()
}

// end is one end of two paths, as a Line without TLS.
type end struct {
	in, out *path
	w       *bufio.Writer
	before  func()
}

func newEnds(there, back *path) (a, b *end) {
	a, b = &end{in: back, out: there}, &end{in: there, out: back}
	a.w, b.w = bufio.NewWriterSize(a.out, 64<<10), bufio.NewWriterSize(b.out, 64<<10)
	return a, b
}

func (e *end) Read(b []byte) (int, error) {
	if e.before != nil {
		e.before()
	}
	n, err := e.in.Read(b)
	if err != nil {
		err = &transport.Error{Reason: transport.LinkLost, Op: "read", Err: err}
	}
	return n, err
}

func (e *end) Write(b []byte) (int, error)        { return e.w.Write(b) }
func (e *end) Flush() error                       { return e.w.Flush() }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }

func (e *end) BeforeWait(f func()) { e.before = f }

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.deadline = t
	e.in.changedLocked()
	return nil
}

func (e *end) Close() error {
	e.out.close()
	e.in.close()
	return nil
}

// pair is a Manager and a Runtime that gives each stream to serve.
type pair struct {
	t                *testing.T
	manager, runtime *Mux
	served           sync.WaitGroup
}

func config(role wire.Role) Config {
	total := 64 << 20
	if role == wire.RoleRuntime {
		total = 8 << 20
	}
	return Config{Role: role, Session: "s", Epoch: 1, Budget: NewBudget(total), Streams: 512}
}

func newPair(t *testing.T, there, back *path, serve func(*Stream)) *pair {
	t.Helper()
	a, b := newEnds(there, back)
	p := &pair{t: t, manager: Start(a, config(wire.RoleManager)), runtime: Start(b, config(wire.RoleRuntime))}
	p.served.Go(func() {
		for {
			s, err := p.runtime.Accept(context.Background())
			if err != nil {
				return
			}
			p.served.Go(func() {
				s.Grant()
				serve(s)
			})
		}
	})
	t.Cleanup(func() {
		p.manager.Close()
		p.runtime.Close()
		p.served.Wait()
	})
	return p
}

func (p *pair) open() *Stream {
	p.t.Helper()
	s, err := p.manager.Open(p.t.Context(), Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func echo(s *Stream) {
	io.Copy(s, s)
	s.CloseWrite()
	s.Close()
}

// raw is an end that this package knows nothing of: it sends what it is told, and reads frames with the tests' own
// decoder.
type raw struct {
	t    *testing.T
	line *end
	m    *Mux
}

// newRaw faces a Mux of a role, with the beginning of a line said in order.
func newRaw(t *testing.T, role wire.Role) *raw {
	t.Helper()
	a, b := newEnds(newPath(0, time.Millisecond), newPath(0, time.Millisecond))
	r := &raw{t: t, line: b, m: Start(a, config(role))}
	t.Cleanup(func() {
		b.Close()
		r.m.Close()
	})
	return r
}

// greet says hello and resume, and use as a Manager does.
func (r *raw) greet() {
	r.say(0x01, 0, `{"version":2,"session":"s","epoch":1}`)
	r.say(0x02, 0, string(make([]byte, 41)))
	if r.m.config.Role == wire.RoleRuntime {
		r.say(0x03, 0, "")
	}
}

func (r *raw) say(kind byte, stream uint32, payload string) {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, stream)
	r.line.Write(append(b, payload...))
	r.line.Flush()
}

// hear reads frames until one of this type, and returns its stream and payload.
func (r *raw) hear(kind byte) (stream uint32, payload string) {
	r.t.Helper()
	for {
		var h [8]byte
		if _, err := io.ReadFull(r.line, h[:]); err != nil {
			r.t.Fatalf("no frame %#02x: %v", kind, err)
		}
		b := make([]byte, int(h[1])<<16|int(h[2])<<8|int(h[3]))
		io.ReadFull(r.line, b)
		if h[0] == kind {
			return binary.BigEndian.Uint32(h[4:]), string(b)
		}
	}
}
