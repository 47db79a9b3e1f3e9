package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"time"
)

// Errors that callers branch on, with errors.Is.
var (
	ErrNotFound = errors.New("no such record")
	ErrExists   = errors.New("exists already") // or something that must be unique, as a device's name
	ErrInUse    = errors.New("in use by another process")
	ErrAway     = errors.New("is away")      // the database, or the lease on it: it may come back
	ErrFull     = errors.New("cannot write") // the disk is full, or read-only: it may heal
	ErrMoved    = errors.New("was moved")    // by an operator: the server has to be started anew
	ErrDamaged  = errors.New("is damaged")   // a row, a table, or the whole store; errors.As finds a *DamageError for the first two
)

// Tx is one transaction, for as long as the function that got it runs. It is not safe for concurrent use.
type Tx struct {
	ctx    context.Context
	sql    *sql.Tx
	engine *engine
	work   *work // nil when it only reads
	failed error // the first that the database said: nothing is asked after it
}

// work is what one function of Update has written. Each function has its own, so that one which fails leaves no trace
// in the sums of the others that share its commit.
type work struct {
	sums    map[sumKey]sum
	changes []Change
	digest  hash.Hash // of the seals that came and went
	wrote   bool
	tables  map[*table]bool // in which rows were written
	node    string
	head    head // of the node; append moves it
}

func newWork(node string, h head) *work {
	return &work{sums: make(map[sumKey]sum), tables: make(map[*table]bool), digest: sha256.New(), node: node, head: h}
}

// mergeInto adds what one function wrote to what its transaction writes.
func (w *work) mergeInto(all *work) {
	for k, d := range w.sums {
		s := all.sums[k]
		s.plus(d)
		all.sums[k] = s
	}
	maps.Copy(all.tables, w.tables)
	all.changes = append(all.changes, w.changes...)
	all.digest.Write(w.digest.Sum(nil))
	all.head, all.wrote = w.head, all.wrote || w.wrote
}

// check classifies an error and remembers it. SQLite may have ended the transaction with it, so that the next statement
// would stand alone. It may do so after a full disk or an I/O error (sqlite.org, "Transaction", response to errors),
// and what followed would be kept without what came before.
func (t *Tx) check(err error) error {
	err = t.engine.classify(err)
	if t.failed == nil && t.engine.saidBy(err) {
		t.failed = err
	}
	return err
}

func (t *Tx) exec(query string, args ...any) error {
	if t.failed != nil {
		return t.failed
	}
	_, err := t.sql.ExecContext(t.ctx, t.engine.rebind(query), args...)
	return t.check(err)
}

func (t *Tx) query(query string, args ...any) (*sql.Rows, error) {
	if t.failed != nil {
		return nil, t.failed
	}
	if t.engine.asked != nil {
		t.engine.asked(query, args)
	}
	rows, err := t.sql.QueryContext(t.ctx, t.engine.rebind(query), args...)
	return rows, t.check(err)
}

// one reads the one row that a query gives; sql.ErrNoRows: it gives none.
func (t *Tx) one(query string, args []any, into ...any) error {
	if t.failed != nil {
		return t.failed
	}
	return t.check(t.sql.QueryRowContext(t.ctx, t.engine.rebind(query), args...).Scan(into...))
}

// Get fills a row whose key is set. ErrNotFound: there is none. ErrDamaged: it is not what was written, and then it is
// filled as far as that goes.
func (t *Tx) Get(r Row) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	s, err := scanRow(r, func(into ...any) error { return t.one(r.table().sql.get, key, into...) })
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = ErrNotFound
	case err != nil && t.failed == nil:
		err = &DamageError{Table: r.table().name, Key: keyText(key), Text: err.Error()} // a column that holds what was never written
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", r.table().name, keyText(key), err)
	}
	return s.into(r)
}

// Insert writes a row that must not be there; else ErrExists.
func (t *Tx) Insert(r Row) error { return t.write(r, false) }

