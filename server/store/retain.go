package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hawser/identity"
)

// How long records are kept after their last change (access §1.6).
const (
	keepCodes   = 7 * 24 * time.Hour
	keepOthers  = 30 * 24 * time.Hour
	keepPeople  = 400 * 24 * time.Hour // who has lapsed comes back by a renewal, with all that he has stated
	keepReports = 60 * 24 * time.Hour  // longer than the session, which lasts 7 days and is kept for 30
	pruneAtOnce = 200                  // rows, of LIMIT below
)

// Prune removes what is too old to be of use. Errors are joined: a table that cannot be read must not keep the others
// from being pruned. It may be interrupted at any point and called again: each step is a transaction of its own.
func (s *Store) Prune(ctx context.Context, now time.Time) error {
	return errors.Join(
		prune(ctx, s, Code{}, " WHERE expires<? LIMIT 200", micros(now.Add(-keepCodes))),
		prune(ctx, s, Slot{}, " WHERE expires<? LIMIT 200", micros(now.Add(-keepCodes))),
		prune(ctx, s, Statement{}, " WHERE ends<>0 AND ends<? AND (serial=0 OR typ='hawser-invite' OR ends<?) LIMIT 200",
			micros(now.Add(-keepOthers)), micros(now.Add(-keepPeople))),
		prune(ctx, s, Session{}, " WHERE ended<>0 AND ended<? LIMIT 200", micros(now.Add(-keepOthers))),
		prune(ctx, s, Reported{}, " WHERE at<? LIMIT 200", micros(now.Add(-keepReports))),
		prune(ctx, s, Measured{}, " WHERE at<? LIMIT 200", micros(now.Add(-keepOthers))),
		prune(ctx, s, Decision{}, " WHERE at<? LIMIT 200", micros(now.Add(-keepOthers))),
	)
}

// prune deletes rows that a condition selects, some at a time: a long transaction would keep others waiting. Bad
// rows stay, for an operator to see. The rows are read before they are deleted, since each takes its seal out of the
// table's sums.
func prune[T any, P interface {
	*T
	Row
}](ctx context.Context, s *Store, template T, tail string, args ...any) error {
	for {
		var old []T
		err := s.View(ctx, func(t *Tx) (err error) {
			old, err = rows[T, P](t, template, tail, args, nil)
			return err
		})
		if err != nil || len(old) == 0 {
			return err
		}
		err = s.UpdateAlways(ctx, func(t *Tx) error {
			for i := range old {
				if err := t.Delete(P(&old[i])); err != nil && !errors.Is(err, ErrNotFound) {
					return err
				}
			}
			return nil
		})
		if err != nil || len(old) < pruneAtOnce {
			return err
		}
	}
}

// Retention says how much of its audit a node keeps. Room is the rule that always holds: a full disk would stop
// everything, while records that will go are told of before (nearlyFull).
type Retention struct {
	Age   time.Duration // records that are older go; 0: none goes for its age
	Bytes int64         // room for the audit of a node, by recordBytes; 0: DefaultAuditBytes
}

// DefaultAuditBytes is some four million records. Without a default the audit of a server that nobody looks after would
// fill its disk.
const DefaultAuditBytes = 2 << 30

func (r Retention) orDefault() Retention {
	r.Bytes = cmp.Or(r.Bytes, DefaultAuditBytes)
	return r
}

const (
	cutAtOnce = 8  // buckets in a transaction, which must not keep others waiting for long
	cutForAge = 24 // buckets in a call that go for their age: a clock that is years ahead must not empty the audit in an hour

	// recordOverhead is what a record takes in the database beside its texts: its seal, its number and its time, and
	// the keys of four indexes. TestRecordBytesIsWhatTheFileGrowsBy compares it with a file.
	recordOverhead = 220
)

// recordBytes says how much room a record takes in the database. Reckoned and not asked of the database: the size of a
// file says nothing of one node, and does not shrink when rows go.
func recordBytes(r Record) int64 {
	once := len(r.Action) + len(r.Result) + len(r.Detail) + len(r.Report) + len(r.Prev) + len(r.Hash)
	twice := len(r.Domain) + len(r.Actor) + len(r.Object) // in the row, and in an index of its own
	return int64(once + 2*twice + 5*len(r.Node) + recordOverhead)
}

// auditExtent is what a node's audit takes.
type auditExtent struct {
	begins  Checkpoint // the last record that went; the zero Checkpoint: none did
	last    int64      // seq of the newest record; 0: there is none
	oldest  time.Time  // of the first record that is there
	newest  time.Time
	average int64  // bytes of a record
	most    string // whom most of the bytes are about that can be thinned; empty: nobody has so many
}

// small reports whether all of it is less than what goes at once. How large its records are is not known then.
func (e auditExtent) small() bool { return e.records() < auditBucket }

func (e auditExtent) records() int64 { return e.last - e.begins.Seq }
func (e auditExtent) bytes() int64   { return e.records() * e.average }

// How many records tell how large records are. They stand all over the audit: of the newest alone, a user could write some
// with long texts, and old records of others would go for room that nothing takes.
const (
	sampleSpots = 16
	sampledEach = 16 // records in a row
)

