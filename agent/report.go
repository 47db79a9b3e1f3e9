package agent

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// The bounds of wire §4.10: what is kept of a session until it is reported, and of reports until they are answered.
const (
	reportEvery = time.Hour
	reportFull  = time.Minute // after a report, when the entries are used up
	reportRetry = time.Minute
	maxEntries  = 48 // of a session, between two reports
	ownEntries  = 24 // while there are fewer, a stream has one of its own,
	sameEntries = 4  // unless so many streams to its target have ended as it has
	maxReports  = 64 // of 4 KiB
)

// ledger is what the streams of one epoch of a session have carried since the last report. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex // guards the rest
	running map[*entry]bool
	page    page
	refused int64 // that were reported
	parts   uint64
	last    time.Time // of the last report, by the monotonic clock
}

// entry is a stream that is open.
type entry struct {
	stream  *mux.Stream
	target  string
	begin   int64
	in, out int64 // that were reported; guarded by the ledger
}

func newLedger() ledger { return ledger{running: make(map[*entry]bool), last: time.Now()} }

// begin notes a stream that has reached its target.
func (l *ledger) begin(s *mux.Stream, target string, now time.Time) *entry {
	e := &entry{stream: s, target: target, begin: now.Unix()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[e] = true
	return e
}

// end notes that it is over, when both directions have come to rest.
func (l *ledger) end(e *entry, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, e)
	r, err := e.since()
	r.End, r.Reason = now.Unix(), string(transport.Closed)
	if err != nil {
		r.Reason = string(transport.ReasonOf(err))
	}
	l.page.add(r)
}

// since is what a stream has carried since it was last asked.
func (e *entry) since() (identity.Reached, error) {
	in, out, err := e.stream.Carried()
	r := identity.Reached{Target: e.target, Begin: e.begin, Carried: identity.Carried{In: uint64(in - e.in), Out: uint64(out - e.out), Count: 1}}
	e.in, e.out = in, out
	return r, err
}

// due tells whether a session that runs is to be reported.
func (l *ledger) due(tick time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := tick.Sub(l.last)
	return since >= reportEvery || since >= reportFull && len(l.page.entries) == maxEntries
}

// take returns what there is to report, with the number of its first part, and begins anew. refused is how many streams
// were refused so far.
func (l *ledger) take(refused int64) (p page, fresh int64, part uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.running {
		r, _ := e.since()
		l.page.add(r)
	}
	p, fresh, part = l.page, refused-l.refused, l.parts+1
	l.page, l.refused, l.last = page{}, refused, time.Now()
	l.parts += uint64(p.parts())
	return p, fresh, part
}

// page is what one round of reports says of streams.
type page struct {
	entries []identity.Reached // at most maxEntries
	more    identity.Carried   // found no place
}

// add gives a stream an entry of its own, or folds it into the last one with its target and its end. A session of 10,000
// connections to a web page has so a few entries, and one to five machines tells of each connection.
func (p *page) add(r identity.Reached) {
	same, last := 0, -1
	for i, e := range p.entries {
		if e.Target == r.Target && e.Reason == r.Reason {
			same, last = same+1, i
		}
	}
	switch {
	case last < 0 && len(p.entries) < maxEntries, same < sameEntries && len(p.entries) < ownEntries && r.Reason != "":
		p.entries = append(p.entries, r)
	case last >= 0:
		e := &p.entries[last]
		e.Begin, e.End = min(e.Begin, r.Begin), max(e.End, r.End)
		e.Add(r.Carried)
	default:
		p.more.Add(r.Carried)
	}
}

// parts is how many reports it takes, at least one.
func (p page) parts() int {
	return max(1, (len(p.entries)+identity.MaxReached-1)/identity.MaxReached)
}

