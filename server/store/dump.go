package store

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
)

// dumped lists what a dump of a schema holds (dump §2). Presence and leases are left out: who is attached goes with the
// processes. So are commits and changes, since the new incarnation makes every node read all anew.
func dumped(version int) []dumpTable {
	checkpoints := dumpTable{"checkpoints", []string{"node", "seq", "hash", "at", "proof"}, "titit"}
	if version < 2 {
		checkpoints = dumpTable{"checkpoints", []string{"node", "seq", "hash", "at"}, "titi"}
	}
	list := []dumpTable{
		{"sums", []string{"tbl", "bucket", "n", "total"}, "tiib"},
		{"heads", []string{"node", "gen", "chain", "audit_seq", "audit_hash"}, "titit"},
		checkpoints,
		{"accepted", []string{"tbl", "place", "finding", "at"}, "ttti"},
	}
	since := map[*table]int{schema.resets: 3, schema.reports: 5, schema.slots: 6, schema.addresses: 7, schema.joins: 8}
	for _, tab := range schema.all() {
		if tab == schema.presence || version < since[tab] {
			continue
		}
		d := dumpTable{Name: tab.name, Columns: append(tab.columns[:len(tab.columns):len(tab.columns)], "seal")}
		for _, f := range tab.row().fields() {
			if isNumber(f) {
				d.Kinds += "i"
			} else {
				d.Kinds += "t"
			}
		}
		d.Kinds += "b"
		list = append(list, d)
	}
	return list
}

// Backup writes a dump of the store as it is at one moment, while it goes on. The dump holds what others must not
// read: the caller's file has mode 0600 (or use WriteFile). One snapshot of the database, so that rows, sums and heads
// fit each other however much is written meanwhile.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	begun := time.Now()
	if err := s.View(ctx, func(t *Tx) error { return s.dump(t, w, begun) }); err != nil {
		return fmt.Errorf("back up store %s: %w", s.engine.where, err)
	}
	// Only now: a backup that failed must not keep check quiet.
	err := s.transact(ctx, func(t *Tx) error { return t.setMeta(metaBackup, strconv.FormatInt(begun.UnixMicro(), 10)) })
	if err != nil { // the dump is good
		s.log.Warn("the time of the backup was not written down", "err", err)
	}
	return nil
}

// dump checks no seals: a backup of a damaged store is better than none, and Restore says what is wrong.
func (s *Store) dump(t *Tx, w io.Writer, at time.Time) error {
	_, p, err := t.found(s.node)
	if err != nil {
		return err
	}
	d := newDumpWriter(w, dumpHeader{Store: p.Store, Incarnation: p.Incarnation, Schema: len(migrations()), Node: s.node, Time: at.UTC()})
	for _, table := range dumped(len(migrations())) {
		d.table(table)
		if err := t.dumpRows(table, d); err != nil {
			return err
		}
	}
	return d.end()
}

func (t *Tx) dumpRows(table dumpTable, d *dumpWriter) error {
	rows, err := t.query("SELECT " + strings.Join(table.Columns, ",") + " FROM " + table.Name)
	if err != nil {
		return err
	}
	defer rows.Close()
	into := make([]any, len(table.Columns))
	for i, kind := range table.Kinds {
		// RawBytes are not copied; they are good until the next row, and add has written them by then.
		into[i] = map[rune]any{'t': new(string), 'i': new(int64), 'b': new(sql.RawBytes)}[kind]
	}
	values := make([]any, len(into))
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return &DamageError{Table: table.Name, Text: err.Error()}
		}
		for i, v := range into {
			switch v := v.(type) {
			case *string:
				values[i] = *v
			case *int64:
				values[i] = *v
			case *sql.RawBytes:
				values[i] = []byte(*v)
			}
		}
		if d.add(values); d.err != nil {
			return d.err
		}
	}
	return t.check(errors.Join(rows.Err(), rows.Close()))
}