// auditExtent measures the audit of a node. It reads 256 records at most; to add up all of them would
// read millions of rows once an hour.
func (t *Tx) auditExtent(node string) (e auditExtent, err error) {
	h, err := t.head(node)
	if err != nil {
		return e, err
	}
	e.last = h.auditSeq
	if e.begins, err = t.Checkpoint(node); err != nil {
		return e, err
	}
	if e.begins.Seq >= e.last {
		e.begins = Checkpoint{} // it is damaged, or there is none: the newest records always stay
	}
	if e.small() {
		return e, nil // whoever asks each hour need not read hundreds of records for that
	}
	var read, all int64
	about := make(map[string]int64)
	for i := range int64(sampleSpots) {
		after := e.begins.Seq + max(0, e.records()-sampledEach)*i/(sampleSpots-1)
		list, err := t.soundAudit(node, after, sampledEach)
		if err != nil {
			return e, err
		}
		for _, r := range list {
			if read == 0 {
				e.oldest = r.Time
			}
			read++
			e.average += recordBytes(r)
			e.newest = r.Time
			if slices.Contains(canBeThinned(), r.Action) {
				about[r.Object] += recordBytes(r)
			}
		}
	}
	all, e.average = e.average, max(1, e.average/max(1, read))
	for who, bytes := range about {
		if bytes >= all/thinShare && (e.most == "" || bytes > about[e.most] || bytes == about[e.most] && who < e.most) {
			e.most = who
		}
	}
	return e, nil
}

const (
	thinShare  = 4 // whom a quarter of the audit is about has written most of it
	thinAtOnce = 500

	// thinned is the domain of a record that has lost its content. No domain is called so, and nobody reads of it.
	thinned    = "-"
	actionThin = "audit-thin"
)

// canBeThinned lists the actions that a device or a user causes as often as he likes (access §1.6). What an admin has done
// stays as long as the rest.
func canBeThinned() []string {
	return []string{"online", "offline", "renew", "enroll-refused", "user-renew", "session-open", "session-move", "session-end", "session-refused", "session-report"}
}

// isThinned tells whether only the place of a record in its chain is left.
func (r *Record) isThinned() bool { return r.Domain == thinned }

// thinAudit takes the content from the oldest records about whom most of the audit is, when there is no room, and reports how
// many it were: so those of others need not go for them. Their hashes stay, and the chain with them. The newest block stays as it is.
func (t *Tx) thinAudit(node string, r Retention, now time.Time) (n int, err error) {
	e, err := t.auditExtent(node)
	if err != nil || e.most == "" || e.bytes() < r.Bytes {
		return 0, err
	}
	args := []any{e.most, node, e.last - auditBucket}
	for _, action := range canBeThinned() {
		args = append(args, action)
	}
	tail := " WHERE object=? AND node||''=? AND seq<=? AND action||'' IN (?" + strings.Repeat(",?", len(canBeThinned())-1) + ") ORDER BY at, node, seq LIMIT ?"
	old, err := rows(t, Record{}, tail, append(args, thinAtOnce), nil)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	for i := range old {
		was := &old[i]
		if err := t.Put(&Record{Node: was.Node, Seq: was.Seq, Time: was.Time, Domain: thinned, Object: thinned, Prev: was.Prev, Hash: was.Hash}); err != nil {
			return 0, err
		}
	}
	return len(old), t.Append(Record{Time: now, Actor: identity.AccessName(node).String(), Action: actionThin, Result: "ok",
		Detail: fmt.Sprintf("%d records about %s lost their content, up to record %d", len(old), e.most, old[len(old)-1].Seq)})
}

// soundAudit is AuditChain without damaged records: what stands in them must not make others go.
func (t *Tx) soundAudit(node string, after int64, limit int) ([]Record, error) {
	return rows(t, Record{}, " WHERE node=? AND seq>? ORDER BY seq LIMIT ?", []any{node, after, limit}, nil)
}

// lastOf is the last record of a bucket, as far as a cut needs it: the record after it knows its hash when it is damaged
// itself. ok is false when neither can be read; then the bucket goes with the one behind it, or stays.
func (t *Tx) lastOf(node string, bucket int64) (last Checkpoint, ok bool, err error) {
	seq := (bucket+1)*auditBucket - 1
	list, err := t.soundAudit(node, seq-1, 2)
	if err != nil || len(list) == 0 {
		return last, false, err
	}
	last = Checkpoint{Node: node, Seq: seq, Hash: list[0].Hash, At: list[0].Time}
	if list[0].Seq == seq+1 {
		last.Hash = list[0].Prev
	}
	return last, list[0].Seq <= seq+1, nil
}

// nearlyFull says that records will go for want of room, while there is time to do something about it, or nil. That they
// go for their age was asked for. It is pure.
func (r Retention) nearlyFull(e auditExtent) error {
	if e.bytes() < r.Bytes/10*9 || r.Age > 0 && e.newest.Sub(e.oldest) > r.Age {
		return nil
	}
	return fmt.Errorf("the audit takes %s of %s: its oldest records, of %s, go when it is full; keep a backup that has them, "+
		"raise access.audit.max_mb, or set access.audit.days, which says how long they are wanted",
		bytesText(e.bytes()), bytesText(r.Bytes), e.oldest.Format(time.DateOnly))
}

