package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/internal/durable"
	"hawser/internal/wait"
	"hawser/server/count"
)

// Options says which store to open, and as whom.
type Options struct {
	Dir      string  // private directory of the Access Server: its progress, and SQLite's file. Made if it is not there
	URL      string  // postgres://…; empty: SQLite in Dir
	Database *sql.DB // of Memory, instead of both: nothing is kept outside
	Node     string  // a label; one process at a time writes as this node
	// Who speaks for a node of a shared database is decided by its lease; with SQLite the lock on the directory
	// decides.
	Shared bool // other nodes use the database too: nothing is written before TakeLease
	Audit  Retention
	Logger *slog.Logger
	// Metrics is where the store counts; nil: nowhere. It counts for one store.
	Metrics *metrics.Set

	// Fault, when set, is asked before each transaction; an error of it is taken for one of the database. It is for
	// tests of what happens while the database is away.
	Fault func() error
}

// Store is an open store, as one node. Its methods are safe for concurrent use.
type Store struct {
	engine *engine
	dir    string // of the progress; empty: none
	node   string
	run    string // this process
	shared bool
	audit  Retention
	log    *slog.Logger
	fault  func() error
	lock   interface{ Close() error } // of the directory; nil: none

	patience time.Duration // commitTime, and less in tests

	ops     chan *op
	later   chan *op
	alone   chan func()   // what runs where commits do
	closing chan struct{} // closed by Close
	once    sync.Once
	writer  sync.WaitGroup

	skipped atomic.Int64 // of Later
	counted counters

	progress *progressFile // nil: none. Only who commits writes it
	untaken  bool          // this process does not write as its node yet. Only who commits reads it

	mu     sync.Mutex // guards the rest
	health Health
	known  progress // this node's newest commit, or what the file says while that is lost
	astray string   // what other nodes have lost, by a Follower
	moved  bool     // by MoveTo
	stale  bool     // an operator has accepted the database since it was read
}

// Open opens the store, makes its tables if there are none, and reads all of it but old audit records, to see whether
// it is what was written: Health tells. It blocks until that is done. ErrInUse: another process has the directory.
// ErrAway: the database does not answer. ErrDamaged: it cannot be used at all. The caller closes the Store. The writer
// starts last: from the first commit on it refuses by what the reading has found.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s := newStore(o)
	defer func() {
		if err != nil {
			err = fmt.Errorf("open store: %w", errors.Join(err, s.release()))
		}
	}()
	if err := s.openEngine(o); err != nil {
		return nil, err
	}
	if err := s.engine.migrate(ctx); err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if err := s.verify(ctx); err != nil {
		return nil, err
	}
	// Ends in Close, which waits for it.
	s.writer.Go(s.write)
	return s, nil
}

