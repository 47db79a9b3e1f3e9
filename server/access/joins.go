package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	joinLife      = 20 * time.Hour // a join-state is changed when it is older: so at each time-again of a link, once a day
	maxInstances  = 4              // processes of a device that are remembered
	aliveTimeout  = 10 * time.Second
	maxFresh      = 8           // fresh keys of a cloned device that are kept
	freshFlood    = time.Minute // in which no more than maxFresh are taken
	freshRecorded = time.Hour   // when a key is shown again, that is written so often
)

// shownJoin is the join-state that a device has shown; the zero shownJoin is none.
type shownJoin struct {
	counter int64
	hash    store.Hash
}

// joinVerdict is what a hello says about a device.
type joinVerdict int

const (
	joinSettled joinVerdict = iota // it is the one, and nothing changes
	joinDue                        // it is the one, and gets another join-state
	joinBehind                     // it is the one, and the server has lost what it knew: its store is from a backup
	joinCloned                     // two machines use its key, if this one is alive
)

// judgeJoin decides about a device by the join-state that it shows, and the process that it is (identity §19.3). It is pure.
// One machine is never taken for two: what it shows is never older than what it is known to have stored, whatever was lost on
// the way, and a process does not come back after another one has been there.
func judgeJoin(j store.Join, shown shownJoin, instance string, now time.Time) joinVerdict {
	confirmed := shownJoin{j.Counter, j.State}
	switch {
	case len(j.Instances) > 1 && slices.Contains(j.Instances[1:], instance):
		return joinCloned
	case shown == confirmed:
	case shown.counter <= confirmed.counter:
		return joinCloned
	case shown != shownJoin{j.NextCounter, j.Next}:
		return joinBehind
	}
	if shown == confirmed && !joinIsDue(j, now) && len(j.Instances) > 0 && j.Instances[0] == instance {
		return joinSettled
	}
	return joinDue
}

func joinIsDue(j store.Join, now time.Time) bool {
	age := now.Sub(j.Changed)
	return age < 0 || age >= joinLife // the clock was set back
}

// readJoin returns what is known of a device; an empty ID means nothing. A bad row is as good as none: of two machines it is
// found out anew.
func readJoin(tx *store.Tx, uid string) (store.Join, error) {
	j := store.Join{ID: uid}
	err := tx.Get(&j)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		return store.Join{}, nil
	}
	return j, err
}

// joinOf is what is known of the machine with this key: nothing, when it was another key.
func joinOf(j store.Join, peer identity.Peer) store.Join {
	if j.SPKI == peer.SPKI {
		return j
	}
	return store.Join{ID: peer.Name.ID, Domain: peer.Name.Domain, SPKI: peer.SPKI}
}

// shown reads what a device shows. What the server knows needs no proof; all else has to be signed, or is none.
func (s *Server) shown(j store.Join, peer identity.Peer, b []byte) shownJoin {
	if len(b) == 0 {
		return shownJoin{}
	}
	hash := store.Hash(sha256.Sum256(b))
	switch hash {
	case j.State:
		return shownJoin{j.Counter, hash}
	case j.Next:
		return shownJoin{j.NextCounter, hash}
	}
	is, err := identity.VerifyJoinState(b, s.cfg.Roots)
	if err != nil || is.UID.String() != peer.Name.ID || is.SPKI != peer.SPKI || is.Counter > math.MaxInt64/2 {
		return shownJoin{}
	}
	return shownJoin{int64(is.Counter), hash}
}

// handOut makes the next join-state of a device. It counts when the row was stored, and not before.
func (s *Server) handOut(j *store.Join, peer identity.Peer) (wire.JoinState, error) {
	uid, err := identity.ParseUID(peer.Name.ID)
	if err != nil {
		return wire.JoinState{}, err
	}
	j.NextCounter = max(j.Counter, j.NextCounter) + 1
	next := identity.JoinState{UID: uid, SPKI: peer.SPKI, Counter: uint64(j.NextCounter), Time: s.now()}
	rand.Read(next.Random[:])
	b, err := next.Sign(s.cfg.Grant.Key, s.cfg.Grant.Cert)
	j.Next, j.Changed = sha256.Sum256(b), s.now().UTC()
	return wire.JoinState{Counter: next.Counter, State: b}, err
}

