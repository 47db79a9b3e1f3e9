package access

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/server/gate"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Limits on gateways that wait to be claimed (access §2.2). Anybody can say that he is one.
const (
	claimRetry      = 30 * time.Second
	claimForgotten  = 2 * time.Hour // after its last question; they come every hour at last
	mostClaims      = 1024
	mostClaimsOfOne = 64 // source: a site has many behind one address
)

// claims are the gateways that wait to be claimed, as far as this process remembers: what it shows of them helps people to
// recognize one, and decides nothing. Too many of one source, or of all, push the oldest out; who is still there asks again.
// The zero value works; it is safe for concurrent use.
type claims struct {
	mu   sync.Mutex
	list []waiting // by their last question, oldest first
}

// waiting is one of them. Who does not have its code is another one.
type waiting struct {
	claimed     // the hash is that of auth: who knows it has the code
	from        netip.Addr
	hints       map[string]string
	since, seen time.Time
}

// note remembers a question.
func (c *claims) note(w waiting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.since = w.seen
	source, oldest, of := gate.Source(w.from), -1, 0
	c.list = slices.DeleteFunc(c.list, func(o waiting) bool {
		same := o.claimed == w.claimed
		if same {
			w.since = o.since
		}
		return same || w.seen.Sub(o.seen) >= claimForgotten
	})
	for i, o := range c.list {
		if gate.Source(o.from) == source {
			if of++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case of >= mostClaimsOfOne:
		c.list = slices.Delete(c.list, oldest, oldest+1)
	case len(c.list) >= mostClaims:
		c.list = slices.Delete(c.list, 0, 1)
	}
	c.list = append(c.list, w)
}

// find returns who waits with a code, or nil.
func (c *claims) find(of claimed, now time.Time) *api.Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(o waiting) bool { return o.claimed == of && now.Sub(o.seen) < claimForgotten })
	if i < 0 {
		return nil
	}
	w := c.list[i]
	return &api.Claim{Lookup: w.Lookup, Address: w.from.String(), Hints: w.hints, Since: w.since, Seen: w.seen}
}

// forget is for who has enrolled.
func (c *claims) forget(of claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.DeleteFunc(c.list, func(o waiting) bool { return o.claimed == of })
}

// awaitClaim answers a gateway whose code nobody has claimed yet; nil: there is such a code, whoever's it is. It is no wrong
// code, and counted by itself.
func (s *Server) awaitClaim(ctx context.Context, from netip.Addr, shown credential, hints map[string]string) error {
	if !shown.owners {
		return errBadCode
	}
	if wait := s.asked.wait(shown.lookup, from, s.now()); wait > 0 {
		return busy(wait)
	}
	err := s.store.View(ctx, func(tx *store.Tx) error { return tx.Get(&store.Code{Lookup: shown.lookup}) })
	if !errors.Is(err, store.ErrNotFound) {
		return nil // also a row that is damaged: the transaction of the enrollment says so
	}
	s.asked.add(shown.lookup, from, s.now())
	s.claims.note(waiting{claimed: claimed{shown.lookup, shown.hash}, from: from, hints: cleanHints(hints), seen: s.now().UTC()})
	return s.orLost(&wire.Refusal{Reason: transport.Pending, Text: "nobody has claimed this gateway yet", RetryAfter: claimRetry})
}

// getClaim shows the gateway that waits with a code, to whoever knows it.
func (s *Server) getClaim(r request) (int, any, error) {
	hash, err := hex.DecodeString(r.URL.Query().Get(api.ParamHash))
	if err != nil || len(hash) != len(store.Hash{}) {
		return 0, nil, errNotFound
	}
	of := claimed{r.vars["lookup"], store.Hash(hash)}
	found := s.claims.find(of, s.now())
	for _, node := range s.cluster.state.liveNodes() {
		if found != nil {
			break
		}
		// One that does not answer shows nothing: then the gateway is claimed unseen.
		if reply, err := s.orderOf(r.Context(), node, orderGrace, order{Claim: &of}); err == nil {
			found = reply.Claim
		}
	}
	if found == nil {
		return 0, nil, errNotFound
	}
	return http.StatusOK, found, nil
}