// newStore does no I/O. ops has no buffer: whoever gives up waiting to be taken knows that nothing was written.
func newStore(o Options) *Store {
	s := &Store{
		node: o.Node, shared: o.Shared, audit: o.Audit.orDefault(), run: hex.EncodeToString(random()), log: o.Logger, fault: o.Fault, patience: commitTime,
		ops: make(chan *op), later: make(chan *op, maxLater), alone: make(chan func()), closing: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	set := count.SetOr(o.Metrics)
	s.counted = newCounters(set)
	s.exportHealth(set)
	return s
}

// openEngine opens progress and lock first: what a second process does to the database before it finds the lock would
// be taken for damage by the first one. A Move into the same directory brings both with it.
func (s *Store) openEngine(o Options) (err error) {
	if o.Database != nil {
		s.engine = memoryEngine(o.Database)
		return nil
	}
	s.dir = filepath.Clean(o.Dir)
	if s.progress == nil {
		if err := s.openDir(o); err != nil {
			return err
		}
	}
	if o.URL != "" {
		s.engine, err = openPostgres(o.URL)
	} else {
		s.engine, err = openSQLite(o.Dir)
	}
	return err
}

// openDir takes the lock before it reads the progress, which the process that has the lock may be writing.
func (s *Store) openDir(o Options) (err error) {
	if err := durable.OpenDir(o.Dir); err != nil {
		return err
	}
	if s.lock, err = lockDir(o.Dir); err != nil {
		return fmt.Errorf("%s: %w", o.Dir, err)
	}
	s.progress, err = openProgress(o.Dir, o.Node)
	return err
}

// begin makes this process the one that writes as its node, and compares the database with the progress. While nothing
// can be written the first commit does the former: what is there can be read meanwhile.
func (s *Store) begin(ctx context.Context) error {
	err := s.beginWriting(ctx)
	if errors.Is(err, ErrFull) && s.View(ctx, s.judgeFirst) == nil {
		s.log.Warn("the store opens without being written to", "store", s.engine.where, "err", err)
		s.untaken = !s.shared
		return nil
	}
	return err
}

// beginWriting names this process in the head of its node. From its next commit on, a process that still writes as this
// node is refused (advance). A shared store leaves that to TakeLease.
func (s *Store) beginWriting(ctx context.Context) error {
	return s.transact(ctx, func(t *Tx) error {
		_, err := t.head(s.node)
		if errors.Is(err, sql.ErrNoRows) {
			err = t.exec("INSERT INTO heads (node,run,gen,chain,audit_seq,audit_hash) VALUES (?,'',0,'',0,'')", s.node)
		}
		if err == nil && !s.shared {
			err = t.setRun(s.node, s.run)
		}
		if err != nil {
			return err
		}
		return s.judgeFirst(t)
	})
}

// transact runs f in a transaction of its own, beside the writer: for what belongs to no commit of this node.
func (s *Store) transact(ctx context.Context, f func(*Tx) error) error {
	err := s.closed()
	if err != nil {
		return err
	}
	for try := range maxTries {
		if err = pause(ctx, try); err != nil {
			break
		}
		if err = s.transactOnce(ctx, f); !again(err) {
			break
		}
	}
	return err
}

// transactOnce asks for f's own error first: it says more than the error that made later statements fail.
func (s *Store) transactOnce(ctx context.Context, f func(*Tx) error) error {
	if err := s.faulty(); err != nil {
		return err
	}
	tx, err := s.engine.beginWrite(ctx)
	if err != nil {
		return s.engine.classify(err)
	}
	t := &Tx{ctx: ctx, sql: tx, engine: s.engine}
	if err := cmp.Or(f(t), t.failed); err != nil {
		tx.Rollback()
		return err
	}
	return s.engine.classify(tx.Commit())
}

func (s *Store) faulty() error {
	if s.fault == nil {
		return nil
	}
	return s.fault()
}

// View runs f in a transaction that sees one moment and only reads. f may run once. It never waits for the writer:
// SQLite's log keeps the old pages for readers, PostgreSQL the old rows. So lists are answered while a commit hangs.
func (s *Store) View(ctx context.Context, f func(*Tx) error) (err error) {
	defer func(began time.Time) { s.counted.viewed(ctx, began, err) }(time.Now())
	if err := errors.Join(s.closed(), s.faulty()); err != nil {
		return err
	}
	tx, err := s.engine.beginRead(ctx)
	if err != nil {
		return s.engine.classify(err)
	}
	defer tx.Rollback()
	t := &Tx{ctx: ctx, sql: tx, engine: s.engine}
	return cmp.Or(f(t), t.failed)
}

// Node returns the name as which the Store was opened.
func (s *Store) Node() string { return s.node }

// Run returns what tells this process from others that open the store as the same node.
func (s *Store) Run() string { return s.run }

// Close waits for what is under way and closes the store; every call after it fails, except another Close.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		s.writer.Wait()
		err = s.release()
	})
	return err
}

// closed is an error after Close.
func (s *Store) closed() error {
	select {
	case <-s.closing:
		return fmt.Errorf("store %s %w: it is closed", s.engine.where, ErrAway)
	default:
		return nil
	}
}

func (s *Store) release() (err error) {
	if s.engine != nil {
		err = s.engine.close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// random returns 128 random bits. Their reader cannot fail (crypto/rand since Go 1.24), so there is no error to hand
// on.
func random() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// pause waits before another try of what met another transaction. The first try needs none. It is random and grows: two
// nodes that met in the same rows would otherwise meet again at every try.
func pause(ctx context.Context, try int) error {
	if try > 0 {
		b := wait.Backoff{First: 2 * time.Millisecond, Longest: 128 * time.Millisecond}
		wait.Sleep(ctx, b.After(try, 0))
	}
	return ctx.Err()
}
