package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Accept takes the database for right as it is, for an operator who knows what was lost: what is missing stays missing.
// Sums are made anew, a new incarnation begins, and the audit says what was accepted. A bad row of a revoked key stays
// revoked, as far as it can be read; other bad rows stay bad, and shut out their subjects until they are written again.
// Other nodes learn of it while they run. An SQLite file whose trees are broken is not accepted: only a backup helps.
// When it returns, everything has been read again.
func (s *Store) Accept(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case s.alone <- func() { done <- s.accept(ctx) }:
	case <-ctx.Done():
		return fmt.Errorf("accept store %s: %w", s.engine.where, ctx.Err())
	case <-s.closing:
		return fmt.Errorf("accept store %s: it is closed", s.engine.where)
	}
	if err := <-done; err != nil {
		return fmt.Errorf("accept store %s: %w", s.engine.where, err)
	}
	return nil
}

// accept runs where commits do, so that there are none beside it.
func (s *Store) accept(ctx context.Context) error {
	// All of it and not what is known so far: the scrub takes a week, and whoever accepts wants to know what.
	before, err := s.ReadAll(ctx)
	if err != nil {
		return err
	}
	var now progress
	err = s.transact(ctx, func(t *Tx) (err error) {
		now, err = s.acceptIn(t, before)
		return err
	})
	if err != nil {
		return err
	}
	// After the commit, as for every commit: a crash in between leaves a database with a newer incarnation, which is
	// believed.
	if err := s.progress.save(now); err != nil {
		return err
	}
	s.mu.Lock()
	s.known, s.astray, s.stale = now, "", false
	s.health = Health{}
	s.mu.Unlock()
	s.log.Warn("an operator has accepted the store as it is", "store", s.engine.where)
	if err := s.verify(ctx); err != nil {
		return err
	}
	return s.Health().Granting()
}

// acceptIn has an order. Heads come first, so that no other node commits beside it; sums after the revocations, whose
// new seals they are over; and the audit last, with the records of this very commit in it.
func (s *Store) acceptIn(t *Tx, before Health) (p progress, err error) {
	if err := t.lockHeads(); err != nil {
		return p, err
	}
	if err := t.wholeTrees(); err != nil {
		return p, err
	}
	at := time.Now()
	revoked, err := t.mendRevoked()
	if err != nil {
		return p, err
	}
	if err := t.makeSums(); err != nil {
		return p, err
	}
	if err := t.makeHeads(); err != nil {
		return p, err
	}
	h, err := s.ownHead(t)
	if err != nil {
		return p, err
	}
	inc, err := t.nextIncarnation(at, s.lastKnown().Incarnation)
	if err != nil {
		return p, err
	}
	h.gen++
	t.work = newWork(s.node, h)
	for _, text := range append(before.texts(), revoked...) {
		if err := t.Append(Record{Time: at, Actor: operator, Action: actionAccept, Result: "ok", Detail: text}); err != nil {
			return p, err
		}
	}
	if err := s.seal(t, t.work); err != nil {
		return p, err
	}
	if err := t.acceptAudit(at); err != nil {
		return p, err
	}
	id, err := t.meta(metaID)
	return progress{Store: id, Incarnation: inc, Gen: h.gen, Chain: t.work.head.chain}, err
}

// What the audit says of the store as a whole.
const (
	operator      = "operator"
	actionAccept  = "store-accept"
	actionRestore = "store-restore"
	actionCut     = "audit-cut"
)

// texts says what is wrong, one line each; that nothing is, in one line.
func (h Health) texts() (list []string) {
	if h.Lost != "" {
		list = append(list, h.Lost)
	}
	for _, f := range h.Findings {
		if len(list) == maxFindings {
			list = append(list, fmt.Sprintf("%d more findings", len(h.Findings)-maxFindings))
			break
		}
		list = append(list, f.String())
	}
	if len(list) == 0 {
		list = append(list, "nothing was wrong with it")
	}
	return list
}

// lockHeads keeps other nodes from committing until this transaction ends: each changes its head. Otherwise a commit
// that they began before would change sums that are just being made.
func (t *Tx) lockHeads() error {
	if !t.engine.postgres {
		return nil
	}
	return t.exec("SELECT node FROM heads FOR UPDATE")
}

// wholeTrees refuses an SQLite file that would not give all of its rows. Sums that were made of half a table would call
// it whole for ever.
func (t *Tx) wholeTrees() error {
	names := systemTables()
	for _, tab := range schema.all() {
		names = append(names, tab.name)
	}
	for _, name := range names {
		list, err := t.integrity(name)
		if err == nil && len(list) > 0 {
			err = list[0].err()
		}
		if err != nil {
			return onlyBackup(err)
		}
	}
	return nil
}

func (f Finding) err() error { return &DamageError{f.Table, f.Key, f.Text} }

func onlyBackup(err error) error {
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("only a backup helps, restore one: %w", err)
	}
	return err
}

