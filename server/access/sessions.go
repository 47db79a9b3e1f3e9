package access

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/store"
)

const (
	// maxDeviceSessions limits the open sessions of one device. More can only be sessions whose end was never reported,
	// so the oldest are ended.
	maxDeviceSessions = 64
	// moveTime is how long a session that lost its relay may take to be moved to another one.
	moveTime = time.Minute
)

// sessions is what this process knows of the open sessions. The store and the other nodes have them as well. The zero
// value works. Memory answers what every frame of a Runtime asks; the store is read when something is changed.
type sessions struct {
	mu     sync.Mutex // guards the rest
	open   map[string]*openSession
	moving map[string]chan struct{} // closed when the move is over
	gone   map[string]time.Time     // when a session ended: what is heard of it later is older
}

// goneFor is how long it is remembered that a session has ended: longer than anything takes to get here. News of a
// session's consent that arrived after its end made it open again for ever: found by schedules of chance with two
// servers.
const goneFor = 10 * time.Minute

func (s *sessions) endLocked(id string) {
	now := time.Now()
	delete(s.open, id)
	if s.gone == nil {
		s.gone = make(map[string]time.Time)
	}
	maps.DeleteFunc(s.gone, func(_ string, at time.Time) bool { return now.Sub(at) > goneFor })
	s.gone[id] = now
}

func (s *sessions) endedLocked(id string) bool {
	_, gone := s.gone[id]
	return gone
}

// openSession is a session with what the store does not have of it.
type openSession struct {
	store.Session
	agreed int       // the newest epoch that the Runtime has consented to
	ends   time.Time // when it ends unless it is moved; zero: it is not lost
}

// add adds an open session and returns the oldest ones of its device, which are too many now and must be ended. The
// Runtime counts as agreed: the offer is sent next, and a refusal ends the session.
func (s *sessions) add(r store.Session) (tooOld []store.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endedLocked(r.ID) {
		return nil // as soon as it was written
	}
	if s.open == nil {
		s.open = make(map[string]*openSession)
	}
	s.open[r.ID] = &openSession{Session: r, agreed: r.Epoch}
	same := s.ofLocked(r.Device)
	return same[:max(len(same)-maxDeviceSessions, 0)]
}

// replace gives an open session a new epoch, which the Runtime does not know yet.
func (s *sessions) replace(r store.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[r.ID]; o != nil {
		o.Session, o.ends = r, time.Time{}
	}
}

// agree records that the Runtime has consented to an epoch.
func (s *sessions) agree(id string, epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil {
		o.agreed = epoch
	}
}

// agreedTo returns the newest epoch that the Runtime has consented to.
func (s *sessions) agreedTo(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil {
		return o.agreed
	}
	return 0
}

// markLost gives an open session moveTime from now to be moved. A second report does not extend that. Else a Runtime
// that reports again and again would hold a dead session open.
func (s *sessions) markLost(id string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil && o.ends.IsZero() {
		o.ends = now.Add(moveTime)
	}
}

// clearLost undoes markLost.
func (s *sessions) clearLost(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil {
		o.ends = time.Time{}
	}
}

// overdue returns the sessions that nobody has moved in time. The caller ends them; if that fails they are overdue
// again after moveTime. A store that is away would otherwise be asked again at once, in a loop.
func (s *sessions) overdue(now time.Time) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.open {
		if !o.ends.IsZero() && !o.ends.After(now) {
			o.ends = now.Add(moveTime)
			ids = append(ids, id)
		}
	}
	return ids
}

// next returns when the next session is overdue; the zero time is never.
func (s *sessions) next() (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		next = sooner(next, o.ends)
	}
	return next
}

// lockMove waits until nobody else moves the session. The caller releases it. It is no mutex, because ctx can end the
// wait.
func (s *sessions) lockMove(ctx context.Context, id string) (release func(), err error) {
	for {
		s.mu.Lock()
		other, busy := s.moving[id]
		if !busy {
			break
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer s.mu.Unlock()
	if s.moving == nil {
		s.moving = make(map[string]chan struct{})
	}
	over := make(chan struct{})
	s.moving[id] = over
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.moving, id)
		close(over)
	}, nil
}

// sessionChange is what a node publishes about a session.
type sessionChange struct {
	Record store.Session
	Agreed int  // the newest epoch that the Runtime has consented to
	Lost   bool // it ends soon unless it is moved
}

// changeOf returns what other nodes have to know of an open session, or nil if it is not open here.
func (s *sessions) changeOf(id string) *sessionChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[id]
	if o == nil {
		return nil
	}
	return &sessionChange{o.Session, o.agreed, !o.ends.IsZero()}
}

// apply takes over what another node knows. It ignores an older epoch, and one without the Runtime's consent that this
// node has: changes of two nodes may arrive in either order.
func (s *sessions) apply(n sessionChange, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[n.Record.ID]
	newer := 1
	if o != nil {
		newer = cmp.Or(cmp.Compare(n.Record.Epoch, o.Epoch), cmp.Compare(n.Agreed, o.agreed))
	}
	switch {
	case !n.Record.Ended.IsZero():
		s.endLocked(n.Record.ID)
		return
	case s.endedLocked(n.Record.ID):
		return
	case o == nil:
		o = new(openSession)
	case newer < 0:
		return
	}
	o.Session, o.agreed = n.Record, n.Agreed
	switch {
	case !n.Lost && newer == 0: // what this node knows of the same epoch came after that: only consent ends a loss
	case !n.Lost:
		o.ends = time.Time{}
	case o.ends.IsZero():
		o.ends = now.Add(moveTime)
	}
	if s.open == nil {
		s.open = make(map[string]*openSession)
	}
	s.open[n.Record.ID] = o
}

// load takes over what the store has. The Runtime counts as agreed to an epoch that is new to this node: after a
// restart nobody knows, and a Runtime that does not have the session will say so.
func (s *sessions) load(r store.Session) {
	s.mu.Lock()
	o := s.open[r.ID]
	known := r.Ended.IsZero() && o != nil && o.Epoch >= r.Epoch
	s.mu.Unlock()
	if !known {
		s.apply(sessionChange{Record: r, Agreed: r.Epoch}, time.Time{})
	}
}

// ids returns the open sessions.
func (s *sessions) ids() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make(map[string]bool)
	for id := range s.open {
		ids[id] = true
	}
	return ids
}

func (s *sessions) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(id)
}

// of returns the open sessions of a device, oldest first.
func (s *sessions) of(device identity.UID) []store.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(device)
}

func (s *sessions) ofLocked(device identity.UID) []store.Session {
	var list []store.Session
	for _, o := range s.open {
		if o.Device == device {
			list = append(list, o.Session)
		}
	}
	slices.SortFunc(list, func(a, b store.Session) int {
		// Oldest first, because the limit of a device ends the oldest; the id only keeps the order of two that began at
		// once.
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}
