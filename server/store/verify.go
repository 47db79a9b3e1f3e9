package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"hawser/internal/wait"
)

// A Finding is damage that was found.
type Finding struct {
	Table string
	Key   string // of a bad row; empty: the table as a whole
	Text  string
	Grave bool // something may be missing that would have forbidden a grant
}

// String names the table and the row.
func (f Finding) String() string {
	return f.err().Error()
}

// Health is what is known of the store's condition.
type Health struct {
	Lost     string    // why nothing can be written: it is not the database that this server has used; empty: it is
	Moved    bool      // Lost only says that an operator has moved the store
	Findings []Finding // damage, by table
	Scrubbed time.Time // when the last whole reading ended; zero: not since the start
}

// Missing returns the findings for which nothing is granted until an operator accepts them.
func (h Health) Missing() []error {
	var errs []error
	for _, f := range h.Findings {
		if f.Grave {
			errs = append(errs, f.err())
		}
	}
	return errs
}

// Err is nil for a store that is as it was written; else it names all that is wrong.
func (h Health) Err() error {
	if len(h.Findings) == 0 {
		return h.lost("store")
	}
	var texts []string
	if h.Lost != "" {
		texts = append(texts, h.Lost)
	}
	for _, f := range h.Findings {
		texts = append(texts, f.String())
	}
	return fmt.Errorf("store %w: %s", ErrDamaged, strings.Join(texts, "; "))
}

// lost says of a store why nothing can be written, or nil. A store that was moved is not damaged.
func (h Health) lost(of string) error {
	switch {
	case h.Moved:
		return fmt.Errorf("%s %w: %s", of, ErrMoved, h.Lost)
	case h.Lost != "":
		return fmt.Errorf("%s %w: %s", of, ErrDamaged, h.Lost)
	}
	return nil
}

// Granting is nil while grants may be signed and members may enroll.
func (h Health) Granting() error {
	if err := h.lost("store"); err != nil {
		return err
	}
	if m := h.Missing(); len(m) > 0 {
		return fmt.Errorf("store %w", m[0])
	}
	return nil
}

// Health returns what was found so far. What other nodes have lost, and a move, stop writing as a loss of this node
// does: the first of them is said.
func (s *Store) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	h.Lost = cmp.Or(h.Lost, s.astray)
	if s.moved && h.Lost == "" {
		h.Lost, h.Moved = "start the server anew, with its new configuration", true
	}
	h.Findings = slices.Clone(h.Findings)
	return h
}

// found replaces what is known of a table. The old findings go with it: that is how damage heals which an operator or a
// new row has mended.
func (s *Store) found(table string, list []Finding) {
	s.mu.Lock()
	before := s.health.Findings
	s.health.Findings = slices.DeleteFunc(slices.Clone(before), func(f Finding) bool { return f.Table == table })
	s.health.Findings = append(s.health.Findings, list...)
	s.mu.Unlock()
	s.sayDamaged(list, before)
}

// sayDamaged logs what was not known before.
func (s *Store) sayDamaged(list, before []Finding) {
	// Once and not at each reading: a log with the same line each day is not read any more.
	for _, f := range list {
		if !slices.Contains(before, f) {
			s.log.Error("the store is damaged", "store", s.engine.where, "table", f.Table, "row", f.Key, "err", f.Text)
		}
	}
}

// maxFindings bounds what is said of one table. A broken disk can spoil every row, and the message is read by a person.
const maxFindings = 20

