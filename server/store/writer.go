package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// A request is answered within 30 s (docs/tests.md, S-kill). Before these times were so short, a database that hung
	// took 20 s for a commit and 10 to settle it, behind another one that took as long; an SQLite file that somebody
	// else had locked took 200.
	maxBatch    = 64                     // functions that share a commit
	maxLater    = 4096                   // that may wait for Later
	laterEvery  = 200 * time.Millisecond // what Later was given is written after this long, or with the next commit
	maxTries    = 20                     // of a transaction that meets others
	keepGens    = 20_000                 // commits that other nodes can still follow
	uniqueTries = 3                      // of a function that writes what only one may have
	commitTime  = 6 * time.Second        // that a transaction may take with all its tries: a database that hangs is away
	settleTime  = 4 * time.Second        // for finding out what became of a commit whose answer was lost
)

// mode says when a function may be refused, and how long it may wait.
type mode int

const (
	strict mode = iota // refused while rows are missing
	always             // refused only while nothing can be written
	lazy               // the same, and it waits for others
)

// op is a function that waits for the writer. It has a channel of its own with room for the answer: the writer never
// waits for a client.
type op struct {
	ctx  context.Context
	f    func(*Tx) error
	mode mode
	done chan error // with room for one answer

	refused int // how often it wrote what is not unique
}

// Update runs f in a transaction and returns when what it wrote is kept (see the package comment). While the store has
// lost rows it is ErrDamaged.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error { return s.do(ctx, strict, f) }

// UpdateAlways is Update for what is right even while rows are missing: to revoke, to end, to write down.
func (s *Store) UpdateAlways(ctx context.Context, f func(*Tx) error) error {
	return s.do(ctx, always, f)
}

// Later runs f soon and does not wait for it: for what is of little worth after a power cut, or comes again by itself.
// What cannot be written is logged and dropped.
func (s *Store) Later(f func(*Tx) error) {
	o := &op{ctx: context.Background(), f: f, mode: lazy, done: make(chan error, 1)}
	select {
	case s.later <- o:
	default:
		s.skip(errors.New("too much waits to be written"))
	}
}

// do gives up only while the function still waits to be taken. From then on it waits for the answer, whatever ctx says:
// a caller that left would not know whether it was written.
func (s *Store) do(ctx context.Context, m mode, f func(*Tx) error) error {
	o := &op{ctx: ctx, f: f, mode: m, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-ctx.Done():
		return fmt.Errorf("store %s %w: %w", s.engine.where, ErrAway, ctx.Err())
	case <-s.closing:
		return s.closed()
	}
	return <-o.done // the writer answers within the time of its own tries
}

// write takes what waits, some of it together, until the store closes. One goroutine alone commits as this node: that
// makes the order of commits the order of their numbers, without which a Follower would skip one.
func (s *Store) write() {
	timer := time.NewTimer(laterEvery)
	// It runs only while something waits: an idle server has no timer that wakes it.
	timer.Stop()
	var waiting []*op // of Later
	for {
		var batch []*op
		select {
		case o := <-s.ops:
			batch = append(batch, o)
		case o := <-s.later:
			if waiting = append(waiting, o); len(waiting) == 1 {
				timer.Reset(laterEvery)
			}
			if len(waiting) < maxBatch {
				continue
			}
		case <-timer.C:
		case f := <-s.alone:
			f()
			continue
		case <-s.closing:
			s.commit(s.drain(waiting))
			return
		}
		batch = append(s.more(batch), s.moreLater(waiting)...)
		waiting = nil
		timer.Stop()
		s.commit(batch)
	}
}