// settle writes what the hello of a device says, and gives it another join-state, when that is due. It runs beside the link: a
// commit may take seconds, and the device waits for its welcome.
func (s *Server) settle(ctx context.Context, l *link) {
	peer := l.peer
	var next *wire.JoinState
	var before map[identity.SPKI]time.Time
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		next, before = nil, nil // the transaction may run several times
		was, err := readJoin(tx, peer.Name.ID)
		if err != nil {
			return err
		}
		if was.Accepted == peer.SPKI && was.SPKI != peer.SPKI { // the machine that was chosen is here: the key before is over
			before = map[identity.SPKI]time.Time{was.SPKI: s.now().UTC()}
			if err := s.refuseKeys(tx, peer.Name, before); err != nil {
				return err
			}
		}
		j := joinOf(was, peer)
		shown := s.shown(j, peer, l.hello.JoinState)
		switch judgeJoin(j, shown, l.hello.Instance, s.now()) {
		case joinSettled:
			return nil
		case joinCloned: // by what another connection has changed since the hello; the next hello is judged by that
			return refuse(transport.Busy, "judged anew")
		case joinBehind:
			if err := tx.Append(s.record(actionJoinBehind, l.from.String(), peer.Name, nil, joinText(j, shown))); err != nil {
				return err
			}
		}
		j.Counter, j.State = shown.counter, shown.hash
		if joinIsDue(j, s.now()) || len(j.Instances) == 0 || j.Instances[0] != l.hello.Instance {
			given, err := s.handOut(&j, peer)
			if err != nil {
				return err
			}
			next = &given
		}
		return tx.Put(&j)
	})
	if err != nil {
		s.unsettled(l, err)
		return
	}
	if len(before) > 0 {
		s.presence.revokeAll(before, s.now())
		s.hint()
	}
	l.handOut(next)
}

// unsettled ends a link whose join-state could not be judged. While the store is damaged nothing is granted, and control
// connections stay all the same (access §1.5).
func (s *Server) unsettled(l *link, err error) {
	if errors.Is(err, store.ErrDamaged) {
		s.logFailure("a join-state is not changed", err, "uid", l.peer.Name.ID)
		return
	}
	l.closeWith(refusalOf(err))
}

// changeJoin gives an attached device another join-state when the last one is a day old, unless another process of it has
// been somewhere since. What fails is tried again in a day.
func (s *Server) changeJoin(ctx context.Context, l *link) {
	var next *wire.JoinState
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		next = nil
		j, err := readJoin(tx, l.peer.Name.ID)
		if err != nil || j.SPKI != l.peer.SPKI || !j.Cloned.IsZero() || !joinIsDue(j, s.now()) ||
			len(j.Instances) == 0 || j.Instances[0] != l.hello.Instance {
			return err
		}
		given, err := s.handOut(&j, l.peer)
		if err != nil {
			return err
		}
		next = &given
		return tx.Put(&j)
	})
	if err != nil {
		s.logFailure("a join-state is not changed", err, "uid", l.peer.Name.ID)
		return
	}
	l.handOut(next)
}

// joinAnswered notes that a device has answered the join-state that this link gave it last: so its process lives, and has
// stored it or could not. An answer to an older one says nothing any more. One that cannot be written is as good as lost on the
// way.
func (s *Server) joinAnswered(ctx context.Context, l *link, m wire.JoinStateAck) {
	handed := l.answered()
	if handed == 0 {
		return
	}
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		j, err := readJoin(tx, l.peer.Name.ID)
		if err != nil || j.SPKI != l.peer.SPKI || !j.Cloned.IsZero() || j.NextCounter != handed {
			return err
		}
		if m.Counter == uint64(handed) {
			j.Counter, j.State = j.NextCounter, j.Next
		}
		j.Instances = slices.DeleteFunc(j.Instances, func(i string) bool { return i == l.hello.Instance })
		j.Instances = slices.Insert(j.Instances, 0, l.hello.Instance)
		j.Instances = j.Instances[:min(len(j.Instances), maxInstances)]
		return tx.Put(&j)
	})
	if err != nil {
		s.logFailure("the answer to a join-state is not kept", err, "uid", l.peer.Name.ID)
	}
}

// withFresh adds a key that a machine with a cloned identity shows, or notes that it is shown again. Of too many, the oldest of
// the address with the most gives way, so that whoever makes many does not push out what comes from elsewhere; and no more than
// maxFresh are taken in freshFlood. It is pure.
func withFresh(fresh []store.FreshKey, k store.FreshKey) (with []store.FreshKey, ok bool) {
	fresh = slices.Clone(fresh)
	if i := slices.IndexFunc(fresh, func(has store.FreshKey) bool { return has.Key == k.Key }); i >= 0 {
		k.Since = fresh[i].Since
		if same := fresh[i]; same.Address == k.Address && same.Instance == k.Instance && k.At.Sub(same.At) < freshRecorded {
			return fresh, true
		}
		fresh[i] = k
		return fresh, true
	}
	if len(fresh) < maxFresh {
		return append(fresh, k), true
	}
	newest := slices.IndexFunc(fresh, func(has store.FreshKey) bool { return k.Since.Sub(has.Since) >= freshFlood })
	if newest < 0 {
		return fresh, false
	}
	from := make(map[string]int)
	for _, has := range fresh {
		from[hostOf(has.Address)]++
	}
	gone := 0
	for i, has := range fresh {
		was := fresh[gone]
		if c := from[hostOf(has.Address)] - from[hostOf(was.Address)]; c > 0 || c == 0 && has.At.Before(was.At) {
			gone = i
		}
	}
	return append(slices.Delete(fresh, gone, gone+1), k), true
}