// WriteFile lets backup write into a file of mode 0600, which is there whole or not at all, encrypted unless passphrase
// is empty.
func WriteFile(path, passphrase string, backup func(io.Writer) error) (err error) {
	// Beside the file and not in /tmp: a rename works within one file system only. What is left of a backup that was
	// cut off is removed first.
	temp := path + ".part"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write dump: %w", err)
	}
	// O_EXCL: a link that somebody has planted under that name is not followed.
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(temp))
		}
	}()
	w, err := Encrypt(f, passphrase)
	if err != nil {
		return err
	}
	if err := backup(w); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), f.Sync()); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	if err := errors.Join(os.Rename(temp, path), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	return f.Close()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// scryptWork makes a guess at a passphrase cost a second and 128 MiB; so does each backup.
const scryptWork = 17

// Encrypt returns what encrypts to w with a passphrase; an empty one: what writes to w as it is. Close ends the
// encryption, and leaves w open. It is age's format, so that a backup can be opened by the age program when this one is
// gone.
func Encrypt(w io.Writer, passphrase string) (io.WriteCloser, error) {
	if passphrase == "" {
		return plain{w}, nil
	}
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("encrypt dump: %w", err)
	}
	to.SetWorkFactor(scryptWork)
	return age.Encrypt(w, to)
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// Decrypt is the inverse of Encrypt: the passphrase is empty for a dump that is not encrypted. Only the start is looked
// at before; a file that was cut is found by age at its end, and by the dump's own end.
func Decrypt(r io.Reader, passphrase string) (io.Reader, error) {
	// A passphrase for a plain dump is an error and not ignored: its operator believes that the file is encrypted.
	const intro = "age-encryption.org/"
	in := bufio.NewReader(r)
	start, err := in.Peek(len(intro))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	switch encrypted := bytes.Equal(start, []byte(intro)); {
	case encrypted && passphrase == "":
		return nil, errors.New("read dump: it is encrypted, and needs its passphrase")
	case !encrypted && passphrase != "":
		return nil, errors.New("read dump: it is not encrypted, and takes no passphrase")
	case !encrypted:
		return in, nil
	}
	who, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	out, err := age.Decrypt(in, who)
	if err != nil {
		return nil, fmt.Errorf("read dump: the passphrase is another one: %w", err)
	}
	return out, nil
}

// Restore writes a dump into an empty database, which is then the store of o.Node, in a new incarnation. It writes all
// of it or nothing. A database that has tables of a store is ErrExists. Health says whether what was restored is as it
// was written; the caller opens the store then. Into an empty database only: rows of two histories in one table could
// not be told apart again.
func Restore(ctx context.Context, o Options, r io.Reader) (Health, error) {
	return restore(ctx, o, r, nil)
}

// Move copies a store into an empty database of another kind or place, as Backup and Restore do. What is written to
// from meanwhile is not moved: the caller sees to it that nothing is. Afterwards the progress of to.Dir is that of the
// new database; from may have the same directory.
func Move(ctx context.Context, from *Store, to Options) (Health, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	// Move waits for it below: it ends with ctx, with the dump, or when the pipe's reader is closed.
	go func() {
		err := from.Backup(ctx, w)
		w.CloseWithError(err)
		done <- err
	}()
	h, err := restore(ctx, to, r, from)
	r.Close() // ends a Backup whose reader failed
	if sent := <-done; err == nil {
		err = sent
	}
	return h, err
}

// MoveTo is Move while the store is used: nothing is committed meanwhile, and afterwards nothing is ever again. It runs
// as the one writer (s.alone): no operation can commit between the copy and the moment from which none may.
func (s *Store) MoveTo(ctx context.Context, to Options) (h Health, err error) {
	done := make(chan struct{})
	move := func() {
		defer close(done)
		if err = s.onlyNode(ctx); err != nil {
			return
		}
		if h, err = Move(ctx, s, to); err == nil {
			s.mu.Lock()
			s.moved = true
			s.mu.Unlock()
			s.log.Info("the store was moved: nothing is written until the server is started anew", "store", s.engine.where)
		}
	}
	select {
	case s.alone <- move:
		<-done
	case <-ctx.Done():
		err = fmt.Errorf("move store %s: %w", s.engine.where, ctx.Err())
	case <-s.closing:
		err = fmt.Errorf("move store %s: it is closed", s.engine.where)
	}
	return h, err
}

// onlyNode refuses what other nodes would not notice.
func (s *Store) onlyNode(ctx context.Context) error {
	return s.View(ctx, func(t *Tx) error {
		leases, err := t.Leases()
		delete(leases, s.node)
		for other := range leases {
			return fmt.Errorf("move store %s: Access Server %s works on it too: stop it first", s.engine.where, other)
		}
		return err
	})
}

func restore(ctx context.Context, o Options, r io.Reader, from *Store) (h Health, err error) {
	s := newStore(o)
	defer func() {
		if err = errors.Join(err, s.release()); err != nil {
			err = fmt.Errorf("restore store: %w", err)
		}
	}()
	if from != nil && o.Dir != "" && from.dir == filepath.Clean(o.Dir) {
		s.progress = from.progress // and its lock
	}
	if err := s.openEngine(o); err != nil {
		return h, err
	}
	d, err := newDumpReader(r)
	if err != nil {
		return h, err
	}
	// An older schema is loaded into the tables it was made of, and migrated then: the one way that is tested anyway.
	if d.header.Schema < 1 || d.header.Schema > len(migrations()) {
		return h, fmt.Errorf("the dump has schema %d, and this program knows only %d: update it", d.header.Schema, len(migrations()))
	}
	now, err := s.load(ctx, d)
	if err != nil {
		return h, err
	}
	if err := s.progress.save(now); err != nil {
		return h, err
	}
	s.known = now
	// As at any start: a dump has whatever damage it was made of, and its own checksum says only that it is the same
	// dump.
	return s.ReadAll(ctx)
}

// load writes a dump in one transaction. One transaction, however large: a restore that was cut off leaves an empty
// database, which can be tried again.
func (s *Store) load(ctx context.Context, d *dumpReader) (p progress, err error) {
	tx, err := s.engine.beginWrite(ctx)
	if err != nil {
		return p, s.engine.classify(err)
	}
	t := &Tx{ctx: ctx, sql: tx, engine: s.engine}
	if p, err = s.loadIn(t, d); err != nil {
		tx.Rollback()
		return p, err
	}
	return p, s.engine.classify(tx.Commit())
}

func (s *Store) loadIn(t *Tx, d *dumpReader) (p progress, err error) {
	if full, err := t.hasTables(); err != nil {
		return p, err
	} else if full {
		return p, fmt.Errorf("the database %s is not empty: a store %w", s.engine.where, ErrExists)
	}
	if err := errors.Join(t.exec(t.engine.define(createMeta)), t.makeTables(0, d.header.Schema)); err != nil {
		return p, err
	}
	if err := t.loadRows(d); err != nil {
		return p, err
	}
	if err := t.makeTables(d.header.Schema, len(migrations())); err != nil {
		return p, err
	}
	at := time.Now()
	// It must be above both that of the dump and that of the progress file, or the restored database would count as
	// lost.
	known := d.header.Incarnation
	if s.progress != nil {
		known = max(known, s.progress.known.Incarnation)
	}
	if err := t.setMeta(metaID, d.header.Store); err != nil {
		return p, err
	}
	inc, err := t.nextIncarnation(at, known)
	if err != nil {
		return p, err
	}
	err = errors.Join(t.exec("INSERT INTO commits (node,gen,chain) SELECT node,gen,chain FROM heads WHERE gen>0"), t.finishTables(len(migrations())))
	if err != nil {
		return p, err
	}
	h, err := s.ownHead(t)
	if err != nil {
		return p, err
	}
	// The restore is a commit with an audit record, so that nobody can restore without a trace.
	h.gen++
	t.work = newWork(s.node, h)
	err = t.Append(Record{Time: at, Actor: operator, Action: actionRestore, Result: "ok",
		Detail: fmt.Sprintf("%d rows of %s, by %s", d.rows, d.header.Time.UTC().Format(time.RFC3339), d.header.Node)})
	if err == nil {
		err = s.seal(t, t.work)
	}
	return progress{Store: d.header.Store, Incarnation: inc, Gen: h.gen, Chain: t.work.head.chain}, err
}

// hasTables reports whether the database is a store already.
func (t *Tx) hasTables() (bool, error) {
	query := "SELECT count(*) FROM sqlite_schema"
	if t.engine.postgres { // where other programs may have tables beside ours
		query = "SELECT count(*) FROM information_schema.tables WHERE table_schema=current_schema() AND table_name IN ('meta','heads')"
	}
	var n int
	err := t.one(query, nil, &n)
	return n > 0, err
}

// fits reports whether a dump of a schema may have a table: its names become part of a statement. A dump is a file that
// others may have had in their hands; no name in it is trusted.
func fits(t dumpTable, version int) bool {
	return slices.ContainsFunc(dumped(version), func(known dumpTable) bool {
		return t.Name == known.Name && t.Kinds == known.Kinds && slices.Equal(t.Columns, known.Columns)
	})
}

// maxParameters of a statement; more gain nothing. SQLite takes 32,766 and PostgreSQL 65,535 in a statement.
const maxParameters = 2000

// loadRows writes the rows of a dump, many with one statement. Many rows in a statement, because each statement to a
// PostgreSQL elsewhere costs a round trip.
func (t *Tx) loadRows(d *dumpReader) error {
	var of *dumpTable
	var args []any
	flush := func() error {
		if of == nil || len(args) == 0 {
			return nil
		}
		columns := append([]string(nil), of.Columns...)
		one := "(" + strings.TrimSuffix(strings.Repeat("?,", len(columns)), ",") + ")"
		if of.Name == "heads" { // no process writes as these nodes yet
			columns = append(columns, "run")
			one = strings.TrimSuffix(one, ")") + ",'')"
		}
		n := len(args) / len(of.Columns)
		err := t.exec("INSERT INTO "+of.Name+" ("+strings.Join(columns, ",")+") VALUES "+strings.TrimSuffix(strings.Repeat(one+",", n), ","), args...)
		args = args[:0]
		return err
	}
	for {
		values, err := d.next()
		if d.table != of || errors.Is(err, io.EOF) || len(args)+maxColumns > maxParameters {
			if err := flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.table != of && !fits(*d.table, d.header.Schema) {
			return fmt.Errorf("read dump: table %s is not one of this schema", d.table.Name)
		}
		of = d.table
		args = append(args, values...)
	}
}