// Put writes a row, in the place of the one with the same key if there is one.
func (t *Tx) Put(r Row) error { return t.write(r, true) }

// write reads the seal of the row that is there and does not check it: a bad row is made good by writing it again, and
// its old seal has to leave the sum whatever it is.
func (t *Tx) write(r Row, replace bool) error {
	values, err := encodeRow(r)
	if err != nil {
		return err
	}
	tab := r.table()
	key := values[:tab.keys]
	old, found, err := t.sealAt(tab, key)
	if err != nil {
		return err
	}
	// Asked here and not left to a violation of the key: after that a transaction of PostgreSQL takes no more statements.
	if found && !replace {
		return fmt.Errorf("write %s %s: %w", tab.name, keyText(key), ErrExists)
	}
	x := sealOf(tab.name, values)
	k := tab.sumKeyOf(key)
	if found {
		args := append(append(slices.Clone(values[tab.keys:]), x[:]), key...)
		err = t.exec(tab.sql.update, args...)
	} else {
		err = t.exec(tab.sql.insert, append(slices.Clone(values), x[:])...)
	}
	if err != nil {
		return fmt.Errorf("write %s %s: %w", tab.name, keyText(key), err)
	}
	t.count(tab, k, old, found, x, true)
	return nil
}

// Delete removes the row with this key. ErrNotFound: there is none.
func (t *Tx) Delete(r Row) error {
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	tab := r.table()
	old, found, err := t.sealAt(tab, key)
	if err == nil && !found {
		err = ErrNotFound
	}
	if err == nil {
		err = t.exec(tab.sql.remove, key...)
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", tab.name, keyText(key), err)
	}
	t.count(tab, tab.sumKeyOf(key), old, true, seal{}, false)
	return nil
}

// sealAt returns the seal that the database has of a row.
func (t *Tx) sealAt(tab *table, key []any) (x seal, found bool, err error) {
	var b []byte
	err = t.one(tab.sql.getSeal, key, &b)
	if errors.Is(err, sql.ErrNoRows) {
		return x, false, nil
	}
	if err != nil {
		return x, false, fmt.Errorf("read %s %s: %w", tab.name, keyText(key), err)
	}
	return sealFrom(b), true, nil
}

// count notes what has become of a row: for the sums, and for the chain of this node's commits.
func (t *Tx) count(tab *table, k sumKey, old seal, hadOld bool, x seal, hasNew bool) {
	w := t.work
	w.wrote, w.tables[tab] = true, true
	if tab.noSums {
		return
	}
	s := w.sums[k]
	if hadOld {
		s.remove(old)
		w.digest.Write(old[:])
	}
	if hasNew {
		s.add(x)
		w.digest.Write(x[:])
	}
	w.sums[k] = s
}

// A Change tells the other nodes what to read anew. What a Kind means is the caller's.
type Change struct {
	Kind, Subject string
}

// Note tells the other nodes of a change, in the order of the commits of this node. Notes are in the commit, so that
// another node cannot learn of a change before it can read it.
func (t *Tx) Note(kind, subject string) {
	t.work.changes = append(t.work.changes, Change{kind, subject})
	t.work.wrote = true
}

// rows reads all rows of the kind of template that a condition selects. Damage is told to bad; nil leaves bad rows out.
func rows[T any, P interface {
	*T
	Row
}](t *Tx, template T, tail string, args []any, bad func(*T, error)) ([]T, error) {
	var list []T
	tab := P(&template).table()
	err := t.scanTable(tab, tab.sql.selectAll+tail, args, func(row Row, _ scanned, damage error) error {
		r := (*T)(row.(P))
		if damage != nil {
			if bad == nil {
				return nil
			}
			bad(r, damage)
		}
		list = append(list, *r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", tab.name, err)
	}
	return list, nil
}

// micros is how the database writes a time.
func micros(at time.Time) int64 {
	// 0 and not the microseconds of the year 1: statements ask for ended=0, and people read the tables.
	if at.IsZero() {
		return 0
	}
	return at.UnixMicro()
}
