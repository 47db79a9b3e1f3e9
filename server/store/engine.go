package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// engine is a database, and all that differs between the two kinds.
type engine struct {
	postgres    bool
	where       string  // for people, without a password
	write, read *sql.DB // of SQLite write has one connection

	asked func(query string, args []any) // of tests: what is about to be asked; nil: nobody
}

// Memory returns an SQLite database in memory, to which any number of Stores may be opened, each as a node of its own.
// The caller closes it after them.
func Memory() (*sql.DB, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, fmt.Errorf("open store in memory: %w", err)
	}
	db.SetMaxOpenConns(1) // each connection would be a database of its own
	return db, nil
}

func memoryEngine(db *sql.DB) *engine { return &engine{where: "memory", write: db, read: db} }

// databaseFile is the name of SQLite's file in the directory of a store.
const databaseFile = "store.db"

// SetAside takes an SQLite database that nobody has open out of the way, in its directory.
func SetAside(dir string, now time.Time) error {
	path := filepath.Join(dir, databaseFile)
	for _, part := range []string{"", "-wal", "-shm"} {
		err := os.Rename(path+part, path+"-until-"+now.UTC().Format("20060102T150405Z")+part)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readers is how many transactions read an SQLite file at once.
const readers = 4

// openSQLite opens the file in dir, or makes it.
func openSQLite(dir string) (*engine, error) {
	path := filepath.Join(dir, databaseFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would make it for all to read
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, err
	}
	open := func(pragmas ...string) (*sql.DB, error) {
		// The driver runs these on each new connection; a PRAGMA that is sent once would reach one of them only.
		// cell_size_check finds a broken page before it is believed, trusted_schema(0) keeps functions out of a schema
		// that a flipped bit has changed. BEGIN IMMEDIATE takes the lock for writing at once: a transaction that reads
		// first and writes later could find that another one was in between, and fail with BUSY at any statement.
		q := url.Values{"_pragma": append([]string{"busy_timeout(10000)", "cell_size_check(1)", "trusted_schema(0)"}, pragmas...), "_txlock": {"immediate"}}
		return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	}
	e := &engine{where: path}
	if e.write, err = open("journal_mode(WAL)", "synchronous(FULL)"); err != nil {
		return nil, err
	}
	// SQLite has one writer at a time anyway; here the second one waits in Go, where it can be told to give up.
	e.write.SetMaxOpenConns(1)
	if e.read, err = open("query_only(1)"); err != nil {
		return nil, errors.Join(err, e.write.Close())
	}
	e.read.SetMaxOpenConns(readers)
	return e, nil
}

// postgresConns is how many connections a node holds at most. PostgreSQL has 100 for all of its clients by default, and
// several nodes share it.
const postgresConns = 8

// openPostgres makes no connection yet. A server starts while its database is away, and serves as soon as that is
// there.
func openPostgres(raw string) (*engine, error) {
	u, err := CheckURL(raw)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(postgresConns)
	// Less than what firewalls and poolers let a connection be idle, which they end without a word.
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &engine{postgres: true, where: u.Redacted(), write: db, read: db}, nil
}

// CheckURL parses the URL of a PostgreSQL database, postgres://USER:PASSWORD@HOST:PORT/NAME?…, and fills in what it
// leaves out. TLS with a verified name is asked for unless the server is on this machine. It contacts nobody, and its
// errors show no password. The default of PostgreSQL's clients, sslmode=prefer, goes on without TLS when it is refused,
// and never looks at the name: whoever is on the path could be the database.
func CheckURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("store url is not postgres://USER:PASSWORD@HOST:PORT/NAME")
	}
	if len(u.Path) < 2 {
		return nil, errors.New("store url names no database: postgres://USER:PASSWORD@HOST:PORT/NAME")
	}
	q := u.Query()
	host := u.Hostname()
	if host == "" {
		host = q.Get("host")
	}
	local := strings.HasPrefix(host, "/") || host == "localhost" || net.ParseIP(host).IsLoopback()
	switch mode := q.Get("sslmode"); {
	case host == "":
		return nil, errors.New("store url names no host")
	case !local && mode != "" && mode != "verify-full":
		return nil, fmt.Errorf("store url: sslmode is %.20q, and a server that is not on this machine needs verify-full", mode)
	case !local:
		q.Set("sslmode", "verify-full")
	case mode == "":
		q.Set("sslmode", "disable")
	}
	if q.Get("connect_timeout") == "" {
		q.Set("connect_timeout", "5")
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// rebind gives placeholders the form of the engine. No statement of ours has a question mark elsewhere.
func (e *engine) rebind(query string) string {
	if !e.postgres {
		return query
	}
	var b strings.Builder
	n := 0
	for {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// define gives the text of a table the form of the engine. Text sorts by its bytes in both. By a locale the order of
// names would differ between the engines, and an update of the system's locale data makes indexes of PostgreSQL wrong.
func (e *engine) define(text string) string {
	if e.postgres {
		return strings.NewReplacer("{text}", `TEXT COLLATE "C" NOT NULL`, "{int}", "BIGINT NOT NULL", "{blob}", "BYTEA NOT NULL", "{end}", ")").Replace(text)
	}
	// Without row ids the rows are in the tree of their key: there is no second tree that could disagree.
	return strings.NewReplacer("{text}", "TEXT NOT NULL", "{int}", "INTEGER NOT NULL", "{blob}", "BLOB NOT NULL", "{end}", ") WITHOUT ROWID").Replace(text)
}

// clock is an expression for the database's time in microseconds: leases are judged by one clock for all nodes.
func (e *engine) clock() string {
	if e.postgres {
		return "(extract(epoch from clock_timestamp())*1000000)::bigint"
	}
	return strconv.FormatInt(time.Now().UnixMicro(), 10)
}

// beginWrite begins a transaction that either happens alone or not at all.
func (e *engine) beginWrite(ctx context.Context) (*sql.Tx, error) {
	if e.postgres {
		return begin(ctx, e.write, &sql.TxOptions{Isolation: sql.LevelSerializable})
	}
	return e.write.BeginTx(ctx, nil)
}

// beginRead begins a transaction that sees one moment.
func (e *engine) beginRead(ctx context.Context) (*sql.Tx, error) {
	if e.postgres {
		return begin(ctx, e.read, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	}
	return e.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
}

// begin uses up the connections that ended since their last use: the server was started again.
func begin(ctx context.Context, db *sql.DB, o *sql.TxOptions) (tx *sql.Tx, err error) {
	for range postgresConns + 1 {
		if tx, err = db.BeginTx(ctx, o); err == nil || ctx.Err() != nil {
			break
		}
		pg, answered := errors.AsType[*pgconn.PgError](err)
		_, dialed := errors.AsType[*pgconn.ConnectError](err)
		if dialed || answered && !strings.HasPrefix(pg.Code, "57P") {
			break
		}
	}
	return tx, err
}

// close leaves a database in memory to who made it: other nodes of a test use it too.
func (e *engine) close() error {
	if e.where == "memory" {
		return nil
	}
	if e.read == e.write {
		return e.write.Close()
	}
	return errors.Join(e.read.Close(), e.write.Close())
}

// SQLSTATE codes and classes of PostgreSQL, appendix A of its manual.
const (
	pgSerialization = "40001"
	pgDeadlock      = "40P01"
	pgUnique        = "23505" // another node may have been first: the next try sees its row
	pgTableExists   = "42P07"
	pgTypeExists    = "42710" // that of the same table
	pgReadOnly      = "25006"
	pgNoRight       = "42501"
	pgDiskFull      = "53100"
	pgCorrupt       = "XX001"
	pgIndexCorrupt  = "XX002"
)

// again reports whether a transaction met another one, and has to be done anew. That two nodes insert the same unique
// row may mean a conflict of their transactions, which PostgreSQL reports as a violation: seen again, the row is there
// and is refused properly.
func again(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == pgSerialization || pg.Code == pgDeadlock || pg.Code == pgUnique
	}
	return sqliteCode(err) == sqlite3.SQLITE_BUSY
}

// madeByOther reports whether another node has made the tables in the meantime.
func madeByOther(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == pgTableExists || pg.Code == pgTypeExists)
}

// sqliteCode returns the primary result code of SQLite, or 0.
func sqliteCode(err error) int {
	if s, ok := errors.AsType[*sqlite.Error](err); ok {
		return s.Code() & 0xff
	}
	return 0
}

// unique reports whether a row was refused because it has what only one may have.
func unique(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == pgUnique
	}
	s, ok := errors.AsType[*sqlite.Error](err)
	return ok && (s.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || s.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// saidBy reports whether an error came from the database, and not from a value that was read of it.
func (e *engine) saidBy(err error) bool {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return false
	}
	return e.kindOf(err) != nil || e.postgres || sqliteCode(err) != 0
}

// classify wraps an error that a call to the database gave with what callers branch on.
func (e *engine) classify(err error) error {
	kind := e.kindOf(err)
	if kind == nil || errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("store %s %w: %w", e.where, kind, err)
}

// kindOf sorts errors by what an operator has to do: wait, make room, or restore a backup.
func (e *engine) kindOf(err error) error {
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ErrAway
	}
	pg, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case unique(err):
		return ErrExists
	case answered:
		return kindOfState(pg.Code)
	case e.postgres: // no answer came, whatever the reason
		return ErrAway
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return ErrFull
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return ErrDamaged
	case sqlite3.SQLITE_BUSY:
		return ErrAway
	}
	return nil
}

// kindOfState judges an SQLSTATE of PostgreSQL. Class 08 is the connection, 28 the login, 3D the
// database's name, 53 resources, 57 an operator, 58 the system around it.
func kindOfState(code string) error {
	switch {
	case code == pgDiskFull || code == pgReadOnly || code == pgNoRight, strings.HasPrefix(code, "58"):
		return ErrFull
	case code == pgCorrupt || code == pgIndexCorrupt:
		return ErrDamaged
	case code == pgSerialization || code == pgDeadlock,
		strings.HasPrefix(code, "08"), strings.HasPrefix(code, "28"), strings.HasPrefix(code, "3D"), strings.HasPrefix(code, "53"), strings.HasPrefix(code, "57"):
		return ErrAway
	}
	return nil
}
