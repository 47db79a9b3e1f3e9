//go:build linux

package store

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
)

// populate fills a store with devices in one domain, and audit records about them. It writes what Insert and Append
// write, but many rows with a statement, and without the one index that grows everywhere at once: one by one, ten million
// records take hours.
func populate(t testing.TB, s *Store, devices, records int) {
	t.Helper()
	s.patience = time.Hour // a commit of a server is smaller, and ends sooner
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := make([]string, devices)
	update(t, s, func(tx *Tx) error { return tx.Insert(&Domain{Name: "plant", Created: now}) })
	insertMany(t, s, devices, func(_ *Tx, i int) (Row, error) {
		d := device(fmt.Sprintf("press %07d", i*7919%devices))
		d.Chain, d.SPKI, d.Enrolled, d.NotAfter = fmt.Sprintf("%0900d", i), identity.SPKI{byte(i), byte(i >> 8), byte(i >> 16)}, now, now
		if ids[i] = d.ID; i%10 == 0 {
			d.Enrolled = time.Time{}
		}
		return d, nil
	})
	const byObject = "CREATE INDEX audit_object "
	execute(t, s, "DROP INDEX audit_object")
	insertMany(t, s, records, func(tx *Tx, i int) (Row, error) {
		r := Record{Time: now.Add(time.Duration(i) * time.Second), Domain: "plant", Actor: fmt.Sprintf("hawser://user/plant/u%d", i%50),
			Action: "online", Object: "hawser://device/plant/" + ids[i%len(ids)], Result: "ok", Detail: "relay r1"}
		err := tx.chain(&r)
		tx.chained(r)
		return &r, err
	})
	for _, m := range migrations() {
		for _, statement := range m {
			if strings.HasPrefix(statement, byObject) {
				execute(t, s, statement)
			}
		}
	}
	if s.engine.postgres {
		execute(t, s, "VACUUM ANALYZE") // a server does so by itself
	}
}

func execute(t testing.TB, s *Store, statement string) {
	t.Helper()
	if _, err := s.engine.write.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// insertMany writes n rows, each with its seal, and counts them in their sums.
func insertMany(t testing.TB, s *Store, n int, next func(tx *Tx, i int) (Row, error)) {
	t.Helper()
	const batch = 20_000
	for from := 0; from < n; from += batch {
		update(t, s, func(tx *Tx) error {
			var args []any
			for i := from; i < min(from+batch, n); i++ {
				r, err := next(tx, i)
				if err != nil {
					return err
				}
				values, err := encodeRow(r)
				if err != nil {
					return err
				}
				tab := r.table()
				x := sealOf(tab.name, values)
				tx.count(tab, tab.sumKeyOf(values[:tab.keys]), seal{}, false, x, true)
				args = append(append(args, values...), x[:])
				if i < min(from+batch, n)-1 && len(args)+maxColumns <= maxParameters {
					continue
				}
				if err := tx.exec(insertOf(tab, len(args)), args...); err != nil {
					return err
				}
				args = args[:0]
			}
			return nil
		})
	}
}

// insertOf is the statement for as many rows as have so many values.
func insertOf(tab *table, values int) string {
	columns := append(slices.Clone(tab.columns), "seal")
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", len(columns)), ",") + ")"
	return "INSERT INTO " + tab.name + " (" + strings.Join(columns, ",") + ") VALUES " +
		strings.TrimSuffix(strings.Repeat(row+",", values/len(columns)), ",")
}

// page is what somebody asks for.
type page struct {
	name string
	ask  func(*Tx) error
}

