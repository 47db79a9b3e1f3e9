package session

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"hawser/transport"
	"hawser/transport/wire"
)

const (
	openTimeout   = 30 * time.Second // for the Runtime's answer; its own dial takes at most 10 s
	headerTimeout = 10 * time.Second
	frameBytes    = 16 << 10
)

// Stream is one stream of a session: a net.Conn that can be closed for writing
// alone.
type Stream struct {
	*yamux.Stream
	session *Session
}

// Read returns io.EOF only when the peer ended the stream. Yamux says it as
// well when the session broke, which must not pass for the end of a file.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err == io.EOF && s.session.mux.IsClosed() {
		err = s.session.Err()
	}
	return n, err
}

// Write writes in frames of 16 KiB, so that a question on another stream never
// waits for more than that.
func (s *Stream) Write(b []byte) (n int, err error) {
	for chunk := range slices.Chunk(b, frameBytes) {
		k, err := s.Stream.Write(chunk)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// CloseWrite says that nothing more will be written; reading goes on.
func (s *Stream) CloseWrite() error { return s.Stream.Close() }

// Open opens a stream to a service (wire §6.3) and blocks for the Runtime's
// answer, at most 30 s. A refusal is a *wire.Refusal. Manager only.
func (s *Session) Open(ctx context.Context, header wire.Open) (*Stream, error) {
	stream, err := s.newStream(ctx)
	if err != nil {
		return nil, err
	}
	done := context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) })
	stream.SetDeadline(time.Now().Add(openTimeout))
	if err = wire.WriteJSON(stream, wire.TypeOpen, header); err == nil {
		_, err = wire.Expect(stream, wire.TypeOpened)
	}
	if !done() {
		err = ctx.Err()
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	stream.SetDeadline(time.Time{})
	return stream, nil
}

// newStream begins a stream. Yamux waits for its turn to write without heeding
// ctx, so that the session's own goroutine owns that wait.
func (s *Session) newStream(ctx context.Context) (*Stream, error) {
	var y *yamux.Stream
	var err error
	begun := make(chan struct{})
	begin := func() {
		y, err = s.mux.OpenStream()
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
			if err == nil {
				y.Close()
			}
		}
	}
	select {
	case s.work <- begin:
	case <-s.Done():
		return nil, s.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &transport.Error{Reason: s.pulse.reason(), Op: "open stream", Err: err}
	}
	return &Stream{y, s}, nil
}

// Accept returns the next stream that the Manager opens; its header is read
// with Header. Runtime only. When the session has ended the error is that of Err.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	y, err := s.mux.AcceptStreamWithContext(ctx)
	switch {
	case err == nil:
		return &Stream{y, s}, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, s.Err()
}

// Header reads what an accepted stream asks for, within 10 s.
func (s *Stream) Header() (header wire.Open, err error) {
	s.SetReadDeadline(time.Now().Add(headerTimeout))
	defer s.SetReadDeadline(time.Time{})
	f, err := wire.Expect(s, wire.TypeOpen)
	if err == nil {
		err = f.Decode(&header)
	}
	return header, err
}

// Grant answers an accepted stream: its bytes follow.
func (s *Stream) Grant() error { return wire.Write(s, wire.TypeOpened, nil) }

// Refuse answers an accepted stream with a reason and ends it.
func (s *Stream) Refuse(reason transport.Reason, text string) {
	wire.Refuse(s, &wire.Refusal{Reason: reason, Text: text})
	s.Close()
}

// Half is a connection of which each direction ends by itself: *net.TCPConn
// and *Stream.
type Half interface {
	net.Conn
	CloseWrite() error
}

const bridgeBytes = 64 << 10

// Bridge copies in both directions until both have ended, passing on the end
// of each, and closes both connections. A failure in one direction ends the
// other at once, and a TCP connection then with a reset: who reads from it must
// not take a piece for the whole.
func Bridge(a, b Half) {
	var both sync.WaitGroup
	var broken atomic.Bool
	for _, way := range [][2]Half{{a, b}, {b, a}} {
		both.Go(func() {
			if err := oneWay(way[0], way[1]); err != nil {
				broken.Store(true)
				a.SetDeadline(time.Unix(1, 0))
				b.SetDeadline(time.Unix(1, 0))
			}
		})
	}
	both.Wait()
	for _, c := range []Half{a, b} {
		if tcp, ok := c.(interface{ SetLinger(int) error }); ok && broken.Load() {
			tcp.SetLinger(0)
		}
		c.Close()
	}
}

func oneWay(to, from Half) error {
	// Hidden behind plain interfaces, so that the buffer below is what is used.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, bridgeBytes))
	if err != nil {
		return err
	}
	return to.CloseWrite()
}
