package access

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/choose"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestMeasurementsAreChecked(t *testing.T) {
	good := wire.Measurement{Name: "r1", RTTUS: 1500, JitterUS: 20, LossPct: 10, Port: 443, Way: "direct"}
	change := func(f func(*wire.Measurement)) []wire.Measurement { m := good; f(&m); return []wire.Measurement{m} }
	var many []wire.Measurement
	for i := range maxMeasured + 1 {
		many = append(many, wire.Measurement{Name: fmt.Sprintf("r%d", i)})
	}
	bad := map[string][]wire.Measurement{
		"too many":            many,
		"twice":               {good, good},
		"no name":             change(func(m *wire.Measurement) { m.Name = "" }),
		"name with a dot":     change(func(m *wire.Measurement) { m.Name = "r1.x" }),
		"negative rtt":        change(func(m *wire.Measurement) { m.RTTUS = -1 }),
		"rtt of an hour":      change(func(m *wire.Measurement) { m.RTTUS = 3600e6 }),
		"negative jitter":     change(func(m *wire.Measurement) { m.JitterUS = -1 }),
		"jitter of an hour":   change(func(m *wire.Measurement) { m.JitterUS = 3600e6 }),
		"negative loss":       change(func(m *wire.Measurement) { m.LossPct = -1 }),
		"loss over 100 %":     change(func(m *wire.Measurement) { m.LossPct = 101 }),
		"way with a newline":  change(func(m *wire.Measurement) { m.Way = "a\nb" }),
		"way that is a novel": change(func(m *wire.Measurement) { m.Way = strings.Repeat("w", maxWayBytes+1) }),
	}
	for name, list := range bad {
		if _, err := checkMeasurements(wire.Measurements{Relays: list}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	got, err := checkMeasurements(wire.Measurements{Relays: []wire.Measurement{good,
		{Name: "r2", RTTUS: 5, LossPct: 100}, {Name: "r3", RTTUS: 5, Reason: transport.Refused}, {Name: "r4", Reason: "<b>"}}})
	want := []wire.Measurement{good, {Name: "r2", Reason: transport.Timeout}, {Name: "r3", Reason: transport.Refused}, {Name: "r4", Reason: transport.Protocol}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := checkMeasurements(wire.Measurements{Relays: many[:maxMeasured]}); err != nil {
		t.Errorf("%d relays: %v", maxMeasured, err)
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(bad)))
}

func FuzzMeasurements(f *testing.F) {
	f.Add([]byte(`{"relays":[{"name":"r1","rtt_us":1500,"port":443},{"name":"r2","reason":"timeout"}]}`))
	f.Add([]byte(`{"relays":[{"name":"r1","loss_pct":100,"way":"direct"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m wire.Measurements
		if (wire.Frame{Type: wire.TypeMeasurements, Payload: b}).Decode(&m) != nil {
			return
		}
		list, err := checkMeasurements(m)
		if err != nil {
			return
		}
		again, err := checkMeasurements(wire.Measurements{Relays: slices.Clone(list)})
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%+v becomes %+v, %v", list, again, err)
		}
		for _, r := range list {
			m := choose.Measurement{Measurement: r}
			d := choose.Decide(choose.Input{Relays: []choose.Relay{{Name: r.Name, Manager: &m, Runtime: &m}}})
			if ms := d.Relays[0].ScoreMS; ms < 0 || ms > 8*maxMeasureUS/1000 {
				t.Errorf("%+v costs %v ms", r, ms)
			}
		}
	})
}

// Only the newest is kept, at once; it is written once a minute, unless a relay
// begins or ceases to be reachable.
func TestMeasurementsAreWrittenOnceAMinuteUnlessTheyTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		w := newIdleWorld(t)
		st := w.db.open("a1", false, func() error {
			if broken.Load() {
				return store.ErrAway
			}
			return nil
		})
		m := measurements{store: newRecords(st, slog.New(slog.DiscardHandler))}
		note := func(list ...wire.Measurement) error { return m.note(t.Context(), "device.x", list, time.Now()) }
		want := func(what string, stored, rtt int64) {
			t.Helper()
			w.view(func(tx *store.Tx) error {
				there, counts := must(readMeasured(tx, "device.x")), must(m.of(tx, "device.x"))
				a, b := findMeasurement(there.relays, "r1"), findMeasurement(counts, "r1")
				if a == nil || b == nil || a.RTTUS != stored || b.RTTUS != rtt {
					t.Errorf("%s: stored %+v, counts %+v; want %d, %d", what, a, b, stored, rtt)
				}
				return nil
			})
		}
		r1 := func(us int64) wire.Measurement { return wire.Measurement{Name: "r1", RTTUS: us} }
		note(r1(1))
		want("the first", 1, 1)
		time.Sleep(time.Second)
		note(r1(2))
		want("a second later", 1, 2)
		note(wire.Measurement{Name: "r1", Reason: transport.Timeout})
		want("unreachable", 0, 0)
		note(r1(3))
		want("reachable again", 3, 3)
		time.Sleep(time.Second)
		note(r1(4))
		want("other numbers", 3, 4)
		if err := m.flushDue(t.Context(), time.Now().Add(measureEvery)); err != nil || len(m.fresh) != 0 {
			t.Errorf("flush: %v, %v", err, m.fresh)
		}
		want("flushed", 4, 4)
		time.Sleep(measureEvery)
		note(r1(5))
		want("a minute later", 5, 5)
		broken.Store(true)
		if note(wire.Measurement{Name: "r2"}, r1(6)) == nil || m.flushDue(t.Context(), time.Now().Add(measureEvery)) == nil {
			t.Error("a broken store is not told")
		}
		want("not stored", 5, 6)
		broken.Store(false)
		if err := m.flushDue(t.Context(), time.Now().Add(measureEvery)); err != nil {
			t.Error(err)
		}
		want("stored later", 6, 6)
	})
}

// An end measures some relays at a time: the others' measurements stay.
func TestMeasurementsOfARelayStayUntilNewerOnesCome(t *testing.T) {
	at := func(s int, list ...wire.Measurement) measured {
		r := measured{at: time.Unix(int64(s), 0)}
		for _, m := range list {
			r.relays = append(r.relays, choose.Measurement{Measurement: m, At: r.at})
		}
		return r
	}
	one, two := wire.Measurement{Name: "r1", RTTUS: 1}, wire.Measurement{Name: "r2", RTTUS: 2}
	newer := wire.Measurement{Name: "r1", RTTUS: 9}
	got := merge(at(1, one, two), at(2, newer))
	find := func(m measured, name string) *choose.Measurement { return findMeasurement(m.relays, name) }
	if len(got.relays) != 2 || find(got, "r1").RTTUS != 9 || find(got, "r2").RTTUS != 2 || !got.at.Equal(time.Unix(2, 0)) {
		t.Errorf("%+v", got)
	}
	if late := merge(got, at(1, one)); find(late, "r1").RTTUS != 9 || !late.at.Equal(got.at) {
		t.Errorf("an older one wins: %+v", late)
	}
	full := measured{}
	for i := range 3 * maxMeasured {
		full = merge(full, at(i, wire.Measurement{Name: fmt.Sprintf("r%d", i)}))
	}
	if len(full.relays) != maxMeasured || full.relays[0].Name != fmt.Sprintf("r%d", 3*maxMeasured-1) {
		t.Errorf("%d kept, first %+v", len(full.relays), full.relays[0])
	}
}

// What only memory has is written within a minute, and when the server stops.
func TestMeasurementsOutliveTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		measure := func(us int64) {
			s.runtime.write(wire.TypeMeasurements, wire.Measurements{Relays: []wire.Measurement{
				{Name: "r1", RTTUS: us}, {Name: "ghost", RTTUS: 1}}})
			synctest.Wait()
		}
		stored := func() int64 {
			var r measured
			s.view(func(tx *store.Tx) (err error) {
				r, err = readMeasured(tx, measuredByRuntime(s.device.id.UID))
				return err
			})
			if len(r.relays) != 1 {
				t.Fatalf("%+v", r)
			}
			return r.relays[0].RTTUS
		}
		measure(1)
		measure(2)
		if got := stored(); got != 1 {
			t.Errorf("at once: %d", got)
		}
		time.Sleep(measureEvery)
		synctest.Wait()
		if got := stored(); got != 2 {
			t.Errorf("a minute later: %d", got)
		}
		measure(3)
		s.stop()
		if got := stored(); got != 3 {
			t.Errorf("after the stop: %d", got)
		}
		s.start()
	})
}
