package relay

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// An end is one connection that was let in, until it closes.
type end struct {
	admission
	conn *tls.Conn

	ctx context.Context         // over when the end must go; the cause says why
	cut context.CancelCauseFunc // ends ctx

	met    chan struct{} // closed when peer is set
	peer   *end          // the other end; read after met
	paired chan struct{} // closed when the client was told, so that bytes may follow
	ended  atomic.Bool   // the client has closed its half in order
	copied chan struct{} // closed when nothing more will be copied from conn
}

func newEnd(ctx context.Context, conn *tls.Conn, a admission) *end {
	e := &end{
		admission: a, conn: conn,
		met: make(chan struct{}), paired: make(chan struct{}), copied: make(chan struct{}),
	}
	e.ctx, e.cut = context.WithCancelCause(ctx)
	return e
}

// A seat is where one end of a session sits.
type seat struct {
	session string
	epoch   int
	role    wire.Role
}

func (e *end) seat() seat { return seat{e.grant.Session, e.grant.Epoch, e.grant.Role} }

// other is the seat across the table.
func (s seat) other() seat {
	if s.role == wire.RoleManager {
		s.role = wire.RoleRuntime
	} else {
		s.role = wire.RoleManager
	}
	return s
}

// table holds every end that is waiting or paired, and the keys that are no
// longer accepted. Both are under one lock, so that a key revoked while its
// owner joins is either refused or cut. It is safe for concurrent use.
type table struct {
	max     int           // sessions
	changed chan struct{} // told when their number has changed

	mu       sync.Mutex // guards the rest
	ends     map[seat]*end
	sessions int // with an end that sits here
	revoked  map[identity.SPKI]bool
}

func newTable(max int) *table {
	return &table{max: max, changed: make(chan struct{}, 1), ends: make(map[seat]*end)}
}

// enter seats e; if the other end sits there already, both have met.
func (t *table) enter(e *end) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.revoked[e.grant.Holder] {
		return refuse(transport.Revoked, "seat client")
	}
	other := t.ends[e.seat().other()]
	switch {
	case t.ends[e.seat()] != nil, other != nil && other.peer != nil: // who has left its pipe cannot come back to it
		return refuse(transport.GrantUsed, "seat client: this end has joined already")
	case other != nil && !nameEachOther(e.grant, other.grant):
		return refuse(transport.GrantPeer, "seat client")
	case other == nil && t.sessions >= t.max:
		return refuse(transport.Busy, "seat client")
	}
	t.ends[e.seat()] = e
	if other == nil {
		t.countLocked(+1)
		return nil
	}
	e.peer, other.peer = other, e
	close(e.met)
	close(other.met)
	return nil
}

// leave frees the seat of e, if it still sits there.
func (t *table) leave(e *end) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freeLocked(e)
}

func (t *table) freeLocked(e *end) {
	if t.ends[e.seat()] != e {
		return
	}
	delete(t.ends, e.seat())
	if t.ends[e.seat().other()] == nil {
		t.countLocked(-1)
	}
}

func (t *table) countLocked(by int) {
	t.sessions += by
	select {
	case t.changed <- struct{}{}:
	default: // not heard yet of the last change
	}
}

// load is the number of sessions that are carried or wait for their other end.
func (t *table) load() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions
}

func (t *table) isRevoked(key identity.SPKI) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revoked[key]
}

// giveUp frees the seat of an end that has waited long enough. It reports
// false, and frees nothing, when the other end came in the same instant.
func (t *table) giveUp(e *end) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.peer != nil {
		return false
	}
	t.freeLocked(e)
	return true
}

// revoke replaces the list of keys that are not accepted (wire §4.7) and cuts
// what is held with them, both ends of it.
func (t *table) revoke(keys []identity.SPKI) {
	revoked := make(map[identity.SPKI]bool, len(keys))
	for _, k := range keys {
		revoked[k] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revoked = revoked
	for _, e := range t.ends {
		if revoked[e.grant.Holder] || revoked[e.grant.Peer] {
			e.cut(refuse(transport.Revoked, "carry session"))
		}
	}
}

// endSession cuts both ends of a session, whatever their epoch.
func (t *table) endSession(session string, reason transport.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s, e := range t.ends {
		if s.session == session {
			e.cut(refuse(reason, "carry session"))
		}
	}
}