// more adds what waits already, so that many share one sync of the disk. It takes what is there and does not wait for
// more: under load that fills a commit, and without load nobody waits.
func (s *Store) more(batch []*op) []*op {
	for len(batch) < maxBatch {
		select {
		case o := <-s.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// moreLater adds what Later was given meanwhile: a commit takes it along.
func (s *Store) moreLater(waiting []*op) []*op {
	for len(waiting) < maxBatch {
		select {
		case o := <-s.later:
			waiting = append(waiting, o)
		default:
			return waiting
		}
	}
	return waiting
}

// drain is for Close: whoever has got as far as the writer gets an answer.
func (s *Store) drain(waiting []*op) []*op {
	for {
		select {
		case o := <-s.later:
			waiting = append(waiting, o)
		case o := <-s.ops:
			waiting = append(waiting, o)
		default:
			return waiting
		}
	}
}

// commit runs a batch in one transaction and answers each of its functions.
func (s *Store) commit(batch []*op) {
	batch = s.admit(batch)
	if len(batch) == 0 {
		return
	}
	// One function's client that goes away must not undo what the others wrote.
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	began := time.Now()
	var errs []error
	var err error
	for try := range maxTries {
		if late := pause(ctx, try); late != nil {
			err = cmp.Or(err, late) // the last try says why
			break
		}
		if errs, err = s.attempt(ctx, batch); !again(err) {
			break
		}
	}
	s.counted.committed(began, err)
	if err == nil {
		s.saySkipped()
	}
	for i, o := range batch {
		answer := err
		if answer == nil {
			answer = errs[i]
		}
		if o.mode == lazy && answer != nil {
			s.skip(answer)
		}
		o.done <- answer
	}
}

// skip counts what was given to Later and is not written. The first is said at once, and how many there were when the
// store works again. A full disk would otherwise fill the log, which is often on the same disk, with one line for each
// record.
func (s *Store) skip(err error) {
	s.counted.dropped.Inc()
	level := slog.LevelWarn
	if errors.Is(err, ErrMoved) { // who is online, mostly: the new store learns that anew
		level = slog.LevelInfo
	}
	if s.skipped.Add(1) == 1 {
		s.log.Log(context.Background(), level, "not written, and dropped", "err", err)
	}
}

func (s *Store) saySkipped() {
	if n := s.skipped.Swap(0); n > 0 {
		s.log.Warn("written again; meanwhile records were dropped", "records", n)
	}
}

// admit answers what is refused at once and returns the rest. They are refused before a transaction begins, so that
// what may be written is not kept waiting by what may not.
func (s *Store) admit(batch []*op) (rest []*op) {
	h := s.Health()
	if h.Lost != "" { // unless it is there again
		if err := s.look(); err == nil {
			h = s.Health()
		}
	}
	for _, o := range batch {
		var err error
		switch {
		case o.ctx.Err() != nil:
			err = fmt.Errorf("store %s %w: %w", s.engine.where, ErrAway, o.ctx.Err())
		case h.Lost != "":
			err = h.lost("store " + s.engine.where)
		case o.mode == strict && len(h.Missing()) > 0:
			err = fmt.Errorf("store %s %w: %w", s.engine.where, ErrDamaged, h.Missing()[0])
		}
		if err != nil {
			if o.mode == lazy {
				s.skip(err)
			}
			o.done <- err
			continue
		}
		rest = append(rest, o)
	}
	return rest
}

// look judges the database again. It is how a store heals that was put back: the right database is there again, and
// nobody has to restart the server.
func (s *Store) look() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	known := s.lastKnown()
	return s.View(ctx, func(t *Tx) error {
		_, err := s.judgeAgain(t, known)
		return err
	})
}

// attempt is one try of a batch. errs are those of its functions; err says that nothing of it was written, or, as
// ErrAway, that nobody knows. That is settled by reading the commit's number and chain: to run the batch again would
// write it twice.
func (s *Store) attempt(ctx context.Context, batch []*op) (errs []error, err error) {
	if err := s.faulty(); err != nil {
		return nil, err
	}
	known := s.lastKnown()
	tx, err := s.engine.beginWrite(ctx)
	if err != nil {
		return nil, s.engine.classify(err)
	}
	t := &Tx{ctx: ctx, sql: tx, engine: s.engine}
	h, err := s.advance(t, known)
	if err != nil {
		tx.Rollback()
		return nil, err
	}
	all := newWork(s.node, h)
	errs, err = s.runAll(t, batch, all)
	if err == nil && all.wrote {
		err = s.seal(t, all)
	}
	if err != nil || !all.wrote {
		tx.Rollback()
		return errs, err
	}
	if err := tx.Commit(); err != nil {
		if err = s.engine.classify(err); again(err) || !errors.Is(err, ErrAway) {
			return nil, err
		}
		if !s.settled(all.head) {
			return nil, err
		}
	}
	// What only Later wrote may be lost in a power cut, and saves the sync of the progress.
	sync := false
	for _, o := range batch {
		sync = sync || o.mode != lazy
	}
	// After the commit and before anybody is answered, see remember. A store that cannot write its progress answers
	// ErrFull, although the rows are there: to say yes would be a promise that a rollback breaks without a word.
	err = s.remember(all.head, sync)
	s.lookAgain(all)
	return errs, err
}

// lookAgain reads the tables anew in which damage was found and something was written: a row that is written anew is good
// again, and nobody waits for the scrub to hear it.
func (s *Store) lookAgain(w *work) {
	bad := s.Health().Findings
	for tab := range w.tables {
		if !slices.ContainsFunc(bad, func(f Finding) bool { return f.Table == tab.name }) || tab == schema.audit {
			continue
		}
		if err := s.verifyTable(context.Background(), tab); err != nil {
			s.log.Warn("a damaged table could not be read again", "table", tab.name, "err", err)
		}
	}
}

// advance gives the commit its number: the first statement, so that a process that no longer writes as this node, or a
// database that went back in time, is found before anything else happens.
func (s *Store) advance(t *Tx, known progress) (head, error) {
	h, err := s.judgeAgain(t, known)
	if err != nil {
		return h, err
	}
	switch {
	case h.run == "" && !s.shared, // an operator has accepted that the row was lost
		s.untaken:
		if err := t.setRun(s.node, s.run); err != nil {
			return h, err
		}
	case h.run != s.run:
		if s.shared {
			return h, fmt.Errorf("the lease on store %s %w", s.engine.where, ErrAway)
		}
		return h, fmt.Errorf("the name %s of this Access Server is %w", s.node, ErrInUse)
	}
	h.gen++
	return h, nil
}

// runAll runs each function of a batch; what one wrote that fails is taken back. Savepoints make that possible, on both
// engines. PostgreSQL also needs them after any error: it takes no more statements in a transaction that had one.
func (s *Store) runAll(t *Tx, batch []*op, all *work) (errs []error, err error) {
	for _, o := range batch {
		if err := t.exec("SAVEPOINT one"); err != nil {
			return nil, err
		}
		t.work = newWork(s.node, all.head)
		one := cmp.Or(s.call(o.f, t), t.failed) // a function must not overlook what the database said
		if o.overall(t.failed) {
			return nil, t.failed
		}
		t.failed = nil
		if errs = append(errs, one); one == nil {
			t.work.mergeInto(all)
			err = t.exec("RELEASE SAVEPOINT one")
		} else {
			err = t.exec("ROLLBACK TO SAVEPOINT one")
		}
		if err != nil {
			return nil, err
		}
	}
	t.work = all
	return errs, nil
}

// call runs a function. One that panics fails alone.
func (s *Store) call(f func(*Tx) error, t *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a transaction panicked", "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("write to the store: panic: %v", p)
		}
	}()
	return f(t)
}

