package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"hawser/internal/durable"
)

// progress is how far the commits of a node have come. Each node remembers its own outside the database: one that is
// behind it, or has another history, has lost something that was acknowledged. It is a file and not a table because a
// database that goes back takes all of its tables along.
type progress struct {
	Store       string `json:"store"`       // id of the database
	Incarnation int64  `json:"incarnation"` // of its history
	Gen         int64  `json:"gen"`         // number of this node's last commit
	Chain       string `json:"chain"`       // hash over all of them
}

// progressFile keeps it; a nil one keeps nothing, as for a store in memory.
type progressFile struct {
	slots *durable.Slots
	known progress // the newest that is on the medium; zero: none
}

// openProgress opens the files of a node in a directory. There are two slots, written in turn: a power cut while one is
// written leaves the other.
func openProgress(dir, node string) (*progressFile, error) {
	slots, err := durable.OpenSlots(dir, "progress."+node)
	if err != nil {
		return nil, err
	}
	f := &progressFile{slots: slots}
	b, err := slots.Load()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "progress."+node), err)
	}
	if b == nil {
		return f, nil
	}
	if err := json.Unmarshal(b, &f.known); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "progress."+node), err)
	}
	return f, nil
}

// save is called by who commits alone, so it needs no lock. What is on the medium already is not written again: each
// write is a sync, and flash wears.
func (f *progressFile) save(p progress) error {
	if f == nil || f.known == p {
		return nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := f.slots.Save(b); err != nil {
		return err
	}
	f.known = p
	return nil
}

// judgeProgress says what is wrong with a database, or "". found is what the database says of this node, and at what it
// says of the commit that known is about. It is pure. The order is from what says most: another database has other
// numbers too, and to name them would mislead.
func judgeProgress(known, found progress, at string) string {
	switch {
	case known == (progress{}): // the first start here, or the file was removed
		return ""
	// By the id and not by name or URL: those may say the same of two databases, and other things of one.
	case known.Store != found.Store:
		return "it is another database than the one that this server has used"
	case found.Incarnation > known.Incarnation: // an operator has restored, moved or accepted it
		return ""
	case found.Incarnation < known.Incarnation:
		return "it is from before the last restore, move or accept"
	case found.Gen < known.Gen:
		return fmt.Sprintf("it went back in time: %d commits of this server are missing", known.Gen-found.Gen)
	case at != known.Chain:
		return "it has another history than the one that this server has written"
	}
	return ""
}

// head is how far the commits and the audit of a node have come.
type head struct {
	run       string
	gen       int64
	chain     string
	auditSeq  int64
	auditHash string
}

// head of a node that never wrote anything is sql.ErrNoRows.
func (t *Tx) head(node string) (h head, err error) {
	err = t.one("SELECT run,gen,chain,audit_seq,audit_hash FROM heads WHERE node=?", []any{node},
		&h.run, &h.gen, &h.chain, &h.auditSeq, &h.auditHash)
	return h, err
}

// found reads what the database says of a node. sql.ErrNoRows: nothing. One statement, because it is the first of each
// commit, and every statement to a PostgreSQL elsewhere costs a round trip.
func (t *Tx) found(node string) (h head, p progress, err error) {
	var inc sql.NullString
	var id sql.NullString
	err = t.one("SELECT run,gen,chain,audit_seq,audit_hash,(SELECT value FROM meta WHERE name='"+metaID+"'),"+
		"(SELECT value FROM meta WHERE name='"+metaIncarnation+"') FROM heads WHERE node=?", []any{node},
		&h.run, &h.gen, &h.chain, &h.auditSeq, &h.auditHash, &id, &inc)
	if err != nil {
		return h, p, err
	}
	p = progress{Store: id.String, Gen: h.gen, Chain: h.chain}
	if _, err := fmt.Sscan(inc.String, &p.Incarnation); err != nil {
		return h, p, &DamageError{Table: "meta", Text: "its incarnation is no number"}
	}
	return h, p, nil
}

// commitAt returns the chain of a commit, or "".
func (t *Tx) commitAt(node string, gen int64) (chain string, err error) {
	err = t.one("SELECT chain FROM commits WHERE node=? AND gen=?", []any{node, gen}, &chain)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return chain, err
}

// judgeFirst compares the database with the file, when the store opens. A database that is ahead is believed: the
// process ended between commit and file.
func (s *Store) judgeFirst(t *Tx) error {
	var known progress
	if s.progress != nil {
		known = s.progress.known
		if known == (progress{}) {
			s.log.Info("nothing is known of earlier commits: remembered from now on", "store", s.engine.where)
		}
	}
	_, found, why, err := t.judge(s.node, known)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.Lost = why
	if s.known = known; why == "" {
		s.known = found
	}
	return nil
}

// judge compares what the database says of a node with what is known of it, and says what is wrong, or "".
func (t *Tx) judge(node string, known progress) (h head, found progress, why string, err error) {
	h, found, err = t.found(node)
	if errors.Is(err, sql.ErrNoRows) {
		return h, found, "its record of this server is gone", nil
	}
	if err != nil {
		return h, found, "", err
	}
	at := found.Chain
	switch {
	case known.Gen == 0: // before its first commit
		at = known.Chain
	case found.Gen != known.Gen:
		if at, err = t.commitAt(node, known.Gen); err != nil {
			return h, found, "", err
		}
	}
	if why = judgeProgress(known, found, at); why != "" {
		return h, found, why, nil
	}
	// A head that was put back alone, by a torn page or by hand, has a number whose commit says something else.
	if found.Gen != known.Gen || found.Incarnation != known.Incarnation { // else it was looked at before
		last, err := t.commitAt(node, found.Gen)
		if err != nil {
			return h, found, "", err
		}
		if last != found.Chain {
			why = "its last commit is not the one that it says"
		}
	}
	return h, found, why, nil
}

// judgeAgain compares the database with what this process knows of it: one that was put back while it is used is
// noticed, and so is that it is right again, or that an operator has accepted it. known is what was known before the
// transaction began. Read later, it could be newer than what the transaction sees, and that would look like a database
// that went back.
func (s *Store) judgeAgain(t *Tx, known progress) (h head, err error) {
	h, found, why, err := t.judge(s.node, known)
	if err != nil {
		return h, err
	}
	return h, s.judged(found, why)
}

func (s *Store) lastKnown() progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// judged keeps what is known as it was while something is lost: the right database must be recognised when it is back.
// Only a newer incarnation, an operator's word, replaces it.
func (s *Store) judged(found progress, why string) error {
	s.mu.Lock()
	before := s.health.Lost
	s.health.Lost = why
	if why == "" && found.Incarnation > s.known.Incarnation && s.known.Incarnation > 0 {
		s.known, s.stale, s.astray = found, true, ""
	}
	s.mu.Unlock()
	if why == "" {
		return nil
	}
	if why != before {
		s.log.Error("the store has lost what it had acknowledged: nothing is granted until store accept", "store", s.engine.where, "err", why)
	}
	return fmt.Errorf("store %s %w: %s", s.engine.where, ErrDamaged, why)
}

// reread reads everything but old audit records again if an operator has accepted the database since it was read. A
// node learns of that from its next commit, and a Follower from its next look.
func (s *Store) reread(ctx context.Context) error {
	s.mu.Lock()
	stale := s.stale
	s.stale = false
	s.mu.Unlock()
	if !stale {
		return nil
	}
	s.log.Info("an operator has accepted the store: read again", "store", s.engine.where)
	err := s.verify(ctx)
	if err != nil {
		s.mu.Lock()
		s.stale = true
		s.mu.Unlock()
	}
	return err
}
