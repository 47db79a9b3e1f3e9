package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A migration brings a database from one version to the next. With several nodes a new column or table comes in one
// version, and what is taken away goes in a later one, so that two versions of the program can work side by side. There
// are no steps back: an older program refuses a newer database, and a backup from before is the way back.
type migration []string

// migrations holds them in order: the version of a database is how many of them it has had. One that is there is never
// changed. In a table {text}, {int} and {blob} stand for columns that are never null, {end} for its end
// (engine.define). Both engines run the same statements, so that every test of one is a test of the other.
func migrations() []migration {
	const member = "(id {text}, domain {text}, name {text}, created {int}, code {text}, code_hash {text}, code_expires {int}, spki {text}, " +
		"chain {text}, enrolled {int}, not_after {int}, hints {text}, revoked {int}, folder {text}, " + sealed + "PRIMARY KEY (id){end}"
	return []migration{{
		// What a node knows of itself and of all.
		"CREATE TABLE sums (tbl {text}, bucket {int}, n {int}, total {blob}, PRIMARY KEY (tbl, bucket){end}",
		"CREATE TABLE heads (node {text}, run {text}, gen {int}, chain {text}, audit_seq {int}, audit_hash {text}, PRIMARY KEY (node){end}",
		"CREATE TABLE leases (node {text}, run {text}, until {int}, PRIMARY KEY (node){end}",
		"CREATE TABLE commits (node {text}, gen {int}, chain {text}, PRIMARY KEY (node, gen){end}",
		"CREATE TABLE changes (node {text}, gen {int}, i {int}, kind {text}, subject {text}, PRIMARY KEY (node, gen, i){end}",
		"CREATE TABLE checkpoints (node {text}, seq {int}, hash {text}, at {int}, PRIMARY KEY (node){end}",

		"CREATE TABLE accepted (tbl {text}, place {text}, finding {text}, at {int}, PRIMARY KEY (tbl, place, finding){end}",

		"CREATE TABLE domains (name {text}, created {int}, infrastructure {int}, domain_key {text}, " + sealed + "PRIMARY KEY (name){end}",
		"CREATE TABLE users (domain {text}, name {text}, created {int}, revoked {int}, " + sealed + "PRIMARY KEY (domain, name){end}",
		"CREATE TABLE user_keys (domain {text}, user_name {text}, spki {text}, login {int}, not_after {int}, " + sealed + "PRIMARY KEY (domain, user_name, spki){end}",
		"CREATE TABLE devices " + member,
		"CREATE UNIQUE INDEX devices_name ON devices (domain, name) WHERE revoked = 0",
		// A page of a list is read of an index that has it in order, and that has nothing else: one for all devices of a
		// domain, and one for each state that can be asked for. With a single one, the page of the few that wait would be
		// read past all that do not. TestPagesAreFoundInIndexes holds the statements to that.
		"CREATE INDEX devices_list ON devices (domain, name, id)",
		"CREATE INDEX devices_pending ON devices (domain, name, id) WHERE revoked=0 AND enrolled=0",
		"CREATE INDEX devices_enrolled ON devices (domain, name, id) WHERE revoked=0 AND enrolled<>0",
		"CREATE INDEX devices_revoked ON devices (domain, name, id) WHERE revoked<>0",
		"CREATE TABLE relays " + member,
		"CREATE TABLE codes (lookup {text}, kind {text}, domain {text}, subject {text}, hash {text}, expires {int}, used {text}, used_at {int}, " +
			"mac {text}, list {int}, statements {text}, " + sealed + "PRIMARY KEY (lookup){end}",
		"CREATE TABLE statements (domain {text}, id {text}, typ {text}, subject {text}, spki {text}, serial {int}, ends {int}, jws {text}, at {int}, " +
			sealed + "PRIMARY KEY (domain, id){end}",
		"CREATE INDEX statements_subject ON statements (domain, subject)",
		"CREATE INDEX statements_at ON statements (domain, at, id)",
		"CREATE INDEX statements_ends ON statements (ends) WHERE ends<>0",
		"CREATE TABLE revoked (spki {text}, name {text}, at {int}, " + sealed + "PRIMARY KEY (spki){end}",
		"CREATE TABLE sessions (id {text}, epoch {int}, domain {text}, device {text}, user_name {text}, relay {text}, lost {text}, " +
			"instance {text}, created {int}, ended {int}, reason {text}, " + sealed + "PRIMARY KEY (id){end}",
		"CREATE INDEX sessions_open ON sessions (ended)",
		"CREATE TABLE measurements (subject {text}, at {int}, relays {text}, " + sealed + "PRIMARY KEY (subject){end}",
		"CREATE TABLE decisions (device {text}, user_name {text}, at {int}, choice {text}, " + sealed + "PRIMARY KEY (device, user_name){end}",
		"CREATE TABLE nodes (name {text}, ca {text}, hosts {text}, ports {text}, " + sealed + "PRIMARY KEY (name){end}",
		"CREATE TABLE presence (name {text}, node {text}, run {text}, since {int}, body {text}, " + sealed + "PRIMARY KEY (name){end}",
		"CREATE TABLE audit (node {text}, seq {int}, at {int}, domain {text}, actor {text}, action {text}, object {text}, result {text}, " +
			"detail {text}, prev {text}, hash {text}, " + sealed + "PRIMARY KEY (node, seq){end}",
		// Each begins with what an audit is filtered by, and ends in the place of a record, which is the order of a page.
		"CREATE INDEX audit_time ON audit (at, node, seq)",
		"CREATE INDEX audit_domain ON audit (domain, at, node, seq)",
		"CREATE INDEX audit_object ON audit (object, at, node, seq)",
		"CREATE INDEX audit_actor ON audit (actor, at, node, seq)",
	}, {
		"ALTER TABLE checkpoints ADD COLUMN proof {text} DEFAULT ''",
		"CREATE INDEX sessions_device ON sessions (device) WHERE ended=0", // asked for each device that attaches
	}, {
		"CREATE TABLE domain_resets (domain {text}, domain_key {text}, sequence {int}, body {text}, at {int}, " + sealed + "PRIMARY KEY (domain){end}",
	}, {
		// In the order of its rows, too: else the planner takes statements_at, which has that order and every device in it.
		"CREATE INDEX statements_of ON statements (domain, subject, at, id)",
		"DROP INDEX statements_subject",
	}, {
		// An older program would take the report for a part of the detail, and the record for a changed one.
		"CREATE TABLE reports (id {text}, at {int}, " + sealed + "PRIMARY KEY (id){end}",
		"CREATE INDEX reports_at ON reports (at)",
	}, {
		"CREATE TABLE slots (lookup {text}, slot {int}, subject {text}, mac {text}, statements {text}, expires {int}, used {text}, used_at {int}, " +
			sealed + "PRIMARY KEY (lookup, slot){end}",
		"CREATE INDEX slots_used ON slots (lookup, used, slot)", // asked by each gateway of a batch that enrolls
	}, {
		"CREATE TABLE relay_addresses (relay {text}, hosts {text}, ports {text}, " + sealed + "PRIMARY KEY (relay){end}",
	}, {
		"CREATE TABLE joins (id {text}, domain {text}, spki {text}, counter {int}, state {text}, next_counter {int}, next_state {text}, instances {text}, " +
			"changed {int}, cloned {int}, accepted {text}, fresh {text}, " + sealed + "PRIMARY KEY (id){end}",
		"CREATE INDEX joins_cloned ON joins (domain) WHERE cloned<>0", // asked for each page of devices; there are few
	}}
}

