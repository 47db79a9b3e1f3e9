package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	version       = wire.SessionVersion
	maxStreams    = 256                    // of a session (session §6)
	heldStreams   = 16                     // of one that was not let in yet
	openTimeout   = 30 * time.Second       // for the Runtime's answer; its own dial takes at most 10 s
	earlyPatience = 500 * time.Millisecond // beside two round trips: no early data while an answer is late
	readyTimeout  = 10 * time.Second       // for the peer's hello
	admitTimeout  = 15 * time.Second       // for its resume: it may wait 10 s for statements (session §6)
	beat          = 4 * time.Second        // between signs of life (session §3.6)
	silence       = 9 * time.Second        // without any byte: the line is lost (session §3.6)
	endTime       = 2 * time.Second        // for the peer's end, and for the last bytes to it
	// maxUnsent bounds the answers to a peer that asks and does not read. An honest one has 256 streams.
	maxUnsent = 256 << 10
)

// EarlyBytes is how much a Manager may send on a stream before it is opened (session §4.1).
const EarlyBytes = 4 << 10

// Line is what a Mux goes over: authenticated and encrypted, and in order. One goroutine reads while another one writes.
// Its errors have a transport.Reason.
type Line interface {
	io.Reader
	// Write may keep what it is given until Flush.
	io.Writer
	Flush() error
	// BeforeWait sets what Read calls, on its own goroutine, before it waits for bytes. It is called before the first Read.
	BeforeWait(func())
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Close ends the line; a Read or Write under way fails.
	Close() error
}

// Config is what one end of a line needs.
type Config struct {
	Role    wire.Role // of this end
	Session string
	Epoch   int
	Budget  *Budget // of the process
	Streams int     // of the process at most; 0: as many as its sessions have
	Hello   Hello   // what this end says of its owner
	// Hold makes a Runtime take part only when Admit is called: until then it opens nothing that the peer asks for.
	Hold bool
}

// largestCredit is what one stream may be promised at most (session §6). A gateway has 128 MB of memory, a PC has more.
func (c Config) largestCredit() int {
	if c.Role == wire.RoleRuntime {
		return 4 << 20
	}
	return 16 << 20
}

// Open is what a Manager asks of a Runtime (session §4).
type Open struct {
	Service wire.Service
	Target  string
}

// Mux is one end of a line with its streams. It is safe for concurrent use. Close must be called in the end, also after
// the line was lost.
type Mux struct {
	config Config
	line   Line
	share  *share
	pool   pool
	begun  time.Time // of the clock in acknowledgements

	work    sync.WaitGroup // reader and writer
	closing sync.Once
	closed  error         // what the line's Close said
	wake    wait.Bell     // the writer has something to do
	accepts chan *Stream  // of the Runtime; has room for all streams of a session
	greeted chan struct{} // closed when the peer's hello has come
	ready   chan struct{} // closed when the peer's hello and resume have come
	news    chan []byte   // statements of the peer; has room for all of a line
	chains  chan Chain    // of the peer; has room for the newest
	done    chan struct{} // closed when err is set

	in reader // of the goroutine that reads

	// The pen is had by who writes to the line: the writer, or a goroutine that sends on a stream. It comes before mu.
	pen   chan struct{} // one slot
	batch batch         // of who has the pen

	mu      sync.Mutex // guards the rest
	err     error      // why the session is over
	heard   bool       // the peer's end
	streams map[uint32]*Stream
	last    uint32 // the highest number of a stream so far
	peer    struct {
		hello, resume, use bool
		said               Hello
		news               []byte // pieces that are not whole yet
		newsBytes          int    // of all statements on this line
		chains             int    // on this line
	}
	held     bool // this end's resume waits for Admit
	received received
	out      sender
	counts   Counts
}

// Start begins a line: it says hello, and reads and writes until Close. A Manager may open streams at once.
func Start(line Line, c Config) *Mux {
	m := &Mux{
		config: c, line: line, share: c.Budget.join(), begun: time.Now(),
		wake: wait.NewBell(), pen: make(chan struct{}, 1), accepts: make(chan *Stream, maxStreams),
		greeted: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}), news: make(chan []byte, maxNews),
		chains:  make(chan Chain, 1),
		streams: make(map[uint32]*Stream),
	}
	m.out.window = newWindow()
	m.in.over = make(chan struct{})
	m.received.late = time.AfterFunc(time.Hour, m.ackIsLate) // moved when something waits for its ack
	m.received.late.Stop()
	m.mu.Lock()
	m.sayLocked(typeHello, 0, (&helloPayload{Version: version, Session: c.Session, Epoch: c.Epoch,
		DomainKey: c.Hello.DomainKey, List: c.Hello.List, Device: c.Hello.Device, Statements: c.Hello.Statements}).encode())
	if m.held = c.Hold; !m.held {
		m.sayLocked(typeResume, 0, new(resumePayload).encode())
	}
	if c.Role == wire.RoleManager {
		m.sayLocked(typeUse, 0, nil)
		m.out.used = true
	}
	m.pingLocked(time.Now())
	m.mu.Unlock()
	line.BeforeWait(m.caughtUp)
	m.work.Go(m.write)
	m.work.Go(m.read)
	return m
}

