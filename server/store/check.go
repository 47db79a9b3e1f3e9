package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// condition is what Check found out.
type condition struct {
	postgres bool
	version  string            // of the engine
	settings map[string]string // what it really does
	size     int64             // of the database, bytes
	free     int64             // bytes where the store writes; negative: not known
	audit    int64             // records
	keep     Retention         // of this node's audit
	own      auditExtent       // of it
	backup   time.Time         // the last; zero: none
	health   Health
}

// minFree is less than what a store needs to go on until somebody has read the message. SQLite's log alone grows to 4
// MiB before it is written back.
const minFree = 64 << 20

// Check says what the engine really does with what it is given, and how the store is. What loses data, or is lost, is
// an error that says what to set. It changes nothing. Settings are what somebody changes for speed and forgets; they
// are found here, and not by the power cut.
func (s *Store) Check(ctx context.Context) (text string, err error) {
	c, err := s.condition(ctx)
	if err != nil {
		return "", fmt.Errorf("check store: %w", err)
	}
	text, err = c.judge(time.Now())
	if err != nil {
		err = fmt.Errorf("store %s: %w", s.engine.where, err)
	}
	return s.engine.where + ": " + text, err
}

func (s *Store) condition(ctx context.Context) (c condition, err error) {
	c = condition{postgres: s.engine.postgres, health: s.Health(), keep: s.audit, free: -1}
	if s.dir != "" {
		if c.free, err = freeSpace(s.dir); err != nil {
			return c, err
		}
	}
	if c.version, c.settings, err = s.engine.settings(ctx); err != nil {
		return c, s.engine.classify(err)
	}
	err = s.View(ctx, func(t *Tx) (err error) {
		// Of the sums, which are a few thousand rows: to count millions of records takes seconds, and check may be asked
		// each minute.
		if err := t.one("SELECT coalesce(sum(n),0) FROM sums WHERE tbl>=? AND tbl<?", []any{auditSums(""), auditSums("\x7f")}, &c.audit); err != nil {
			return err
		}
		if c.own, err = t.auditExtent(s.node); err != nil {
			return err
		}
		size := "SELECT page_count*page_size FROM pragma_page_count, pragma_page_size"
		if c.postgres {
			size = "SELECT pg_database_size(current_database())"
		}
		if err := t.one(size, nil, &c.size); err != nil {
			return err
		}
		at, err := t.meta(metaBackup)
		if us, bad := strconv.ParseInt(at, 10, 64); bad == nil {
			c.backup = time.UnixMicro(us)
		}
		return err
	})
	return c, err
}

// settings asks the engine what it does, on a connection that writes. It has to be that one: both engines take such
// settings for each connection, and a role may have its own.
func (e *engine) settings(ctx context.Context) (version string, found map[string]string, err error) {
	queries := map[string]string{"journal_mode": "PRAGMA journal_mode", "synchronous": "PRAGMA synchronous"}
	about := "SELECT 'SQLite ' || sqlite_version()"
	if e.postgres {
		// A standby refuses to write whatever its settings say.
		queries = map[string]string{"read_only": "SELECT CASE WHEN pg_is_in_recovery() THEN 'on' ELSE current_setting('default_transaction_read_only') END"}
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit", "data_checksums"} {
			queries[name] = "SELECT current_setting('" + name + "')"
		}
		about = "SELECT 'PostgreSQL ' || current_setting('server_version')"
	}
	if err := e.write.QueryRowContext(ctx, about).Scan(&version); err != nil {
		return "", nil, err
	}
	found = make(map[string]string)
	for name, query := range queries {
		var value string
		if err := e.write.QueryRowContext(ctx, query).Scan(&value); err != nil {
			return "", nil, err
		}
		found[name] = value
	}
	return version, found, nil
}

// judge says what is wrong with a condition, all of it at once: who repairs one setting should not find the next one
// tomorrow. It is pure.
func (c condition) judge(now time.Time) (text string, err error) {
	var wrong []error
	want := func(name, why, set string, good ...string) {
		for _, value := range good {
			if c.settings[name] == value {
				return
			}
		}
		wrong = append(wrong, fmt.Errorf("%s is %s: %s; %s", name, c.settings[name], why, set))
	}
	parts := []string{c.version}
	if c.postgres {
		const loses = "a power cut can lose what was acknowledged"
		want("fsync", loses, "set fsync = on in postgresql.conf", "on")
		want("full_page_writes", "a power cut can tear pages", "set full_page_writes = on in postgresql.conf", "on")
		// All but off wait for the local disk.
		want("synchronous_commit", loses, "set synchronous_commit = on for this role and database", "on", "local", "remote_write", "remote_apply")
		want("read_only", "nothing can be written", "point the store's url to the primary server", "off")
		// data_checksums is said and not wanted: it is decided when a cluster is made, and the seals find what it would find.
		parts = append(parts, "fsync "+c.settings["fsync"], "full_page_writes "+c.settings["full_page_writes"],
			"synchronous_commit "+c.settings["synchronous_commit"], "data_checksums "+c.settings["data_checksums"])
	} else {
		// memory is that of tests, which lose everything anyway.
		want("journal_mode", "a crash can lose what was acknowledged", "open it with this program alone", "wal", "memory")
		want("synchronous", "a power cut can lose what was acknowledged", "open it with this program alone", "2", "3")
		parts = append(parts, "journal_mode "+c.settings["journal_mode"], "synchronous "+c.settings["synchronous"])
	}
	parts = append(parts, bytesText(c.size), fmt.Sprintf("%d audit records", c.audit))
	if c.free >= 0 {
		parts = append(parts, bytesText(c.free)+" free")
		if c.free < minFree {
			wrong = append(wrong, fmt.Errorf("only %s are free where it writes: make room", bytesText(c.free)))
		}
	}
	parts = append(parts, "last backup "+ago(now, c.backup), "read through "+ago(now, c.health.Scrubbed))
	wrong = append(wrong, c.keep.nearlyFull(c.own), c.health.Err())
	return strings.Join(parts, ", "), errors.Join(wrong...)
}

func ago(now, at time.Time) string {
	switch d := now.Sub(at); {
	case at.IsZero():
		return "never"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

func bytesText(n int64) string {
	switch {
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d GiB", n>>30)
	}
}