// sealed is the column of each table with rows.
const sealed = "seal {blob}, "

// The keys of table meta.
const (
	metaVersion     = "version"
	metaID          = "id"
	metaIncarnation = "incarnation" // when this history of the database began: init, restore, move or accept
	metaSeal        = "seal"        // a checksum over id and incarnation
	metaBackup      = "backup"      // when the last backup began, in µs
	metaSchema      = "schema"      // what SQLite says of its tables: a flipped bit there would change what a statement means
)

const createMeta = "CREATE TABLE IF NOT EXISTS meta (name {text}, value {text}, PRIMARY KEY (name){end}"

// migrate brings a database to the present version. One that is newer is refused. A full or read-only disk is no error
// here: a database of the present version can still be read.
func (e *engine) migrate(ctx context.Context) error {
	if _, err := e.write.ExecContext(ctx, e.define(createMeta)); err != nil && !again(err) && !madeByOther(err) && !errors.Is(e.classify(err), ErrFull) {
		return e.classify(err)
	}
	for try := 0; ; try++ {
		if err := pause(ctx, try); err != nil {
			return e.classify(err)
		}
		tx, err := e.beginWrite(ctx)
		if err != nil {
			return e.classify(err)
		}
		t := &Tx{ctx: ctx, sql: tx, engine: e}
		err = t.migrate(len(migrations()))
		if err == nil {
			err = e.classify(tx.Commit())
		} else {
			tx.Rollback()
		}
		if !again(err) && !madeByOther(err) || try == maxTries { // two nodes may begin at once
			return err
		}
	}
}