// overall reports whether what the database said to one function ends the transaction of all. What is not unique may be
// the row of another node that the function did not see: it runs again, and then sees it.
func (o *op) overall(err error) bool {
	switch {
	case err == nil:
		return false
	case unique(err):
		o.refused++
		return again(err) && o.refused < uniqueTries
	}
	return again(err) || errors.Is(err, ErrAway) || errors.Is(err, ErrFull)
}

// seal completes a commit: sums, the list of changes, and the head with the chain. The list of commits is cut once in a
// thousand: a deletion in each commit would be one more write.
func (s *Store) seal(t *Tx, all *work) error {
	h := &all.head
	h.chain = chainOf(h.chain, h.gen, all.digest.Sum(nil))
	if err := t.changeSums(all.sums); err != nil {
		return err
	}
	for i, c := range all.changes {
		if err := t.exec("INSERT INTO changes (node,gen,i,kind,subject) VALUES (?,?,?,?,?)", s.node, h.gen, i, c.Kind, c.Subject); err != nil {
			return err
		}
	}
	if err := t.exec("INSERT INTO commits (node,gen,chain) VALUES (?,?,?)", s.node, h.gen, h.chain); err != nil {
		return err
	}
	if h.gen%1000 == 0 {
		for _, table := range []string{"commits", "changes"} {
			if err := t.exec("DELETE FROM "+table+" WHERE node=? AND gen<?", s.node, h.gen-keepGens); err != nil {
				return err
			}
		}
	}
	return t.exec("UPDATE heads SET gen=?,chain=?,audit_seq=?,audit_hash=? WHERE node=?", h.gen, h.chain, h.auditSeq, h.auditHash, s.node)
}

// chainOf links a commit to the ones before it. Two histories of one length differ in it: a database that was put back
// and written on has as many commits as the right one.
func chainOf(before string, gen int64, digest []byte) string {
	b := binary.BigEndian.AppendUint64([]byte("hawser commit v1 "+before+" "), uint64(gen))
	sum := sha256.Sum256(append(b, digest...))
	return hex.EncodeToString(sum[:])
}

// settled finds out whether a commit whose answer was lost has happened.
func (s *Store) settled(h head) bool {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for try := 1; ; try++ {
		var found head
		err := s.View(ctx, func(t *Tx) (err error) {
			found, err = t.head(s.node)
			return err
		})
		if err == nil {
			return found.gen == h.gen && found.chain == h.chain
		}
		// As after the fourth try: whatever took the answer away does not come back in two milliseconds.
		if pause(ctx, try+4) != nil {
			return false
		}
	}
}

// remember writes the progress before anybody is answered. Commit, file, answer, in this order: a crash between the
// first two leaves a database that is ahead of the file, which is normal; the other way round it would look like a
// loss.
func (s *Store) remember(h head, sync bool) error {
	s.untaken = false
	s.mu.Lock()
	s.known.Gen, s.known.Chain = h.gen, h.chain
	p := s.known
	s.mu.Unlock()
	if !sync {
		return nil
	}
	if err := s.progress.save(p); err != nil {
		return fmt.Errorf("store %s %w: %w", s.engine.where, ErrFull, err)
	}
	return nil
}
