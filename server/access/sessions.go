package access

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/identity"
)

const (
	// maxDeviceSessions bounds the open sessions of one device. More can only be
	// leftovers whose end was never reported, so the oldest give way.
	maxDeviceSessions = 64
	// moveTime is how long a session that lost its link stays to be moved.
	moveTime = time.Minute
)

// sessions knows the open sessions; the store has them too, and so have other
// nodes. The zero value works.
type sessions struct {
	mu     sync.Mutex // guards the rest
	open   map[string]*openSession
	moving map[string]chan struct{} // closed when the move is over
}

// openSession is a session with what the store does not know of it.
type openSession struct {
	sessionRecord
	agreed int       // the newest epoch that the Runtime has consented to
	ends   time.Time // when it ends if it is not moved; zero: it runs
}

// add notes an open session and returns those that must give way to it. After
// a restart the Runtime counts as agreed: it has the session, or will say so.
func (s *sessions) add(r sessionRecord) (tooOld []sessionRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]*openSession)
	}
	s.open[r.Session] = &openSession{sessionRecord: r, agreed: r.Epoch}
	same := s.ofLocked(r.Device)
	return same[:max(len(same)-maxDeviceSessions, 0)]
}

// moved notes that an open session has a new epoch, which the Runtime does not
// know yet.
func (s *sessions) moved(r sessionRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[r.Session]; o != nil {
		o.sessionRecord, o.ends = r, time.Time{}
	}
}

// agree notes that the Runtime has consented to an epoch.
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

// lose gives an open session moveTime from now to be moved.
func (s *sessions) lose(id string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil && o.ends.IsZero() {
		o.ends = now.Add(moveTime)
	}
}

// found takes back what lose did.
func (s *sessions) found(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil {
		o.ends = time.Time{}
	}
}

// overdue returns the sessions that nobody has moved in time. The caller ends
// them; if that fails they are due again moveTime later.
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

// next returns when the next session is overdue; the zero time for never.
func (s *sessions) next() (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		next = sooner(next, o.ends)
	}
	return next
}

// hold waits until nobody else moves the session; the caller releases it.
func (s *sessions) hold(ctx context.Context, id string) (release func(), err error) {
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

// news returns what other nodes have to know of an open session, or nil.
func (s *sessions) news(id string) *sessionNews {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[id]
	if o == nil {
		return nil
	}
	return &sessionNews{o.sessionRecord, o.agreed, !o.ends.IsZero()}
}

// learn takes what another node knows. Of an older epoch, or of one before the
// Runtime's consent, it is no news.
func (s *sessions) learn(n sessionNews, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[n.Record.Session]
	switch {
	case n.Record.Ended != nil:
		delete(s.open, n.Record.Session)
		return
	case o == nil:
		o = new(openSession)
	case cmp.Or(cmp.Compare(n.Record.Epoch, o.Epoch), cmp.Compare(n.Agreed, o.agreed)) < 0:
		return
	}
	o.sessionRecord, o.agreed = n.Record, n.Agreed
	switch {
	case !n.Lost:
		o.ends = time.Time{}
	case o.ends.IsZero():
		o.ends = now.Add(moveTime)
	}
	if s.open == nil {
		s.open = make(map[string]*openSession)
	}
	s.open[n.Record.Session] = o
}

// read takes what the store has. Of a session whose epoch is new to this node
// the Runtime counts as agreed, as after a restart.
func (s *sessions) read(r sessionRecord) {
	s.mu.Lock()
	o := s.open[r.Session]
	known := r.Ended == nil && o != nil && o.Epoch >= r.Epoch
	s.mu.Unlock()
	if !known {
		s.learn(sessionNews{Record: r, Agreed: r.Epoch}, time.Time{})
	}
}

func (s *sessions) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// of returns the open sessions of a device, oldest first.
func (s *sessions) of(device identity.UID) []sessionRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(device)
}

func (s *sessions) ofLocked(device identity.UID) []sessionRecord {
	var list []sessionRecord
	for _, o := range s.open {
		if o.Device == device {
			list = append(list, o.sessionRecord)
		}
	}
	slices.SortFunc(list, func(a, b sessionRecord) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Session, b.Session)
	})
	return list
}