// migrate brings the tables to a version, which is the newest but in tests.
func (t *Tx) migrate(to int) error {
	text, err := t.meta(metaVersion)
	if err != nil {
		return err
	}
	version := 0
	if text != "" {
		if version, err = strconv.Atoi(text); err != nil {
			return &DamageError{Table: "meta", Text: "its version is no number"}
		}
	}
	if version > to {
		return fmt.Errorf("store %s has schema %d, and this program knows only %d: update it", t.engine.where, version, to)
	}
	// Only then: an older version gets its new definitions in this transaction, and their checksum with them.
	if version == to {
		return t.checkSchema()
	}
	if err := t.makeTables(version, to); err != nil {
		return err
	}
	if version == 0 {
		// By the id a progress file notices that it stands beside another database (access §1.4).
		id := sha256.Sum256(random())
		if err := errors.Join(t.setMeta(metaID, hex.EncodeToString(id[:16])), t.setIncarnation(time.Now().UnixMilli())); err != nil {
			return err
		}
	}
	return t.finishTables(to)
}

// makeTables brings tables from one version to another.
func (t *Tx) makeTables(from, to int) error {
	for _, m := range migrations()[from:to] {
		for _, statement := range m {
			if err := t.exec(t.engine.define(statement)); err != nil {
				return fmt.Errorf("make tables: %w", err)
			}
		}
	}
	return nil
}

// finishTables writes down which version the tables have.
func (t *Tx) finishTables(version int) error {
	found, err := t.foundSchema()
	if err != nil {
		return err
	}
	return errors.Join(t.setMeta(metaVersion, strconv.Itoa(version)), t.setMeta(metaSchema, found))
}

// checkSchema finds a definition of a table that has changed by itself.
func (t *Tx) checkSchema() error {
	want, err := t.meta(metaSchema)
	if err != nil {
		return err
	}
	found, err := t.foundSchema()
	if err == nil && found != want {
		err = &DamageError{Table: "meta", Text: "the definitions of the tables are not those that were made"}
	}
	return err
}

// The text of the definitions and not PRAGMA table_info: that would pass a flipped bit in an index's condition.
func (t *Tx) foundSchema() (string, error) {
	if t.engine.postgres { // its own catalogue has checksums, or not
		return "", nil
	}
	rows, err := t.query("SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql,'') FROM sqlite_schema")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return "", t.check(err)
		}
		all = append(all, one)
	}
	slices.Sort(all)
	sum := sha256.Sum256(fmt.Append(nil, all))
	return hex.EncodeToString(sum[:]), t.check(rows.Err())
}

// meta returns a value of the table meta, or "".
func (t *Tx) meta(name string) (value string, err error) {
	err = t.one("SELECT value FROM meta WHERE name=?", []any{name}, &value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, err
}

// setIncarnation begins a history of the database. Its seal is written with it: an incarnation that rose by a flipped
// bit would make every progress file give way.
func (t *Tx) setIncarnation(inc int64) error {
	if err := t.setMeta(metaIncarnation, strconv.FormatInt(inc, 10)); err != nil {
		return err
	}
	seal, err := t.metaSealNow()
	return errors.Join(err, t.setMeta(metaSeal, seal))
}

// metaSealNow returns the checksum over id and incarnation as they are.
func (t *Tx) metaSealNow() (string, error) {
	id, err := t.meta(metaID)
	if err != nil {
		return "", err
	}
	inc, err := t.meta(metaIncarnation)
	seal := sealOf("meta", []any{id, inc})
	return hex.EncodeToString(seal[:]), err
}

func (t *Tx) setMeta(name, value string) error {
	return t.exec("INSERT INTO meta (name,value) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value=excluded.value", name, value)
}