// report signs what is new of a session that was up, and queues it; an empty reason: it still runs.
func (s *sessions) report(r *running, reason transport.Reason) {
	if r.live == nil {
		return // it has reached nothing
	}
	a := s.agent
	var refused int64
	for _, n := range r.live.Counts().Refused {
		refused += n
	}
	p, fresh, part := r.ledger.take(refused)
	now := a.clock.Now()
	said := identity.Report{
		Domain: r.self.Name.Domain, UID: r.self.UID, Session: r.offer.Session, Epoch: uint64(r.offer.Epoch), User: r.user, Peer: r.offer.PeerSPKI,
		// By the monotonic clock: the clock may have been set since.
		Begin: now.Add(-time.Since(r.began)).Unix(), At: now.Unix(), More: p.more, Refused: uint64(fresh),
	}
	key, _ := r.self.Cert.PrivateKey.(crypto.Signer)
	for i := range p.parts() {
		n := min(len(p.entries), identity.MaxReached)
		said.Streams = append([]identity.Reached{}, p.entries[:n]...)
		p.entries = p.entries[n:]
		said.Part = part + uint64(i)
		if len(p.entries) == 0 && reason != "" {
			said.End, said.Reason = now.Unix(), string(reason)
		}
		if err := a.reports.sign(said, key, r.self.SPKI); err != nil {
			a.log.Error("session not reported", "session", r.offer.Session, "err", err)
		}
		said.More, said.Refused = identity.Carried{}, 0
	}
}

// reports are those that no Access Server has answered yet. They are in memory alone: a flash is not written to for them. It
// is safe for concurrent use.
type reports struct {
	bell wait.Bell // there is another first one

	mu    sync.Mutex // guards the rest
	list  []report   // oldest first, at most maxReports
	lost  uint64
	owner identity.SPKI // of the identity that all of them are of
}

type report struct{ jws, user string }

// sign signs a report and queues it. When there is no room, the oldest report of the user with the most of them goes: one user
// does not push out what is said of others.
func (q *reports) sign(r identity.Report, key crypto.Signer, by identity.SPKI) error {
	if key == nil {
		return errors.New("the identity has no key")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if by != q.owner {
		return errors.New("the identity was replaced")
	}
	if len(q.list) == maxReports {
		q.list = slices.Delete(q.list, crowded(q.list), crowded(q.list)+1)
		q.lost++
	}
	r.Lost = q.lost
	signed, err := r.Sign(key)
	if err != nil {
		q.lost++
		return err
	}
	q.list = append(q.list, report{signed.JWS, r.User})
	q.bell.Ring()
	return nil
}

// crowded is the oldest report of the user who has most of them.
func crowded(list []report) int {
	count := make(map[string]int)
	for _, r := range list {
		count[r.user]++
	}
	oldest := 0
	for i, r := range list {
		if count[r.user] > count[list[oldest].user] {
			oldest = i
		}
	}
	return oldest
}

// first is the oldest report; empty: there is none.
func (q *reports) first() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return ""
	}
	return q.list[0].jws
}

// answered removes a report. One that was refused is lost; so is known when the server is asked no more.
func (q *reports) answered(m wire.ReportAck) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.list, func(r report) bool { return wire.ReportID(r.jws) == m.Report })
	if i < 0 {
		return
	}
	q.list = slices.Delete(q.list, i, i+1)
	if m.Reason != "" {
		q.lost++
	}
	q.bell.Ring()
}

// keep drops what is not of this identity: another owner's server need not see it.
func (q *reports) keep(owner identity.SPKI) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.owner != owner {
		q.owner, q.list, q.lost = owner, nil, 0
	}
}

// reported takes the server's answer.
func (a *Agent) reported(m wire.ReportAck) {
	if m.Reason != "" {
		a.log.Warn("session report refused", "reason", wire.Printable(string(m.Reason)))
	}
	a.reports.answered(m)
}

// keepReporting sends reports, one after the other, until ctx ends.
func (a *Agent) keepReporting(ctx context.Context, link *control.Link) {
	if !link.Welcome.Reports {
		return
	}
	for sent := ""; ctx.Err() == nil; {
		// A timer only while an answer is waited for: an idle gateway sleeps.
		var late <-chan time.Time
		jws := a.reports.first()
		if jws != "" && jws != sent {
			if link.Report(jws) != nil {
				return // link.Run finds out as well
			}
		}
		if sent = jws; jws != "" {
			late = time.After(reportRetry)
		}
		select {
		case <-a.reports.bell:
		case <-late:
			sent = ""
		case <-ctx.Done():
		}
	}
}
