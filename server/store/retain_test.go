//go:build linux

package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// appendRecords writes n audit records like those of a server, of which the first is of the time begun and each a second
// after the one before.
func appendRecords(t testing.TB, s *Store, n int, begun time.Time) {
	t.Helper()
	for at := 0; at < n; at += 500 {
		update(t, s, func(tx *Tx) error {
			for i := at; i < min(at+500, n); i++ {
				err := tx.Append(Record{Time: begun.Add(time.Duration(i) * time.Second), Domain: "default", Action: "session-open", Result: "ok",
					Actor: "hawser://default/user/admin", Object: "hawser://default/device/62010000000000000000000000000000",
					Detail: "session 0123456789abcdef at relay1, score 24 ms"})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// Room is what the file takes: else an operator who gives it 2 GiB finds the disk full.
func TestRecordBytesIsWhatTheFileGrowsBy(t *testing.T) {
	r := &rig{dir: newDir(t)}
	size := func(n int) int64 {
		s := open(t, r.options(t, "a1"))
		appendRecords(t, s, n, time.Now())
		end(t, s) // writes the log into the file
		info, err := os.Stat(filepath.Join(r.dir, "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const n = 20_000
	before := size(0)
	grown := size(n) - before
	s := r.open(t, "a1")
	var e auditExtent
	view(t, s, func(tx *Tx) (err error) { e, err = tx.auditExtent("a1"); return err })
	t.Logf("%d bytes a record, reckoned %d", grown/n, e.average)
	if got := e.bytes(); got < grown*8/10 || got > grown*12/10 {
		t.Errorf("%d records take %d bytes, and are reckoned as %d", n, grown, got)
	}
}

func TestRetention(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	e := auditExtent{last: 100_000, average: 500, oldest: now.AddDate(-1, 0, 0), newest: now}
	for what, c := range map[string]struct {
		r            Retention
		at           time.Time
		seq          int64
		aged         int
		goes, forAge bool
	}{
		"young, and there is room": {Retention{0, 60_000_000}, now.AddDate(-1, 0, 0), 4095, 0, false, false},
		"no room":                  {Retention{0, 47_000_000}, now, 4095, 0, true, false},
		"room for what follows":    {Retention{0, 40_000_000}, now, 30_000, 0, false, false},
		"old":                      {Retention{30 * 24 * time.Hour, 60_000_000}, now.AddDate(0, -2, 0), 4095, 0, true, true},
		"not old enough":           {Retention{90 * 24 * time.Hour, 60_000_000}, now.AddDate(0, -2, 0), 4095, 0, false, false},
		"old, and many went":       {Retention{30 * 24 * time.Hour, 60_000_000}, now.AddDate(0, -2, 0), 4095, cutForAge, false, false},
		"no room, and many went":   {Retention{30 * 24 * time.Hour, 47_000_000}, now.AddDate(0, -2, 0), 4095, cutForAge, true, false},
	} {
		if goes, forAge := c.r.mustGo(e, c.seq, c.at, now, c.aged); goes != c.goes || forAge != c.forAge {
			t.Errorf("%s: %v, %v", what, goes, forAge)
		}
	}
	for what, c := range map[string]struct {
		r    Retention
		warn bool
	}{
		"room":                           {Retention{0, 100_000_000}, false},
		"nine tenths":                    {Retention{0, 55_000_000}, true},
		"nine tenths, wanted for longer": {Retention{2 * 366 * 24 * time.Hour, 55_000_000}, true},
		"nine tenths, old ones may go":   {Retention{30 * 24 * time.Hour, 55_000_000}, false},
	} {
		err := c.r.nearlyFull(e)
		if (err != nil) != c.warn || err != nil && !strings.Contains(err.Error(), "its oldest records, of 2025-06-01, go when it is full") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is too old goes with its sums; the audit says so, and the node's word for it is kept.
func TestOldAuditRecordsGo(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		o := r.options(t, "a1")
		o.Audit.Age = time.Hour
		s := open(t, o)
		t.Cleanup(func() { end(t, s) })
		now := time.Now()
		appendRecords(t, s, 2*auditBucket+100, now.Add(-time.Hour-(auditBucket+50)*time.Second))
		cut, err := s.PruneAudit(t.Context(), now, func(c Checkpoint) ([]byte, error) { return []byte("proof of " + c.Hash), nil })
		if err != nil || cut.Seq != auditBucket-1 || string(cut.Proof) != "proof of "+cut.Hash {
			t.Fatalf("%+v, %v", cut, err)
		}
		var kept Checkpoint
		var newest []Record
		view(t, s, func(tx *Tx) (err error) {
			if kept, err = tx.Checkpoint("a1"); err == nil {
				newest, err = tx.Audit(AuditFilter{Node: "a1", Limit: 1})
			}
			return err
		})
		if string(kept.Proof) != string(cut.Proof) || kept.Seq != cut.Seq {
			t.Errorf("%+v is kept of %+v", kept, cut)
		}
		if len(newest) != 1 || newest[0].Action != actionCut || newest[0].Detail != "records 1 to 4095 were removed" {
			t.Errorf("%+v", newest)
		}
		healthy(t, s)
		if again, err := s.PruneAudit(t.Context(), now, nil); err != nil || again.Seq != 0 {
			t.Errorf("again: %+v, %v", again, err)
		}
	})
}

// A database of each version before is opened by this program.
func TestOlderSchemasAreBroughtUpToDate(t *testing.T) {
	for version := 1; version < len(migrations()); version++ {
		onEach(t, func(t *testing.T, r *rig) {
			makeOld(t, r.options(t, "a1"), version)
			s := r.open(t, "a1")
			insert(t, s, device("press 1"))
			appendRecords(t, s, 10, time.Now())
			healthy(t, s)
		})
	}
}

// A dump of each version before is restored, with what it has and nothing else.
func TestDumpsOfOlderSchemasAreRestored(t *testing.T) {
	for version := 1; version <= len(migrations()); version++ {
		var b bytes.Buffer
		d := newDumpWriter(&b, dumpHeader{Store: "ab", Incarnation: 7, Schema: version, Node: "a1", Time: time.Now().UTC()})
		for _, table := range dumped(version) {
			if d.table(table); table.Name == "checkpoints" {
				d.add([]any{"a2", int64(4095), "00", int64(1), "cHJvb2Y="}[:len(table.Columns)])
			}
		}
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
		onEach(t, func(t *testing.T, r *rig) {
			h, err := Restore(t.Context(), r.options(t, "a1"), bytes.NewReader(b.Bytes()))
			if err != nil {
				t.Fatal(err, h)
			}
			var c Checkpoint
			view(t, r.open(t, "a1"), func(tx *Tx) (err error) { c, err = tx.Checkpoint("a2"); return err })
			if want := map[bool]string{true: "proof"}[version > 1]; c.Seq != 4095 || string(c.Proof) != want {
				t.Errorf("schema %d: %+v", version, c)
			}
		})
	}
}

// makeOld makes the tables of an older version, as the program of that version did.
func makeOld(t testing.TB, o Options, version int) {
	t.Helper()
	s := newStore(o)
	if err := s.openEngine(o); err != nil {
		t.Fatal(err)
	}
	defer s.release()
	if _, err := s.engine.write.ExecContext(t.Context(), s.engine.define(createMeta)); err != nil {
		t.Fatal(err)
	}
	err := s.transact(t.Context(), func(tx *Tx) error { return tx.migrate(version) })
	if err != nil {
		t.Fatal(err)
	}
}

// A bit that flips in a date makes nothing old; and in a hash, it does not become what the node gives its word for.
func TestDamagedRecordDoesNotSayWhatGoes(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		o := r.options(t, "a1")
		o.Audit.Age = time.Hour
		s := open(t, o)
		t.Cleanup(func() { end(t, s) })
		now := time.Now()
		appendRecords(t, s, 3*auditBucket+100, now.Add(-time.Hour-(auditBucket+50)*time.Second))
		damage := func(set string, seq int) {
			if _, err := s.engine.write.ExecContext(t.Context(), fmt.Sprintf("UPDATE audit SET %s WHERE node='a1' AND seq=%d", set, seq)); err != nil {
				t.Fatal(err)
			}
		}
		var next Record
		view(t, s, func(tx *Tx) error { next = Record{Node: "a1", Seq: auditBucket}; return tx.Get(&next) })
		damage("hash='00"+strings.Repeat("ab", 31)+"'", auditBucket-1)
		damage("at=0", 2*auditBucket-1)
		cut, err := s.PruneAudit(t.Context(), now, nil)
		if err != nil || cut.Seq != auditBucket-1 || cut.Hash != next.Prev {
			t.Fatalf("%+v, %v; want %s", cut, err, next.Prev)
		}
		// Where nothing at a boundary can be read, that bucket goes with the next.
		damage("hash='x'", 2*auditBucket-1)
		damage("hash='x'", 2*auditBucket)
		if cut, err = s.PruneAudit(t.Context(), now.Add(24*time.Hour), nil); err != nil || cut.Seq != 3*auditBucket-1 {
			t.Errorf("%+v, %v", cut, err)
		}
	})
}

// One user writes the longest records that there are, in a short time. Those of others must not go for that.
func TestLongRecordsTakeNoRoomThatTheyDoNotFill(t *testing.T) {
	r := &rig{dir: newDir(t)}
	s := r.open(t, "a1")
	appendRecords(t, s, 4*auditBucket, time.Now())
	extent := func() (e auditExtent) {
		view(t, s, func(tx *Tx) (err error) { e, err = tx.auditExtent("a1"); return err })
		return e
	}
	before := extent()
	update(t, s, func(tx *Tx) error {
		for range 256 {
			text := strings.Repeat("x", 200)
			if err := tx.Append(Record{Time: time.Now(), Action: "session-refused", Actor: text, Object: text, Detail: text}); err != nil {
				return err
			}
		}
		return nil
	})
	if after := extent(); after.average > before.average*5/4 || after.average < before.average {
		t.Errorf("%d bytes a record, and %d before", after.average, before.average)
	}
}

// A checkpoint is in no sum and has no seal. Whatever it says, old records go on going, and the next one is right.
func TestDamagedCheckpointDoesNotEndTheRemoval(t *testing.T) {
	o := (&rig{dir: newDir(t)}).options(t, "a1")
	o.Audit.Age = time.Hour
	s := open(t, o)
	t.Cleanup(func() { end(t, s) })
	now := time.Now()
	damages := []string{
		"DELETE FROM checkpoints",
		"UPDATE checkpoints SET seq=17",
		"UPDATE checkpoints SET seq=seq+500",
		"UPDATE checkpoints SET seq=1000000000",
	}
	blocks := cutAtOnce + 1
	appendRecords(t, s, (blocks+len(damages)+1)*auditBucket, now.Add(-time.Hour-time.Duration(blocks*auditBucket+50)*time.Second))
	for i, sql := range append([]string{""}, damages...) {
		if _, err := s.engine.write.ExecContext(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		at := now.Add(time.Duration(i*auditBucket) * time.Second)
		if cut, err := s.PruneAudit(t.Context(), at, nil); err != nil || cut.Seq != int64((blocks+i)*auditBucket-1) {
			t.Errorf("%s: %+v, %v", sql, cut, err)
		}
	}
}

// When there is no room, one device that has written nearly all loses what its own old records say, and nobody else anything: not
// others, and not what an admin did to it. The chain stays whole.
func TestWhoWroteMostLosesHisOwnRecordsFirst(t *testing.T) {
	t.Attr("id", "T-evidence")
	onEach(t, func(t *testing.T, r *rig) {
		o := r.options(t, "a1")
		s := open(t, o)
		t.Cleanup(func() { end(t, s) })
		const noisy, quiet = "hawser://default/device/11", "hawser://default/device/22"
		now := time.Now()
		n := 0
		write := func(count int) {
			for range count / 500 {
				update(t, s, func(tx *Tx) (err error) {
					for i := range 500 {
						r := Record{Time: now.Add(time.Duration(n) * time.Millisecond), Domain: "default", Action: "session-report", Object: noisy, Result: "ok",
							Report: strings.Repeat("x", 2000)}
						switch i {
						case 7:
							r = Record{Time: r.Time, Domain: "default", Action: "session-open", Object: quiet, Result: "ok"}
						case 8:
							r.Action, r.Report = "device-code", ""
						}
						if n++; err == nil {
							err = tx.Append(r)
						}
					}
					return err
				})
			}
		}
		write(auditBucket + 1000)
		var full int64
		view(t, s, func(tx *Tx) error {
			e, err := tx.auditExtent("a1")
			full = e.bytes()
			return err
		})
		s.audit.Bytes = full - 1
		cut, err := s.PruneAudit(t.Context(), now, nil)
		if err != nil || cut.Seq != 0 {
			t.Fatalf("%+v, %v", cut, err)
		}
		count := func(f AuditFilter) (found int, withReport int) {
			f.Limit = 100_000
			view(t, s, func(tx *Tx) error {
				list, err := tx.Audit(f)
				for _, r := range list {
					if found++; r.Report != "" {
						withReport++
					}
				}
				return err
			})
			return found, withReport
		}
		if found, _ := count(AuditFilter{Object: quiet}); found != n/500 {
			t.Errorf("%d records of others are left of %d", found, n/500)
		}
		if found, with := count(AuditFilter{Object: noisy}); found-with != n/500 || with >= n-2*n/500 || with < auditBucket/2 {
			t.Errorf("%d records about the noisy one are left, %d with their report, of %d", found, with, n)
		}
		view(t, s, func(tx *Tx) error {
			list, err := tx.AuditChain("a1", 0, 100_000)
			if err != nil || int64(len(list)) != list[len(list)-1].Seq || list[len(list)-1].Action != actionThin {
				t.Errorf("%d records in the chain, the last %+v, %v", len(list), list[len(list)-1], err)
			}
			return VerifyAudit(list)
		})
		healthy(t, s)
		// When that is not enough the oldest of all go, as ever.
		s.audit.Bytes = 100_000
		if cut, err = s.PruneAudit(t.Context(), now, nil); err != nil || cut.Seq != auditBucket-1 {
			t.Errorf("%+v, %v", cut, err)
		}
		healthy(t, s)
	})
}