// verify reads everything but old audit records. Old audit records grant nothing and are the most of all rows, so a
// start does not wait for them: with 100,000 devices and a million records it took 4 s (SQLite) and 3 s (PostgreSQL),
// measured by BenchmarkMany.
func (s *Store) verify(ctx context.Context) error {
	if err := s.verifySystem(ctx); err != nil {
		return err
	}
	for _, tab := range schema.all() {
		if tab == schema.audit {
			continue
		}
		if err := s.verifyTable(ctx, tab); err != nil {
			return err
		}
	}
	steps, err := s.auditSteps(ctx, auditAtStart)
	if err != nil {
		return s.unreadable(schema.audit.name, err)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// unreadable makes a finding of an error that says that a table cannot be read at all, and returns any other.
func (s *Store) unreadable(table string, err error) error {
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	s.found(table, []Finding{{Table: table, Text: "cannot be read: " + err.Error(), Grave: table != schema.audit.name}})
	return nil
}

// verifyTable compares the rows of a table with their seals and sums, in one moment. Rows and sums have to be of one
// moment: between two, a commit would look like damage.
func (s *Store) verifyTable(ctx context.Context, tab *table) error {
	var list []Finding
	err := s.View(ctx, func(t *Tx) (err error) {
		list, err = t.verifyTable(tab)
		return err
	})
	if err != nil {
		return s.unreadable(tab.name, err)
	}
	s.found(tab.name, list)
	return nil
}

// verifyTable reads the rows and their sums in one transaction: between two, a commit would look like damage. Rows that
// are bad by themselves are counted, so that the sum that they spoil is not told as another finding.
func (t *Tx) verifyTable(tab *table) (list []Finding, err error) {
	got := make(map[int64]sum)
	bad := make(map[int64]int64)
	err = t.scanTable(tab, tab.sql.selectAll, nil, func(_ Row, s scanned, damage error) error {
		k := tab.sumKeyOf(s.values[:tab.keys])
		sum := got[k.bucket]
		sum.add(sealFrom(s.seal))
		got[k.bucket] = sum
		if damage != nil {
			bad[k.bucket]++
			list = append(list, tab.badRow(damage))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) > maxFindings {
		list = append(list[:maxFindings], Finding{Table: tab.name, Text: fmt.Sprintf("%d more bad rows", len(list)-maxFindings)})
	}
	if !tab.noSums {
		want, err := t.readSums(tab.name)
		if err != nil {
			return nil, err
		}
		list = append(list, differences(tab.name, want, got, bad)...)
	}
	// Seals and sums read the rows by one tree alone. Lists go by the others.
	structure, err := t.integrity(tab.name)
	return append(list, structure...), err
}

// badRow judges a row that is not what was written. It shuts out its subject. A revoked key whose row is bad may be
// another one than it says: then nobody knows whom to shut out.
func (tab *table) badRow(damage error) Finding {
	f := Finding{Table: tab.name, Text: damage.Error(), Grave: tab == schema.revoked}
	if d, ok := errors.AsType[*DamageError](damage); ok {
		f.Key, f.Text = d.Key, d.Text
	}
	return f
}

// differences judges where rows and sums do not agree. Where the number of rows is right and some of them are bad, it
// is these whose seals are bad. It is pure. A bad row shuts out one subject, a missing one everybody: therefore a
// bucket whose rows are all there, and of which a bad one explains the sum, counts as the former.
func differences(table string, want, got map[int64]sum, bad map[int64]int64) (list []Finding) {
	for _, b := range compareSums(want, got) {
		w, g := want[b], got[b]
		if w.n == g.n && bad[b] > 0 {
			continue
		}
		text := fmt.Sprintf("a row is not the one that was written (bucket %d)", b)
		switch {
		case g.n < w.n:
			text = fmt.Sprintf("%d of %d rows are missing (bucket %d)", w.n-g.n, w.n, b)
		case g.n > w.n:
			text = fmt.Sprintf("%d rows too many (bucket %d)", g.n-w.n, b)
		}
		list = append(list, Finding{Table: table, Text: text, Grave: true})
		if len(list) == maxFindings {
			break
		}
	}
	return list
}

func sealFrom(b []byte) (x seal) {
	copy(x[:], b)
	return x
}

// scanTable reads rows of any table.
func (t *Tx) scanTable(tab *table, query string, args []any, visit func(Row, scanned, error) error) error {
	rows, err := t.query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r := tab.row()
		s, err := scanRow(r, rows.Scan)
		if err != nil {
			if err := t.check(rows.Err()); err != nil {
				return err
			}
			return &DamageError{Table: tab.name, Text: err.Error()} // a column that holds what was never written
		}
		if err := visit(r, s, s.into(r)); err != nil {
			return err
		}
	}
	return t.check(errors.Join(rows.Err(), rows.Close()))
}

// integrity asks SQLite whether the trees of a table are whole and agree with each other. Rows are read by their key
// and by indexes, which are trees of their own: a bad index hides a row from lists while every row that is found has a
// good seal. PostgreSQL's is the extension amcheck, which an ordinary role does not have.
func (t *Tx) integrity(table string) (list []Finding, err error) {
	if t.engine.postgres {
		return nil, nil
	}
	rows, err := t.query("PRAGMA integrity_check(" + table + ")")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, t.check(err)
		}
		if text != "ok" && len(list) < maxFindings {
			list = append(list, Finding{Table: table, Text: text, Grave: table != schema.audit.name})
		}
	}
	return list, t.check(errors.Join(rows.Err(), rows.Close()))
}

// scrubTime is how long a whole reading takes: short enough to find damage while the backup of before is still there.
const scrubTime = 7 * 24 * time.Hour

// Scrub reads everything again and again, a little at a time, until ctx ends. A store that is away is tried again. The
// steps are spread evenly, so that a large audit is read at a few records a second and nobody notices. It runs in its
// caller's goroutine.
func (s *Store) Scrub(ctx context.Context) {
	for ctx.Err() == nil {
		steps, err := s.scrubSteps(ctx)
		if err != nil {
			steps = append(steps, func(context.Context) error { return err })
		}
		for _, step := range steps {
			// Before the step and not after it: a start has read everything but old records just now.
			if !wait.Sleep(ctx, scrubTime/time.Duration(len(steps))) {
				return
			}
			err := step(ctx)
			s.counted.scrubbed.Inc()
			if err != nil && ctx.Err() == nil {
				s.log.Warn("the store could not be read through", "err", err)
			}
		}
		s.mu.Lock()
		s.health.Scrubbed = time.Now()
		s.mu.Unlock()
	}
}

// scrubSteps lists what a whole reading reads, in pieces: each table, and each bucket of the audit.
func (s *Store) scrubSteps(ctx context.Context) (steps []func(context.Context) error, err error) {
	steps = append(steps, s.reread, s.verifySystem)
	for _, tab := range schema.all() {
		if tab != schema.audit {
			steps = append(steps, func(ctx context.Context) error { return s.verifyTable(ctx, tab) })
		}
	}
	audit, err := s.auditSteps(ctx, math.MaxInt64)
	return append(steps, audit...), err
}

// ReadAll reads everything now, as Scrub does over a week, and returns what is known then.
func (s *Store) ReadAll(ctx context.Context) (Health, error) {
	steps, err := s.scrubSteps(ctx)
	for _, step := range steps {
		err = errors.Join(err, step(ctx))
	}
	return s.Health(), err
}