// Ready blocks until the other end has said that it takes part, at most 10 s for its hello and 15 s more. A Manager's TLS
// handshake is over before the Runtime has looked at its certificate, so a refusal shows here. The error is that of Err.
func (m *Mux) Ready(ctx context.Context) error {
	if err := m.await(ctx, m.greeted, readyTimeout); err != nil {
		return err
	}
	return m.await(ctx, m.ready, admitTimeout)
}

// Done is closed when the session is over, whoever has ended it.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Err says why the session is over: closed when either end has ended it in order; protocol when the peer sent what
// session §3 does not allow; else the reason of the line's error. It is meaningful after Done.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Streams is the number of open streams.
func (m *Mux) Streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams)
}

// Counts is what a line has done so far.
type Counts struct {
	// Bytes of streams that have come, and that were queued to go; the frames around them, and the layers below, are not
	// in it.
	In, Out int64
	Granted int64                      // streams, by a Runtime
	Refused map[transport.Reason]int64 // streams, by a Runtime; nil: none
}

// Counts returns what was counted, also when the session is over. The caller owns it.
func (m *Mux) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	c.Refused = maps.Clone(c.Refused)
	return c
}

// Close ends the session and every stream, tells the peer, waits for its answer, at most for 2 s, and closes the line.
func (m *Mux) Close() error {
	m.end(&transport.Error{Reason: transport.Closed, Op: "end session"})
	m.line.SetReadDeadline(time.Now().Add(endTime))
	m.work.Wait()
	m.closing.Do(func() {
		m.closed = m.line.Close()
		m.received.late.Stop()
		m.share.leave()
	})
	return m.closed
}

// end ends the session for a reason of this end, which the peer is told.
func (m *Mux) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(err, true)
}

// endLocked ends the session. The first reason counts: what follows is the consequence of it, and would hide it.
func (m *Mux) endLocked(err error, say bool) {
	if m.err != nil {
		return
	}
	m.err = err
	if say {
		p := whyPayload{Reason: transport.ReasonOf(err)}
		if refusal, ok := errors.AsType[*wire.Refusal](err); ok {
			p.Text = refusal.Text
		}
		m.sayLocked(typeEnd, 0, p.encode())
	}
	m.line.SetWriteDeadline(time.Now().Add(endTime))
	for _, s := range m.streams {
		s.abandonLocked(err)
		s.goneLocked() // what still comes of it is behind what was discarded
	}
	close(m.done)
	m.wake.Ring()
}

// lost ends the session for an error of the line. There is nobody to tell.
func (m *Mux) lost(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(err, false)
}

// violated makes an error about bytes that session §3 does not allow.
func violated(format string, args ...any) error {
	return fmt.Errorf("%w: %s", wire.ErrFrame, fmt.Sprintf(format, args...))
}

// Open opens a stream and blocks for the Runtime's answer, at most 30 s. A refusal is a *wire.Refusal. Manager only.
func (m *Mux) Open(ctx context.Context, o Open) (*Stream, error) {
	s, err := m.Ask(o)
	if err != nil {
		return nil, err
	}
	if err := s.Await(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Ask asks for a stream and does not wait: Await does. Until then Write takes early data (session §4.1). Manager only.
func (m *Mux) Ask(o Open) (*Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return nil, m.err
	case m.config.Role != wire.RoleManager:
		return nil, errors.New("open stream: only a Manager does")
	case len(m.streams) >= maxStreams:
		return nil, &wire.Refusal{Reason: transport.Busy, Text: "the session has all its streams"}
	}
	first, ok := m.share.openStream(m.config.Streams)
	if !ok {
		return nil, &wire.Refusal{Reason: transport.Busy, Text: "this program has all its streams"}
	}
	m.last++
	s := m.newStreamLocked(m.last, o, first)
	s.send.allowance.until = EarlyBytes
	m.sayLocked(typeOpen, s.id, (&openPayload{Service: o.Service, Target: o.Target, Credit: uint64(first)}).encode())
	return s, nil
}

// Accept returns the next stream that the Manager opens, which Grant or Refuse answers. Runtime only. When the session
// is over the error is that of Err.
func (m *Mux) Accept(ctx context.Context) (*Stream, error) {
	select {
	case s := <-m.accepts:
		return s, nil
	case <-m.done:
		return nil, m.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sayLocked queues a frame that does not wait for window or budget.
func (m *Mux) sayLocked(kind byte, stream uint32, payload []byte) {
	m.out.control = appendFrame(m.out.control, kind, stream, payload)
	if counted(kind) {
		m.out.controls = append(m.out.controls, headerBytes+len(payload))
	}
	m.wake.Ring()
}
