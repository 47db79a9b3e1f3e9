package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// systemTables have no seals: what is in them is compared with what it is about.
func systemTables() []string {
	return []string{"meta", "sums", "heads", "commits", "changes", "checkpoints", "leases", "accepted"}
}

// verifySystem compares what nodes know of themselves with their commits and their audit. Each table is its own
// transaction: one that cannot be read must not hide what the other says.
func (s *Store) verifySystem(ctx context.Context) error {
	for table, look := range map[string]func(*Tx) ([]Finding, error){
		"meta":  (*Tx).verifyMeta,
		"heads": (*Tx).verifyHeads,
	} {
		var list []Finding
		err := s.View(ctx, func(t *Tx) (err error) {
			list, err = look(t)
			return err
		})
		if err != nil {
			if err := s.unreadable(table, err); err != nil {
				return err
			}
			continue
		}
		s.found(table, list)
	}
	return nil
}

// verifyMeta looks at the names of the database, and at the trees of all tables of this kind. All of it is grave: with
// a wrong id or incarnation nothing can be said of what is missing.
func (t *Tx) verifyMeta() (list []Finding, err error) {
	for _, table := range systemTables() {
		found, err := t.integrity(table)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			list = append(list, Finding{Table: "meta", Key: table, Text: f.Text, Grave: true})
		}
	}
	want, err := t.metaSealNow()
	if err != nil {
		return nil, err
	}
	if got, err := t.meta(metaSeal); err != nil {
		return nil, err
	} else if got != want {
		list = append(list, Finding{Table: "meta", Text: "the id or the incarnation is not the one that was written", Grave: true})
	}
	return list, nil
}

// verifyHeads compares the head of each node with its last commit: followers go by the one, and damage by the other.
func (t *Tx) verifyHeads() (list []Finding, err error) {
	nodes, err := t.allNodes()
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		say := func(text string) { list = append(list, Finding{Table: "heads", Key: node, Text: text, Grave: true}) }
		h, err := t.head(node)
		if errors.Is(err, sql.ErrNoRows) {
			say("a node has written, and its row is missing")
			continue
		}
		if err != nil {
			return nil, err
		}
		gen, chain, err := t.lastCommit(node)
		if err != nil {
			return nil, err
		}
		// This finds a head that was put back alone. One that was put back with its commits has both right, and is found by
		// the progress beside the database.
		if gen != h.gen || chain != h.chain {
			say(fmt.Sprintf("the last commit is %d, and it was %d, or another one", gen, h.gen))
		}
	}
	return list, nil
}

// lastCommit returns the newest commit of a node that is there; zero: there is none. By the key and not by the head:
// the two are compared with each other.
func (t *Tx) lastCommit(node string) (gen int64, chain string, err error) {
	err = t.one("SELECT gen,chain FROM commits WHERE node=? ORDER BY gen DESC LIMIT 1", []any{node}, &gen, &chain)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return gen, chain, err
}

// allNodes lists the nodes that have written anything, also those whose heads are missing. From all tables and not from
// nodes: an audit whose node was removed from there still has to be verified.
func (t *Tx) allNodes() ([]string, error) {
	nodes := make(map[string]bool)
	for _, table := range []string{"heads", "commits", "audit", "checkpoints"} {
		for last := ""; ; { // the next name in the order of the key: nothing is counted through
			var node string
			err := t.one("SELECT node FROM "+table+" WHERE node>? ORDER BY node LIMIT 1", []any{last}, &node)
			if errors.Is(err, sql.ErrNoRows) {
				break
			}
			if err != nil {
				return nil, err
			}
			nodes[node], last = true, node
		}
	}
	rows, err := t.query("SELECT DISTINCT tbl FROM sums WHERE tbl>=? AND n<>0", auditSums(""))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			return nil, t.check(err)
		}
		if node, ok := strings.CutPrefix(table, auditSums("")); ok {
			nodes[node] = true
		}
	}
	return slices.Sorted(maps.Keys(nodes)), t.check(errors.Join(rows.Err(), rows.Close()))
}

// auditAtStart is how many of the newest audit records of a node are read before the store opens. What an accident at
// the last shutdown has done is at the end; to read millions of records would delay the start, and they are read within
// 7 days anyway (access §1.3).
const auditAtStart = 10_000

// auditSteps lists what it takes to read the newest records of the audit of each node, in pieces. Steps and no loop, so
// that the caller can spread them over a week or run them at once.
func (s *Store) auditSteps(ctx context.Context, newest int64) (steps []func(context.Context) error, err error) {
	err = s.View(ctx, func(t *Tx) error {
		nodes, err := t.allNodes()
		if err != nil {
			return err
		}
		for _, node := range nodes {
			last, err := t.lastRecord(node)
			if err != nil {
				return err
			}
			buckets, err := t.auditBuckets(node, max(0, last.Seq-newest)/auditBucket)
			if err != nil {
				return err
			}
			for _, b := range buckets {
				steps = append(steps, func(ctx context.Context) error { return s.verifyAudit(ctx, node, b) })
			}
		}
		return nil
	})
	return steps, err
}

