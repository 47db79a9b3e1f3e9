//go:build linux

package store

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestCheckSaysWhatTheEngineDoes(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		insert(t, s, device("press 1"))
		text, err := s.Check(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"1 audit records", "last backup never", "read through never"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q, want %q", text, want)
			}
		}
		engine := "PostgreSQL 1"
		switch {
		case r.dir != "":
			engine = "journal_mode wal, synchronous 2"
		case r.db != nil:
			engine = "SQLite 3"
		}
		if !strings.Contains(text, engine) {
			t.Errorf("%q, want %q", text, engine)
		}
		if err := s.Backup(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
		raw(t, s, "DELETE FROM devices")
		healthyNot(t, s)
		text, err = s.Check(t.Context())
		if !errors.Is(err, ErrDamaged) || !strings.Contains(text, "last backup 0 min ago") {
			t.Errorf("%q, %v", text, err)
		}
	})
}

func healthyNot(t testing.TB, s *Store) {
	t.Helper()
	if h, err := s.ReadAll(t.Context()); err != nil || h.Err() == nil {
		t.Error(err, h.Err())
	}
}

func TestCheckRefusesASettingThatLosesData(t *testing.T) {
	url := cluster.URL(t)
	s := open(t, Options{Dir: newDir(t), Node: "a1", URL: url + "&synchronous_commit=off"})
	defer s.Close()
	if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "set synchronous_commit = on") {
		t.Errorf("%v", err)
	}
}

func TestConditionIsJudged(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	good := func(postgres bool) condition {
		c := condition{postgres: postgres, version: "X 1", size: 3 << 20, free: 12 << 30, audit: 7, backup: now.Add(-30 * time.Hour),
			keep: Retention{Bytes: 1000}, own: auditExtent{last: 7, average: 100}}
		c.health.Scrubbed = now.Add(-9 * 24 * time.Hour)
		c.settings = map[string]string{"journal_mode": "wal", "synchronous": "2"}
		if postgres {
			c.settings = map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "off", "read_only": "off"}
		}
		return c
	}
	for _, c := range []struct {
		postgres bool
		change   func(*condition)
		err      string
	}{
		{false, func(*condition) {}, ""},
		{true, func(*condition) {}, ""},
		{true, func(c *condition) { c.settings["synchronous_commit"] = "remote_apply" }, ""},
		{false, func(c *condition) { c.settings["synchronous"] = "1" }, "synchronous is 1"},
		{false, func(c *condition) { c.settings["journal_mode"] = "off" }, "journal_mode is off"},
		{true, func(c *condition) { c.settings["fsync"] = "off" }, "set fsync = on"},
		{true, func(c *condition) { c.settings["full_page_writes"] = "off" }, "set full_page_writes = on"},
		{true, func(c *condition) { c.settings["read_only"] = "on" }, "the primary server"},
		{false, func(c *condition) { c.free = 1 << 20 }, "only 1024 KiB are free"},
		{false, func(c *condition) { c.own.last = 9 }, "raise access.audit.max_mb"},
		{false, func(c *condition) { c.health.Lost = "gone" }, "gone"},
	} {
		x := good(c.postgres)
		c.change(&x)
		text, err := x.judge(now)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v", c.err, err)
		}
		if c.err == "" && !strings.HasSuffix(text, "3072 KiB, 7 audit records, 12 GiB free, last backup 30 h ago, read through 9 days ago") {
			t.Errorf("%q", text)
		}
	}
}
