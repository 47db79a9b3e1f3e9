package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

const (
	// Each has its TLS and its buffers: without a bound one Manager could take the memory of a gateway.
	maxSessions = 16
	// A quarter: nobody fills a gateway alone, and an evening's forgotten sessions do not keep a colleague out.
	maxUserSessions = 4
)

// seat is one place that is taken.
type seat struct {
	session, user string
	since         time.Time
}

// share is the seats of one user.
type share struct {
	user   string
	n      int
	oldest seat
}

// place decides about one more session of a user (session §8.2): goes is the session that gives way, empty for none, and
// refused, unless it is empty, says why there is no place. It is pure.
func place(taken []seat, user string) (goes, refused string) {
	shares := sharesOf(taken)
	mine := 0
	for _, s := range shares {
		if s.user == user {
			mine = s.n
		}
	}
	switch {
	case mine >= maxUserSessions:
		return "", fmt.Sprintf("%s has %d sessions here already, which is the most: ", user, mine) + whoIsThere(shares)
	case len(taken) < maxSessions:
		return "", ""
	// As many are left to the one as the other has then: or two who come again and again would take each other's place.
	case shares[0].n-1 < mine+1:
		return "", fmt.Sprintf("all %d places of the gateway are taken: ", maxSessions) + whoIsThere(shares)
	}
	return shares[0].oldest.session, ""
}

// sharesOf groups by user: who has the most comes first, of equals the one with the oldest session.
func sharesOf(taken []seat) []share {
	by := map[string]share{}
	for _, t := range taken {
		s, ok := by[t.user]
		if !ok || older(t, s.oldest) < 0 {
			s.oldest = t
		}
		s.user = t.user
		s.n++
		by[t.user] = s
	}
	var all []share
	for _, s := range by {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b share) int { return cmp.Or(cmp.Compare(b.n, a.n), older(a.oldest, b.oldest)) })
	return all
}

func older(a, b seat) int {
	return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.session, b.session))
}

// maxWho is what the list of names may take of a text of 200 characters (wire §4.5).
const maxWho = 130

// whoIsThere names users, how many sessions each has, and since when. A name has no characters that would have to be cleaned.
func whoIsThere(shares []share) string {
	var b strings.Builder
	for i, s := range shares {
		one := fmt.Sprintf("%s %d since %s", s.user, s.n, s.oldest.since.UTC().Format("2006-01-02 15:04Z"))
		if i > 0 {
			one = ", " + one
		}
		if b.Len()+len(one) > maxWho {
			fmt.Fprintf(&b, " and %d more", len(shares)-i)
			break
		}
		b.WriteString(one)
	}
	return b.String()
}

// placeLocked decides about the place of an offer to a user; old is the session that it moves. others is how many places
// stay taken, goes who gives way, and full why there is no place.
func (s *sessions) placeLocked(old *running, user string) (goes *running, others int, full string) {
	var taken []seat
	now := s.agent.clock.Now()
	for id, r := range s.running {
		if !r.leaves {
			taken = append(taken, seat{id, r.user, now.Add(-time.Since(r.began))})
		}
	}
	if old != nil && !old.leaves {
		return nil, len(taken), ""
	}
	id, full := place(taken, user)
	if id == "" {
		return nil, len(taken), full
	}
	return s.running[id], len(taken) - 1, ""
}

// giveWayLocked ends the session of a user who has the most, for a newcomer.
func (s *sessions) giveWayLocked(r *running, newcomer string) {
	r.leaves = true
	r.cancel(&wire.Refusal{Reason: transport.Busy, Text: fmt.Sprintf("%sall %d places are taken, %s has the most, and %s has come",
		byEnd, maxSessions, r.user, newcomer)})
}
