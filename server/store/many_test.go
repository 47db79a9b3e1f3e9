//go:build linux

package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
)

// populate fills a store with devices in one domain, and audit records about them.
func populate(t testing.TB, s *Store, devices, records int) {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var ids []string
	update(t, s, func(tx *Tx) error { return tx.Insert(&Domain{Name: "plant", Created: now}) })
	const batch = 5000
	for from := 0; from < devices; from += batch {
		update(t, s, func(tx *Tx) error {
			for i := from; i < min(from+batch, devices); i++ {
				d := device(fmt.Sprintf("press %07d", i*7919%devices))
				d.Chain, d.SPKI, d.Enrolled, d.NotAfter = fmt.Sprintf("%0900d", i), identity.SPKI{byte(i), byte(i >> 8), byte(i >> 16)}, now, now
				if ids = append(ids, d.ID); i%10 == 0 {
					d.Enrolled = time.Time{}
				}
				if err := tx.Insert(d); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for from := 0; from < records; from += batch {
		update(t, s, func(tx *Tx) error {
			for i := from; i < min(from+batch, records); i++ {
				err := tx.Append(Record{Time: now.Add(time.Duration(i) * time.Second), Domain: "plant", Actor: fmt.Sprintf("hawser://user/plant/u%d", i%50),
					Action: "online", Object: "hawser://device/plant/" + ids[i%len(ids)], Result: "ok", Detail: "relay r1"})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// pages are what people ask for, of a store that populate filled.
func pages(records int) map[string]func(*Tx) error {
	plant := "plant"
	var device string
	list := func(f DeviceFilter) func(*Tx) error {
		f.Domain, f.Limit = plant, 50
		return func(tx *Tx) error {
			got, err := tx.Devices(f)
			if len(got) > 0 {
				device = "hawser://device/plant/" + got[0].ID
			}
			return err
		}
	}
	audit := func(f func() AuditFilter) func(*Tx) error {
		return func(tx *Tx) error {
			x := f()
			x.Limit = 50
			_, err := tx.Audit(x)
			return err
		}
	}
	middle := AuditPlace{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(records/2) * time.Second), "a1", int64(records / 2)}
	return map[string]func(*Tx) error{
		"devices/first":    list(DeviceFilter{}),
		"devices/middle":   list(DeviceFilter{After: DevicePlace{"press 0050000", ""}}),
		"devices/pending":  list(DeviceFilter{State: "pending"}),
		"devices/revoked":  list(DeviceFilter{State: "revoked"}), // there are none
		"devices/query":    list(DeviceFilter{Query: "99999"}),
		"devices/nothing":  list(DeviceFilter{Query: "nothing"}),
		"devices/by name":  func(tx *Tx) error { _, err := tx.DeviceByName(plant, "press 0000077"); return err },
		"audit/newest":     audit(func() AuditFilter { return AuditFilter{} }),
		"audit/of a node":  audit(func() AuditFilter { return AuditFilter{Node: "a1"} }),
		"audit/of domain":  audit(func() AuditFilter { return AuditFilter{Domains: []string{plant}} }),
		"audit/domains":    audit(func() AuditFilter { return AuditFilter{Domains: []string{"", plant}} }),
		"audit/middle":     audit(func() AuditFilter { return AuditFilter{Domains: []string{plant}, Before: middle} }),
		"audit/all middle": audit(func() AuditFilter { return AuditFilter{Before: middle} }),
		"audit/device":     audit(func() AuditFilter { return AuditFilter{Domains: []string{plant}, Object: device} }),
		"audit/no device":  audit(func() AuditFilter { return AuditFilter{Object: "hawser://device/plant/none"} }),
		"audit/user":       audit(func() AuditFilter { return AuditFilter{Domains: []string{plant}, Actor: "hawser://user/plant/u7"} }),
		"audit/no user":    audit(func() AuditFilter { return AuditFilter{Actor: "hawser://user/plant/none"} }),
		"audit/since":      audit(func() AuditFilter { return AuditFilter{Domains: []string{plant}, Since: middle.Time} }),
		"sessions":         func(tx *Tx) error { _, err := tx.OpenSessions(); return err },
	}
}

// A page reads what it shows and little more, however large the store is: SQLite finds its rows in indexes that have
// them in order. Only a part of a name is looked for in all names of a domain, in an index without the rows.
// BenchmarkMany measures it with both engines.
func TestPagesAreFoundInIndexes(t *testing.T) {
	t.Attr("id", "S-many")
	s := inDir(t, newDir(t))
	const records = 2000
	populate(t, s, 500, records)
	for name, page := range pages(records) {
		var query string
		var args []any
		s.engine.asked = func(q string, a []any) {
			if !strings.HasPrefix(q, "EXPLAIN") {
				query, args = q, a
			}
		}
		view(t, s, page)
		s.engine.asked = nil
		view(t, s, func(tx *Tx) error {
			rows, err := tx.query("EXPLAIN QUERY PLAN "+query, args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			var plan []string
			for rows.Next() {
				var id, parent, unused int
				var step string
				if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
					return err
				}
				plan = append(plan, step)
				sorts := step == "USE TEMP B-TREE FOR ORDER BY"
				if strings.HasPrefix(step, "SCAN") && step != "SCAN audit USING INDEX audit_time" ||
					sorts && !strings.HasPrefix(name, "devices/") && name != "sessions" { // of few rows
					t.Errorf("%s: %s\n%s", name, step, query)
				}
			}
			t.Logf("%s: %q", name, plan)
			return rows.Err()
		})
	}
}

// Benchmarks of a large store (S-many): how long a page takes, and how long a store takes to open.
func BenchmarkMany(b *testing.B) {
	const devices = 100_000
	records := soak.Or(1_000_000, 10_000_000)
	small := &rig{dir: newDir(b)}
	s := small.open(b, "a1")
	begun := time.Now()
	populate(b, s, devices, records)
	b.Logf("made in %v", time.Since(begun))
	large := newPostgres(b)
	begun = time.Now()
	if h, err := Move(b.Context(), s, large.options(b, "a1")); err != nil || h.Err() != nil {
		b.Fatal(err, h.Err())
	}
	b.Logf("moved in %v", time.Since(begun))
	end(b, s)
	s = large.open(b, "a1")
	if _, err := s.engine.write.ExecContext(b.Context(), "VACUUM ANALYZE"); err != nil { // a server does so by itself
		b.Fatal(err)
	}
	end(b, s)
	for name, r := range map[string]*rig{"sqlite": small, "postgres": large} {
		b.Run(name, func(b *testing.B) { benchmarkMany(b, r, records) })
	}
}

func benchmarkMany(b *testing.B, r *rig, records int) {
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			s := open(b, r.options(b, "a1"))
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapInuse)/1e6, "MB-heap")
			end(b, s)
		}
	})
	s := r.open(b, "a1")
	for name, page := range pages(records) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				view(b, s, page)
			}
		})
	}
	b.Run("add", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			insert(b, s, device(fmt.Sprint("new ", time.Now().UnixNano())))
		}
	})
	b.Run("read all", func(b *testing.B) {
		for b.Loop() {
			healthy(b, s)
		}
	})
}
