package mux

import (
	"context"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// The limits of what is said of the owner on one line (session §6).
const (
	maxPiece     = 16<<10 - 1 // of statements in a frame, behind its flags
	maxNewsBytes = 96 << 10
	maxNews      = 16 // objects

	lastPiece = 1 // flag
)

// Hello is what an end says of its owner when a line begins (session §3.3). The zero Hello says nothing.
type Hello struct {
	DomainKey    identity.SPKI // that this end has pinned
	List, Device uint64        // serials of the newest list, and of the newest statement of this device, that this end has
	Statements   []string      // the chain of this end (identity §15)
}

// Peer returns the hello of the other end. It blocks until that has come, at most 10 s. The error is that of [Mux.Ready].
func (m *Mux) Peer(ctx context.Context) (Hello, error) {
	if err := m.await(ctx, m.greeted, readyTimeout); err != nil {
		return Hello{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peer.said, nil
}

// Admit lets a Manager in that was held (Config.Hold): what it has opened meanwhile can be accepted.
func (m *Mux) Admit() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held && m.err == nil {
		m.held = false
		m.sayLocked(typeResume, 0, new(resumePayload).encode())
	}
}

// Refuse ends the session for a reason that the peer is told, with the text. Close is still to be called.
func (m *Mux) Refuse(refusal *wire.Refusal) { m.end(refusal) }

// Tell sends statements, the JSON object of wire §9.4, which is not changed and may be used again. It does not block. What
// is longer than a line may carry has reason protocol, and nothing of it is sent.
func (m *Mux) Tell(statements []byte) error {
	if len(statements) > maxNewsBytes {
		return &transport.Error{Reason: transport.Protocol, Op: "send statements"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.err == nil {
		piece := statements[:min(len(statements), maxPiece)]
		statements = statements[len(piece):]
		flags := byte(0)
		if len(statements) == 0 {
			flags = lastPiece
		}
		m.sayLocked(typeStatements, 0, append([]byte{flags}, piece...))
		if flags == lastPiece {
			break
		}
	}
	return m.err
}

// Told returns statements that the other end has sent, each object once. It blocks until one has come, the session is over,
// or ctx ends. The caller owns it.
func (m *Mux) Told(ctx context.Context) ([]byte, error) {
	select {
	case news := <-m.news:
		return news, nil
	case <-m.done:
		return nil, m.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newsLocked puts the pieces of statements together. A line carries so few of them that a peer cannot make this end keep
// more than the limit, whoever takes them or not.
func (m *Mux) newsLocked(payload []byte) error {
	p := &m.peer
	if p.newsBytes += len(payload); p.newsBytes > maxNewsBytes+maxNews {
		return violated("more than 96 KiB of statements")
	}
	p.news = append(p.news, payload[1:]...)
	if payload[0]&lastPiece == 0 {
		return nil
	}
	news := p.news
	p.news = nil
	select {
	case m.news <- news:
		return nil
	default:
		return violated("too many statements")
	}
}

// await waits for what the peer says at the begin of a line.
func (m *Mux) await(ctx context.Context, said <-chan struct{}, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-said:
		return nil
	case <-m.done:
		return m.Err()
	case <-timer.C: // bytes that come slowly are a sign of life, and no hello
		return &transport.Error{Reason: transport.Timeout, Op: "wait for the other end's hello"}
	case <-ctx.Done():
		return ctx.Err()
	}
}
