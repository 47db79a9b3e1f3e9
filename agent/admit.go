package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"hawser/identity"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const (
	newsTimeout = 10 * time.Second // for statements that this end lacks (session §6)
	judgeEvery  = time.Hour        // the clock may be set while a session runs
)

// Who refuses what is said in words: a technician has to know whom to ask.
const (
	byOwner = "refused by the owner's statements, not by the infrastructure: "
	byRules = "refused by the gateway's own rules: "
	byInfra = "refused by the infrastructure, not by the owner: "
)

// hello is what the gateway says of its owner when a line begins; known may be nil.
func hello(known *owner.Owner) (h mux.Hello) {
	if known != nil {
		h.DomainKey = known.Pinned().Key.SPKI()
		h.List, h.Device = known.Serials()
		h.Statements = known.Chain()
	}
	return h
}

// admit lets the peer of a session in by what the owner says of it, or returns a *wire.Refusal that says why not. What the
// peer lacks it is told in any case, so that it can tell others; for what is lacking here the gateway waits.
func (s *sessions) admit(ctx context.Context, r *running, live *session.Session) error {
	said, err := live.Peer(ctx)
	if err != nil {
		return err
	}
	if err := tell(live, r.owner.News(said.DomainKey, said.List, said.Device), r.owner.Reset(said.DomainKey)); err != nil {
		return err
	}
	s.mu.Lock()
	r.chain = said.Statements // before it is judged: from now on no list is missed
	s.mu.Unlock()
	waiting, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	for {
		s.mu.Lock()
		round := s.rounds
		s.mu.Unlock()
		verdict, err := s.judge(r, said.Statements)
		if err == nil {
			if s.enter(r, verdict, round) {
				live.Admit()
				return nil
			}
			continue
		}
		if !s.waits(r, said.DomainKey, err) {
			return err
		}
		news, ended := live.Told(waiting)
		switch {
		case ended == nil:
		case ctx.Err() == nil && waiting.Err() != nil:
			return err
		default:
			return ended
		}
		if err := s.told(r, news); err != nil {
			return err
		}
	}
}

// enter notes that a peer is let in, unless all sessions were judged again meanwhile: by what this verdict did not know.
func (s *sessions) enter(r *running, verdict identity.Verdict, round int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rounds != round {
		return false
	}
	r.verdict, r.admitted = verdict, true
	return true
}

// waits reports whether a peer may still bring what lets him in: lists that are not here, or the word of the domain key
// that another one has taken its place.
func (s *sessions) waits(r *running, domain identity.SPKI, err error) bool {
	switch transport.ReasonOf(err) {
	case transport.Stale:
		return true
	case transport.NotStated:
		return !domain.IsZero() && domain != r.owner.Pinned().Key.SPKI()
	}
	return false
}

// tell sends statements as far as a line may carry them: the lists come first, which are what protects.
func tell(live *session.Session, statements []string, reset []byte) error {
	for len(statements) > 0 || reset != nil {
		b, err := json.Marshal(wire.Statements{Statements: statements, DomainReset: reset})
		if err == nil {
			err = live.Tell(b)
		}
		if transport.ReasonOf(err) != transport.Protocol || live.Err() != nil || len(statements) == 0 {
			return err
		}
		statements = statements[:len(statements)-1]
	}
	return nil
}

// told takes what the peer has sent. A *wire.Refusal is for the peer.
func (s *sessions) told(r *running, news []byte) error {
	var m wire.Statements
	if err := json.Unmarshal(news, &m); err != nil {
		return &wire.Refusal{Reason: transport.Protocol, Text: "the statements are no JSON"}
	}
	if err := s.agent.take(r.owner, m); err != nil {
		return cannotStore()
	}
	return nil
}

func cannotStore() error {
	return &wire.Refusal{Reason: transport.Internal,
		Text: "the gateway cannot store what its owner states, and lets nobody in without: its status says why"}
}

