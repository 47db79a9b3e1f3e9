package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
			m := measurement{Measurement: r}
			if cost := costOf(&m); cost < 0 || cost > 4*maxMeasureUS {
				t.Errorf("%+v costs %d", r, cost)
			}
		}
	})
}

// counted is a Store that counts the writes of measurements, and can fail them.
type counted struct {
	Store
	writes atomic.Int64
	broken atomic.Bool
}

func (c *counted) wrote(bucket string) error {
	if bucket != bucketMeasurements {
		return nil
	}
	if c.broken.Load() {
		return errors.New("the disk is full")
	}
	c.writes.Add(1)
	return nil
}

func (c *counted) Create(ctx context.Context, bucket, key string, value []byte) (uint64, error) {
	if err := c.wrote(bucket); err != nil {
		return 0, err
	}
	return c.Store.Create(ctx, bucket, key, value)
}

func (c *counted) Update(ctx context.Context, bucket, key string, value []byte, revision uint64) (uint64, error) {
	if err := c.wrote(bucket); err != nil {
		return 0, err
	}
	return c.Store.Update(ctx, bucket, key, value, revision)
}

// Only the newest is kept, at once; it is written once a minute, unless a relay
// begins or ceases to be reachable.
func TestMeasurementsAreWrittenOnceAMinuteUnlessTheyTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counted{Store: NewMemory()}
		m := measurements{store: store}
		note := func(list ...wire.Measurement) error { return m.note(t.Context(), "device.x", list, time.Now()) }
		want := func(what string, writes int64, rtt int64) {
			t.Helper()
			got := findMeasurement(must(m.of(t.Context(), "device.x")), "r1")
			if store.writes.Load() != writes || got == nil || got.RTTUS != rtt {
				t.Errorf("%s: %d writes, %+v; want %d, rtt %d", what, store.writes.Load(), got, writes, rtt)
			}
		}
		r1 := func(us int64) wire.Measurement { return wire.Measurement{Name: "r1", RTTUS: us} }
		note(r1(1))
		want("the first", 1, 1)
		time.Sleep(time.Second)
		note(r1(2))
		want("a second later", 1, 2)
		note(wire.Measurement{Name: "r1", Reason: transport.Timeout})
		want("unreachable", 2, 0)
		note(r1(3))
		want("reachable again", 3, 3)
		time.Sleep(time.Second)
		note(r1(4))
		want("other numbers", 3, 4)
		if err := m.flush(t.Context(), time.Now().Add(measureEvery)); err != nil || len(m.fresh) != 0 {
			t.Errorf("flush: %v, %v", err, m.fresh)
		}
		want("flushed", 4, 4)
		time.Sleep(measureEvery)
		note(r1(5))
		want("a minute later", 5, 5)
		store.broken.Store(true)
		if note(wire.Measurement{Name: "r2"}, r1(6)) == nil || m.flush(t.Context(), time.Now().Add(measureEvery)) == nil {
			t.Error("a broken store is not told")
		}
		want("not stored", 5, 6)
		store.broken.Store(false)
		if err := m.flush(t.Context(), time.Now().Add(measureEvery)); err != nil {
			t.Error(err)
		}
		want("stored later", 6, 6)
	})
}

// An end measures some relays at a time: the others' measurements stay.
func TestMeasurementsOfARelayStayUntilNewerOnesCome(t *testing.T) {
	at := func(s int, list ...wire.Measurement) measuredRecord {
		r := measuredRecord{At: time.Unix(int64(s), 0)}
		for _, m := range list {
			r.Relays = append(r.Relays, measurement{m, r.At})
		}
		return r
	}
	one, two := wire.Measurement{Name: "r1", RTTUS: 1}, wire.Measurement{Name: "r2", RTTUS: 2}
	newer := wire.Measurement{Name: "r1", RTTUS: 9}
	got := merge(at(1, one, two), at(2, newer))
	if len(got.Relays) != 2 || got.find("r1").RTTUS != 9 || got.find("r2").RTTUS != 2 || !got.At.Equal(time.Unix(2, 0)) {
		t.Errorf("%+v", got)
	}
	if late := merge(got, at(1, one)); late.find("r1").RTTUS != 9 || !late.At.Equal(got.At) {
		t.Errorf("an older one wins: %+v", late)
	}
	full := measuredRecord{}
	for i := range 3 * maxMeasured {
		full = merge(full, at(i, wire.Measurement{Name: fmt.Sprintf("r%d", i)}))
	}
	if len(full.Relays) != maxMeasured || full.Relays[0].Name != fmt.Sprintf("r%d", 3*maxMeasured-1) {
		t.Errorf("%d kept, first %+v", len(full.Relays), full.Relays[0])
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
			r, err := s.server.measured.stored(t.Context(), measuredByRuntime(s.device.id.UID))
			if err != nil || len(r.Relays) != 1 {
				t.Fatalf("%+v, %v", r, err)
			}
			return r.find("r1").RTTUS
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