// lastRecord returns place and hash of the newest record of a node that is there, of the zero Record when none is.
func (t *Tx) lastRecord(node string) (r Record, err error) {
	r.Node = node
	err = t.one("SELECT seq,hash FROM audit WHERE node=? ORDER BY seq DESC LIMIT 1", []any{node}, &r.Seq, &r.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return r, err
}

// auditBuckets lists the buckets of a node's audit, from one on, that have records or a sum, and the one of its head.
// Those with a sum and no records are among them, and the other way round: either is a finding.
func (t *Tx) auditBuckets(node string, from int64) ([]int64, error) {
	sums, err := t.readSums(auditSums(node))
	if err != nil {
		return nil, err
	}
	buckets := make(map[int64]bool)
	for b := range sums {
		buckets[b] = b >= from
	}
	for next := from * auditBucket; ; {
		var seq int64
		err := t.one("SELECT seq FROM audit WHERE node=? AND seq>=? ORDER BY seq LIMIT 1", []any{node, next}, &seq)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return nil, err
		}
		buckets[seq/auditBucket] = true
		next = (seq/auditBucket + 1) * auditBucket
	}
	h, err := t.head(node)
	// The head counts even without its record: the newest records may be what is missing.
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	buckets[h.auditSeq/auditBucket] = true
	maps.DeleteFunc(buckets, func(_ int64, wanted bool) bool { return !wanted })
	return slices.Sorted(maps.Keys(buckets)), nil
}

// verifyAudit compares one bucket of the audit of a node with its sum and its chain. The record before it is known by
// its hash, and the last record by the head. In one snapshot, since the writer changes records and sum together.
func (s *Store) verifyAudit(ctx context.Context, node string, bucket int64) error {
	var list []Finding
	err := s.View(ctx, func(t *Tx) (err error) {
		list, err = t.verifyAudit(node, bucket)
		if err == nil {
			list, err = t.withoutAccepted(list)
		}
		return err
	})
	if errors.Is(err, ErrDamaged) {
		// Not grave, as it would be of another table: no grant depends on what an audit says.
		list, err = []Finding{auditFinding(node, bucket, "cannot be read: "+err.Error())}, nil
	}
	if err != nil {
		return err
	}
	s.foundAudit(list)
	return nil
}

func auditFinding(node string, bucket int64, text string) Finding {
	return Finding{Table: schema.audit.name, Key: fmt.Sprintf("%s, records %d to %d", node, bucket*auditBucket, (bucket+1)*auditBucket-1), Text: text}
}

// foundAudit adds what was found in the audit; it stays until the store is accepted. Unlike other findings these do not
// go when the place is read again: what a chain has lost is lost (access §1.3).
func (s *Store) foundAudit(list []Finding) {
	s.mu.Lock()
	fresh := slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return slices.Contains(s.health.Findings, f) })
	s.health.Findings = append(s.health.Findings, fresh...)
	s.mu.Unlock()
	s.sayDamaged(fresh, nil)
}

// withoutAccepted leaves out what an operator has accepted: a gap in a chain cannot be mended.
func (t *Tx) withoutAccepted(list []Finding) (rest []Finding, err error) {
	for _, f := range list {
		var known int
		err := t.one("SELECT 1 FROM accepted WHERE tbl=? AND place=? AND finding=?", []any{f.Table, f.Key, f.Text}, &known)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			rest = append(rest, f)
		case err != nil:
			return nil, err
		}
	}
	return rest, nil
}

func (t *Tx) verifyAudit(node string, bucket int64) (list []Finding, err error) {
	from, to := bucket*auditBucket, (bucket+1)*auditBucket-1
	say := func(text string) { list = append(list, auditFinding(node, bucket, text)) }
	h, err := t.head(node)
	if err != nil && !errors.Is(err, sql.ErrNoRows) { // that one is missing is said by verifyHeads
		return nil, err
	}
	var got sum
	last, known, err := t.recordBefore(node, from)
	if err != nil {
		return nil, err
	}
	err = t.scanTable(schema.audit, schema.audit.sql.selectAll+" WHERE node=? AND seq>=? AND seq<=? ORDER BY seq", []any{node, from, to},
		func(r Row, s scanned, damage error) error {
			// Also of a damaged row: the sum is over what stands there, and says whether rows are missing or others.
			got.add(sealFrom(s.seal))
			record := *r.(*Record)
			switch {
			case damage != nil:
			case !known && record.Seq != 1:
				damage = fmt.Errorf("verify audit record %d of %s: the records before it are missing", record.Seq, node)
			default:
				damage = follows(record, last, known)
			}
			if damage != nil && len(list) < maxFindings {
				say(damage.Error())
			}
			last, known = record, true
			return nil
		})
	if err != nil {
		return nil, err
	}
	want, err := t.readSum(sumKey{auditSums(node), bucket})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if want != got {
		say(fmt.Sprintf("%d records where there were %d, or others", got.n, want.n))
	}
	if bucket == h.auditSeq/auditBucket && h.auditSeq > 0 && (last.Seq != h.auditSeq || last.Hash != h.auditHash) {
		say(fmt.Sprintf("the last record is %d, and it was %d", last.Seq, h.auditSeq))
	}
	return list, nil
}

// recordBefore returns what is known of the record before a bucket: the newest that is there, or the checkpoint that
// took its place. The checkpoint counts when it is newer: then the records before it went in order.
func (t *Tx) recordBefore(node string, from int64) (r Record, known bool, err error) {
	c, err := t.Checkpoint(node)
	if err != nil {
		return r, false, err
	}
	r.Node = node
	err = t.one("SELECT seq,hash FROM audit WHERE node=? AND seq<? ORDER BY seq DESC LIMIT 1", []any{node, from}, &r.Seq, &r.Hash)
	if err == nil && r.Seq >= c.Seq {
		return r, true, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return r, false, err
	}
	return Record{Node: node, Seq: c.Seq, Hash: c.Hash}, c.Seq > 0, nil
}