// judge tells what the owner says now of the peer of a session, by this chain. The error is a *wire.Refusal. It writes to
// the medium, so that no lock is held.
func (s *sessions) judge(r *running, chain []string) (identity.Verdict, error) {
	refuse := func(reason transport.Reason, format string, args ...any) (identity.Verdict, error) {
		return identity.Verdict{}, &wire.Refusal{Reason: reason, Text: byOwner + fmt.Sprintf(format, args...)}
	}
	name, err := identity.ParseName(r.offer.Peer)
	if err != nil || name.Kind != identity.KindUser {
		return refuse(transport.NotStated, "%s is no user", r.offer.Peer)
	}
	verdict, err := r.owner.Judge(chain, identity.Peer{Name: name, SPKI: r.offer.PeerSPKI}, 0, s.agent.statementTime())
	fault, ok := errors.AsType[*identity.Error](err)
	switch {
	case ok && fault.Fault == identity.FaultMalformed: // it is no certificate that is wrong
		return refuse(transport.NotStated, "%s", fault.Detail)
	case ok:
		return refuse(transport.ReasonOf(err), "%s", fault.Detail)
	case err != nil:
		s.agent.stored(err)
		return verdict, cannotStore()
	case verdict.User.Role == identity.RoleViewer:
		return refuse(transport.Policy, "%s is a viewer, who opens no session", name.ID)
	case !sees(verdict.User, r.owner):
		return refuse(transport.Policy, "this device is not in the scope of %s", name.ID)
	}
	return verdict, nil
}

// sees tells whether the scope of a user has this device, in the folder in which it is now.
func sees(user identity.UserStatement, known *owner.Owner) bool {
	s, err := known.Statement()
	device, ok := s.Statement.(identity.DeviceStatement)
	return err == nil && ok && user.Sees(device.UID, device.Folder)
}

// judgeAgain ends the sessions that do not stand any more by what is known now. One that still waits for statements is
// left to wait.
func (s *sessions) judgeAgain() {
	s.mu.Lock()
	s.rounds++
	var all []*running
	for _, r := range s.running {
		if r.chain != nil {
			all = append(all, r)
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		s.judgeOne(r)
	}
}

func (s *sessions) judgeOne(r *running) {
	s.mu.Lock()
	chain := r.chain
	s.mu.Unlock()
	_, err := s.judge(r, chain)
	s.mu.Lock()
	waits := !r.admitted && slices.Contains([]transport.Reason{transport.Stale, transport.NotStated}, transport.ReasonOf(err))
	s.mu.Unlock()
	if err != nil && !waits {
		r.cancel(err)
	}
}

// attend takes what the peer of a session tells, and judges it again when its statements end, until the session does.
func (s *sessions) attend(ctx context.Context, r *running, live *session.Session) {
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, s.rest(r))
		news, err := live.Told(waiting)
		over := err != nil && waiting.Err() == nil
		cancel()
		switch {
		case over:
			return
		case err != nil:
			s.judgeOne(r)
		default:
			if err := s.told(r, news); transport.ReasonOf(err) == transport.Protocol {
				r.cancel(err)
			} // what could not be stored is said; what is known still counts
		}
	}
}

// rest is how long the verdict about a session that runs can be left as it is.
func (s *sessions) rest(r *running) time.Duration {
	now := r.owner.Lists().Now(s.agent.statementTime())
	s.mu.Lock()
	until := r.verdict.Until
	s.mu.Unlock()
	if until.IsZero() {
		return judgeEvery
	}
	return min(max(until.Sub(now), 0)+time.Millisecond, judgeEvery)
}

// rights are what the owner says now of the peer of a session that runs.
func (s *sessions) rights(r *running) identity.UserStatement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.verdict.User
}

// part ends a session, and tells the peer why it is refused, if that is the cause.
func part(ctx context.Context, live *session.Session) {
	if refusal, ok := errors.AsType[*wire.Refusal](context.Cause(ctx)); ok {
		live.Refuse(refusal)
	}
	live.Close()
}