// mendRevoked seals the bad rows of revoked keys as they read, and removes those that cannot be read: more that is
// revoked is the safe side. It says what it did.
func (t *Tx) mendRevoked() (texts []string, err error) {
	tab := schema.revoked
	var bad []scanned
	var unreadable []bool
	err = t.scanTable(tab, tab.sql.selectAll, nil, func(r Row, s scanned, damage error) error {
		// Written later: a transaction of PostgreSQL takes no statement while the rows of another one are being read.
		if damage != nil {
			bad = append(bad, s)
			unreadable = append(unreadable, s.decode(r) != nil)
		}
		return nil
	})
	if err != nil {
		return nil, onlyBackup(err)
	}
	for i, s := range bad {
		key := s.values[:tab.keys]
		if unreadable[i] {
			texts = append(texts, "removed the revocation of a key that cannot be read: "+keyText(key))
			err = t.exec(tab.sql.remove, key...)
		} else {
			texts = append(texts, "kept the revocation of a key that may have been another: "+keyText(key))
			x := sealOf(tab.name, s.values)
			err = t.exec(tab.sql.update, append(append(slices.Clone(s.values[tab.keys:]), x[:]), key...)...)
		}
		if err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// makeSums makes the sums anew from the rows that are there.
func (t *Tx) makeSums() error {
	sums := make(map[sumKey]sum)
	for _, tab := range schema.all() {
		if tab.noSums {
			continue
		}
		err := t.scanTable(tab, tab.sql.selectAll, nil, func(_ Row, s scanned, _ error) error {
			k := tab.sumKeyOf(s.values[:tab.keys])
			sum := sums[k]
			sum.add(sealFrom(s.seal))
			sums[k] = sum
			return nil
		})
		if err != nil {
			return onlyBackup(err)
		}
	}
	if err := t.exec("DELETE FROM sums"); err != nil {
		return err
	}
	return t.changeSums(sums)
}

// makeHeads lets the head of each node say what its last commit and its last audit record are. Numbers that were given
// are not given again: a head that is ahead of what is there stays. Two different commits with one number would look to
// the other nodes as if nothing had happened in between.
func (t *Tx) makeHeads() error {
	nodes, err := t.allNodes()
	if err != nil {
		return err
	}
	for _, node := range nodes {
		h, err := t.head(node)
		missing := errors.Is(err, sql.ErrNoRows)
		if missing {
			err = t.exec("INSERT INTO heads (node,run,gen,chain,audit_seq,audit_hash) VALUES (?,'',0,'',0,'')", node)
		}
		if err != nil {
			return err
		}
		gen, chain, err := t.lastCommit(node)
		if err != nil {
			return err
		}
		if gen >= h.gen {
			h.gen, h.chain = gen, chain
		} else if err := t.exec("INSERT INTO commits (node,gen,chain) VALUES (?,?,?)", node, h.gen, h.chain); err != nil {
			return err
		}
		last, err := t.lastRecord(node)
		if err != nil {
			return err
		}
		if last.Seq >= h.auditSeq {
			h.auditSeq, h.auditHash = last.Seq, last.Hash
		}
		if err := t.exec("UPDATE heads SET gen=?,chain=?,audit_seq=?,audit_hash=? WHERE node=?", h.gen, h.chain, h.auditSeq, h.auditHash, node); err != nil {
			return err
		}
	}
	return nil
}

// ownHead returns the head of this node, which this process may write: where several may be this node a lease says who is.
func (s *Store) ownHead(t *Tx) (h head, err error) {
	h, err = t.head(s.node)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.exec("INSERT INTO heads (node,run,gen,chain,audit_seq,audit_hash) VALUES (?,'',0,'',0,'')", s.node)
	}
	switch {
	case err != nil:
	case !s.shared:
		err = t.setRun(s.node, s.run)
	case h.run != s.run:
		err = fmt.Errorf("the lease %w", ErrAway)
	}
	return h, err
}

// nextIncarnation begins a new history, later than all that are known.
func (t *Tx) nextIncarnation(at time.Time, known int64) (inc int64, err error) {
	text, err := t.meta(metaIncarnation)
	if err != nil {
		return 0, err
	}
	var old int64
	fmt.Sscan(text, &old) // one that is no number is earlier than all
	// A time and not only the next number: of two copies of one backup that are both restored, each is a history of its
	// own, and a server that has used the one notices when it gets the other.
	inc = max(at.UnixMilli(), old+1, known+1)
	return inc, t.setIncarnation(inc)
}

// maxAccepted bounds what is accepted of the audit one by one. An audit with more than that is not damaged in places,
// it is lost.
const maxAccepted = 1000

// acceptAudit remembers what is wrong with the audit: it cannot be mended, and is not to be said for ever.
func (t *Tx) acceptAudit(at time.Time) error {
	nodes, err := t.allNodes()
	if err != nil {
		return err
	}
	var all []Finding
	for _, node := range nodes {
		buckets, err := t.auditBuckets(node, 0)
		if err != nil {
			return err
		}
		for _, b := range buckets {
			list, err := t.verifyAudit(node, b)
			if err != nil {
				return err
			}
			list, err = t.withoutAccepted(list)
			if err != nil {
				return err
			}
			if all = append(all, list...); len(all) > maxAccepted {
				return fmt.Errorf("more than %d audit records are bad: only a backup helps: %w", maxAccepted, ErrDamaged)
			}
		}
	}
	for _, f := range all {
		// With its text. Other damage in the same place, later, is something that nobody has accepted.
		err := t.exec("INSERT INTO accepted (tbl,place,finding,at) VALUES (?,?,?,?)", f.Table, f.Key, f.Text, micros(at))
		if err != nil {
			return err
		}
	}
	return nil
}