// pages are what people ask for, of a store that populate filled.
func pages(records int) []page {
	plant := "plant"
	var device Member
	list := func(f DeviceFilter) func(*Tx) error {
		return func(tx *Tx) error {
			f.Domain, f.Limit = plant, 50
			if f.Query == "UID" { // of the first device, which the first page has found
				f.Query = device.ID[:minUIDPart]
			}
			got, err := tx.Devices(f)
			if len(got) > 0 {
				device = got[0]
			}
			return err
		}
	}
	audit := func(f AuditFilter) func(*Tx) error {
		return func(tx *Tx) error {
			f.Limit = 50
			if f.Object == "device" {
				f.Object = device.Identity().String()
			}
			_, err := tx.Audit(f)
			return err
		}
	}
	middle := AuditPlace{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(records/2) * time.Second), "a1", int64(records / 2)}
	return []page{
		{"devices/first", list(DeviceFilter{})},
		{"devices/middle", list(DeviceFilter{After: DevicePlace{"press 0050000", ""}})},
		{"devices/pending", list(DeviceFilter{State: "pending"})},
		{"devices/revoked", list(DeviceFilter{State: "revoked"})}, // there are none
		{"devices/name", list(DeviceFilter{Query: "ess 00999"})},
		{"devices/UID", list(DeviceFilter{Query: "UID"})},
		{"devices/nothing", list(DeviceFilter{Query: "nothing"})},
		{"devices/by name", func(tx *Tx) error { _, err := tx.DeviceByName(plant, "press 0000077"); return err }},
		{"devices/cloned", func(tx *Tx) error { _, err := tx.Cloned(plant); return err }},
		{"audit/newest", audit(AuditFilter{})},
		{"audit/of a node", audit(AuditFilter{Node: "a1"})},
		{"audit/of domain", audit(AuditFilter{Domains: []string{plant}})},
		{"audit/domains", audit(AuditFilter{Domains: []string{"", plant}})},
		{"audit/middle", audit(AuditFilter{Domains: []string{plant}, Before: middle})},
		{"audit/all middle", audit(AuditFilter{Before: middle})},
		{"audit/device", audit(AuditFilter{Domains: []string{plant}, Object: "device"})},
		{"audit/no device", audit(AuditFilter{Object: "hawser://device/plant/none"})},
		{"audit/user", audit(AuditFilter{Domains: []string{plant}, Actor: "hawser://user/plant/u7"})},
		{"audit/by or about a user", audit(AuditFilter{Domains: []string{plant}, User: "hawser://user/plant/u7"})},
		{"audit/user and device", audit(AuditFilter{Domains: []string{plant}, User: "hawser://user/plant/u7", Object: "device"})},
		{"audit/user since", audit(AuditFilter{Domains: []string{plant}, User: "hawser://user/plant/u7", Since: middle.Time})},
		{"audit/no user", audit(AuditFilter{Actor: "hawser://user/plant/none"})},
		{"audit/since", audit(AuditFilter{Domains: []string{plant}, Since: middle.Time})},
		{"sessions", func(tx *Tx) error { _, err := tx.OpenSessions(); return err }},
		{"sessions of a device", func(tx *Tx) error { _, err := tx.OpenSessionsOf(identity.UID{1}); return err }},
		{"statements/people", func(tx *Tx) error { _, err := tx.People(plant); return err }},
		{"statements/of a device", func(tx *Tx) error { _, err := tx.StatementsOf(plant, "device."+device.ID); return err }},
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
	for _, p := range pages(records) {
		name := p.name
		var query string
		var args []any
		s.engine.asked = func(q string, a []any) {
			if !strings.HasPrefix(q, "EXPLAIN") {
				query, args = q, a
			}
		}
		view(t, s, p.ask)
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
				reads := strings.HasPrefix(step, "SCAN") && step != "SCAN audit USING INDEX audit_time" &&
					step != "SCAN named" && step != "SCAN numbered" // no more than a page each
				// An index of the whole domain has the right order, and is read past everything that was not asked for.
				reads = reads || strings.HasPrefix(name, "statements/") && !strings.Contains(step, "statements_of (domain=? AND subject")
				if reads ||
					sorts && !strings.HasPrefix(name, "devices/") && !strings.HasPrefix(name, "sessions") { // of few rows
					t.Errorf("%s: %s\n%s", name, step, query)
				}
			}
			t.Logf("%s: %q", name, plan)
			return rows.Err()
		})
	}
}

// BenchmarkMany measures a large store (S-many): how long a page takes, how long a store takes to open, and what memory it
// takes to read all of it.
func BenchmarkMany(b *testing.B) {
	records := soak.Or(1_000_000, 10_000_000)
	for name, r := range map[string]func() *rig{
		"sqlite":   func() *rig { return &rig{dir: newDir(b)} },
		"postgres": func() *rig { return newPostgres(b) },
	} {
		b.Run(name, func(b *testing.B) {
			r := r()
			s := r.open(b, "a1")
			begun := time.Now()
			populate(b, s, 100_000, records)
			end(b, s)
			b.Logf("made in %v", time.Since(begun))
			benchmarkMany(b, r, records)
		})
	}
}

func benchmarkMany(b *testing.B, r *rig, records int) {
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			forgetPeak(b)
			s := open(b, r.options(b, "a1"))
			b.ReportMetric(peak(b), "MiB-resident")
			end(b, s)
		}
	})
	s := r.open(b, "a1")
	benchmarkPages(b, s, records)
	b.Run("add", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			insert(b, s, device(fmt.Sprint("new ", time.Now().UnixNano())))
		}
	})
	// Once: with ten million records it takes minutes. A scrub that does not rest is far more than one that takes a week.
	forgetPeak(b)
	begun := time.Now()
	healthy(b, s)
	b.Logf("all was read in %v, %.0f MiB resident", time.Since(begun), peak(b))
	b.Run("while all is read", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		var reading sync.WaitGroup
		reading.Go(func() {
			for ctx.Err() == nil {
				s.ReadAll(ctx)
			}
		})
		benchmarkPages(b, s, records)
		cancel()
		reading.Wait()
	})
}

func benchmarkPages(b *testing.B, s *Store, records int) {
	for _, p := range pages(records) {
		b.Run(p.name, func(b *testing.B) {
			best, worst := time.Hour, time.Duration(0) // on a busy machine the best is what it takes
			for b.Loop() {
				begun := time.Now()
				view(b, s, p.ask)
				took := time.Since(begun)
				best, worst = min(best, took), max(worst, took)
			}
			b.ReportMetric(best.Seconds()*1e3, "best-ms")
			b.ReportMetric(worst.Seconds()*1e3, "worst-ms")
		})
	}
}

// forgetPeak begins anew what peak returns: how many MiB this process has had resident at most. SQLite's memory is not
// Go's, so the collector does not know.
func forgetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, text, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(text, &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
