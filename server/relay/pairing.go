package relay

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

// An end is one connection whose join was accepted, until it closes.
type end struct {
	grant grant.Grant
	conn  *tls.Conn // nil when both directions of its pipe have switched
	raw   net.Conn  // below TLS

	ctx    context.Context         // cancelled when the end must close, with the reason as cause
	cancel context.CancelCauseFunc // ends ctx

	matched chan struct{} // closed when peer and pipe are set
	peer    *end          // the other end; read after matched
	pipe    *pipe         // of both; read after matched
	paired  chan struct{} // closed when the client was sent paired, after which frames may follow
	moved   atomic.Int64  // bytes that were carried from this end
}

func newEnd(ctx context.Context, conn *tls.Conn, g grant.Grant) *end {
	e := &end{grant: g, conn: conn, matched: make(chan struct{}), paired: make(chan struct{})}
	if conn != nil { // a test of pairing has none
		e.raw = conn.NetConn().(*record.Conn).Raw()
	}
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	return e
}

// A slot is the place of one end of a session.
type slot struct {
	session string
	epoch   int
	role    wire.Role
}

func (e *end) slot() slot { return slot{e.grant.Session, e.grant.Epoch, e.grant.Role} }

// other is the slot of the other end.
func (s slot) other() slot {
	if s.role == wire.RoleManager {
		s.role = wire.RoleRuntime
	} else {
		s.role = wire.RoleManager
	}
	return s
}

// pairing holds every end that is waiting or paired, and the revoked keys. Both are
// under one lock, so that a join during the revocation of its key is either refused
// or cancelled. It is safe for concurrent use.
type pairing struct {
	max     int       // sessions
	changed wait.Bell // rings when their number has changed

	mu       sync.Mutex // guards the rest
	ends     map[slot]*end
	sessions int // with at least one end here
	revoked  map[identity.SPKI]bool
}

func newPairing(max int) *pairing {
	return &pairing{max: max, changed: wait.NewBell(), ends: make(map[slot]*end)}
}

// enter puts e into its slot, and matches it with the other end if that is there.
func (t *pairing) enter(e *end) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.revoked[e.grant.Holder] {
		return refuse(transport.Revoked, "pair client")
	}
	other := t.ends[e.slot().other()]
	switch {
	case t.ends[e.slot()] != nil, other != nil && other.peer != nil: // an end that has left its pipe cannot join it again
		return refuse(transport.GrantUsed, "pair client: this end has joined already")
	case other != nil && !nameEachOther(e.grant, other.grant):
		return refuse(transport.GrantPeer, "pair client")
	case other == nil && t.sessions >= t.max:
		return refuse(transport.Busy, "pair client")
	}
	t.ends[e.slot()] = e
	if other == nil {
		t.countLocked(+1)
		return nil
	}
	e.peer, other.peer = other, e
	e.pipe = newPipe(e, other)
	other.pipe = e.pipe
	close(e.matched)
	close(other.matched)
	return nil
}

// leave frees the slot of e, unless another end has it.
func (t *pairing) leave(e *end) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freeLocked(e)
}

func (t *pairing) freeLocked(e *end) {
	if t.ends[e.slot()] != e {
		return
	}
	delete(t.ends, e.slot())
	if t.ends[e.slot().other()] == nil {
		t.countLocked(-1)
	}
}

func (t *pairing) countLocked(by int) {
	t.sessions += by
	t.changed.Ring()
}

// load is the number of sessions that are carried or wait for an end.
func (t *pairing) load() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions
}

func (t *pairing) isRevoked(key identity.SPKI) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revoked[key]
}

// giveUp frees the slot of an end that has waited too long. It returns false, and frees nothing, if the other end came
// in the same instant. A session that both ends have reached must not fail for that.
func (t *pairing) giveUp(e *end) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.peer != nil {
		return false
	}
	t.freeLocked(e)
	return true
}

// revoke replaces the list of revoked keys (wire §4.7), and cancels both ends of each session that uses one of them.
// Ends that only wait are cancelled too: their grant is used, and the key may be the stolen one.
func (t *pairing) revoke(keys []identity.SPKI) {
	revoked := make(map[identity.SPKI]bool, len(keys))
	for _, k := range keys {
		revoked[k] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revoked = revoked
	for _, e := range t.ends {
		if revoked[e.grant.Holder] || revoked[e.grant.Peer] {
			e.cancel(refuse(transport.Revoked, "carry session"))
		}
	}
}

// endSession cancels both ends of a session, in every epoch. The Access Server says it when it has ended one, which a
// Runtime that hangs would not.
func (t *pairing) endSession(session string, reason transport.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s, e := range t.ends {
		if s.session == session {
			e.cancel(refuse(reason, "carry session"))
		}
	}
}