// AuditNearlyFull says that the oldest records of this node's audit will soon go for want of room, or nil. The second
// error is of the store.
func (s *Store) AuditNearlyFull(ctx context.Context) (full, err error) {
	err = s.View(ctx, func(t *Tx) error {
		e, err := t.auditExtent(s.node)
		full = s.audit.nearlyFull(e)
		return err
	})
	return full, err
}

// mustGo reports whether a bucket goes whose last record is seq, of the time at; aged counts those that went for their
// age. It is pure. The bound of a call is for age alone: what has no room must go now.
func (r Retention) mustGo(e auditExtent, seq int64, at, now time.Time, aged int) (goes, forAge bool) {
	if (e.last-seq)*e.average >= r.Bytes {
		return true, false
	}
	forAge = r.Age > 0 && aged < cutForAge && at.Before(now.Add(-r.Age))
	return forAge, forAge
}

// PruneAudit removes the oldest records of this node's audit that Options.Audit does not keep, whole buckets, and returns
// the checkpoint that took their place; the zero Checkpoint: nothing went. The audit says so itself. sign makes the proof
// of the checkpoint; nil: it has none. Each step is a transaction of its own: operations that wait get their turn in
// between.
func (s *Store) PruneAudit(ctx context.Context, now time.Time, sign func(Checkpoint) ([]byte, error)) (cut Checkpoint, err error) {
	for thin := 1; thin > 0; {
		err := s.UpdateAlways(ctx, func(t *Tx) (err error) {
			thin, err = t.thinAudit(s.node, s.audit, now)
			return err
		})
		if err != nil {
			return cut, fmt.Errorf("thin audit records: %w", err)
		}
	}
	for aged := 0; ; {
		var c Checkpoint
		var more bool
		var old int
		err := s.UpdateAlways(ctx, func(t *Tx) (err error) {
			c, old, more, err = t.cutAudit(s.node, s.audit, now, aged, sign)
			return err
		})
		if err != nil {
			return cut, fmt.Errorf("remove old audit records: %w", err)
		}
		if aged += old; c.Seq > 0 {
			cut = c
		}
		if !more {
			return cut, nil
		}
	}
}

// cutAudit removes at most cutAtOnce buckets, and reports how many of them went for their age, and whether there may be
// more. The zero Checkpoint: there was nothing to remove.
func (t *Tx) cutAudit(node string, r Retention, now time.Time, aged int, sign func(Checkpoint) ([]byte, error)) (c Checkpoint, old int, more bool, err error) {
	e, err := t.auditExtent(node)
	if err != nil || e.small() {
		return c, 0, false, err
	}
	first := (e.begins.Seq + 1) / auditBucket
	if there, err := t.soundAudit(node, e.begins.Seq, 1); err != nil {
		return c, 0, false, err
	} else if len(there) > 0 { // a checkpoint that is damaged or lost must not end this for ever
		first = there[0].Seq / auditBucket
	}
	end := first                                                              // the first bucket that stays
	for b := first; b < first+cutAtOnce && (b+1)*auditBucket <= e.last; b++ { // the newest bucket always stays
		last, ok, err := t.lastOf(node, b)
		if err != nil {
			return Checkpoint{}, 0, false, err
		}
		if !ok {
			continue
		}
		goes, forAge := r.mustGo(e, last.Seq, last.At, now, aged+old)
		if !goes {
			break
		}
		if forAge {
			old++
		}
		end, c = b+1, last
	}
	if end == first {
		return Checkpoint{}, 0, false, nil
	}
	c.At = now
	// Signed in the transaction that removes: a checkpoint without its proof looks like one that somebody else made.
	if sign != nil {
		if c.Proof, err = sign(c); err != nil {
			return Checkpoint{}, 0, false, err
		}
	}
	// The records leave by one statement, without their seals: their sums go whole, and the chain of commits has the cut
	// by the record that says so.
	t.work.wrote = true
	return c, old, end == first+cutAtOnce, errors.Join(
		t.exec("DELETE FROM audit WHERE node=? AND seq<=?", node, c.Seq),
		t.exec("DELETE FROM sums WHERE tbl=? AND bucket<?", auditSums(node), end),
		t.exec("INSERT INTO checkpoints (node,seq,hash,at,proof) VALUES (?,?,?,?,?) ON CONFLICT (node) DO UPDATE "+
			"SET seq=excluded.seq, hash=excluded.hash, at=excluded.at, proof=excluded.proof",
			node, c.Seq, c.Hash, micros(now), base64.StdEncoding.EncodeToString(c.Proof)),
		t.Append(Record{Time: now, Actor: identity.AccessName(node).String(), Action: actionCut, Result: "ok",
			Detail: fmt.Sprintf("records %d to %d were removed", e.begins.Seq+1, c.Seq)}))
}
