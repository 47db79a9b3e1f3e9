package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// Bounds of what an end may say that it measured (wire §4.8).
const (
	maxMeasured  = 32               // relays of one end
	maxMeasureUS = 60 * 1000 * 1000 // a frame that takes 2 s is lost: this is far beyond
	maxWayBytes  = 16
)

// checkMeasurements returns the measurements that an end has sent, with nothing
// in them that others could be harmed by, or says what is wrong with them.
func checkMeasurements(m wire.Measurements) ([]wire.Measurement, error) {
	if len(m.Relays) > maxMeasured {
		return nil, fmt.Errorf("over %d relays", maxMeasured)
	}
	seen := make(map[string]bool)
	for i := range m.Relays {
		r := &m.Relays[i]
		switch {
		case identity.CheckLabel(r.Name) != nil || seen[r.Name]:
			return nil, errors.New("name is no label, or comes twice")
		case r.RTTUS < 0 || r.RTTUS > maxMeasureUS || r.JitterUS < 0 || r.JitterUS > maxMeasureUS:
			return nil, errors.New("rtt_us or jitter_us is out of bounds")
		case r.LossPct < 0 || r.LossPct > 100:
			return nil, errors.New("loss_pct is out of bounds")
		case len(r.Way) > maxWayBytes || printable(r.Way) != r.Way:
			return nil, errors.New("way is out of bounds")
		}
		seen[r.Name] = true
		if r.Reason = cleanReason(r.Reason); r.Reason == "" && r.LossPct == 100 {
			r.Reason = transport.Timeout // nothing came back: these are no numbers
		}
		if r.Reason != "" {
			r.RTTUS, r.JitterUS, r.LossPct = 0, 0, 0
		}
	}
	return m.Relays, nil
}

// measureEvery is how often the measurements of one end are written at most,
// unless a relay was reached for the first time or no longer is.
const measureEvery = time.Minute

// measurements keeps what each end has measured. The store has it, and memory
// what is newer. It is safe for concurrent use.
type measurements struct {
	store Store

	mu    sync.Mutex // guards fresh; never held while the store works
	fresh map[string]*unwritten
}

// unwritten is what the store does not have yet. It is replaced, not changed,
// but for due.
type unwritten struct {
	measuredRecord
	due time.Time // when it is to be written
}

// The keys of bucket measurements: a Runtime measures for its device, a Manager
// for the machine that it runs on, which a user's key stands for.
func measuredByRuntime(device identity.UID) string { return "device." + device.String() }
func measuredByManager(key identity.SPKI) string   { return "user." + key.String() }

// note takes new measurements of an end. They count at once; if it is too soon
// to write them, flush will.
func (m *measurements) note(ctx context.Context, key string, list []wire.Measurement, now time.Time) error {
	fresh := m.add(key, list, now.UTC())
	stored, err := m.stored(ctx, key)
	if err != nil {
		return err
	}
	if wait := stored.At.Add(measureEvery).Sub(now); wait > 0 && wait <= measureEvery && !turned(stored, fresh.measuredRecord) {
		m.putOff(fresh, wait)
		return nil
	}
	return m.write(ctx, key, fresh)
}

func (m *measurements) add(key string, list []wire.Measurement, now time.Time) *unwritten {
	fresh := &unwritten{measuredRecord{At: now}, time.Now().Add(measureEvery)}
	for _, r := range list {
		fresh.Relays = append(fresh.Relays, measurement{r, now})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh == nil {
		m.fresh = make(map[string]*unwritten)
	}
	if before := m.fresh[key]; before != nil {
		fresh.measuredRecord = merge(before.measuredRecord, fresh.measuredRecord)
	}
	m.fresh[key] = fresh
	return fresh
}

func (m *measurements) putOff(u *unwritten, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.due = time.Now().Add(wait)
}

// of returns the newest measurements of an end.
func (m *measurements) of(ctx context.Context, key string) ([]measurement, error) {
	m.mu.Lock()
	fresh := m.fresh[key]
	m.mu.Unlock()
	stored, err := m.stored(ctx, key)
	if err == nil && fresh != nil {
		stored = merge(stored, fresh.measuredRecord)
	}
	return stored.Relays, err
}

func (m *measurements) stored(ctx context.Context, key string) (measuredRecord, error) {
	r, _, err := load[measuredRecord](ctx, m.store, bucketMeasurements, key)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return r, err
}

// write puts fresh measurements into the store; they are forgotten then,
// unless newer ones came meanwhile.
func (m *measurements) write(ctx context.Context, key string, fresh *unwritten) error {
	_, err := upsert(ctx, m.store, bucketMeasurements, key, func(r *measuredRecord) (bool, error) {
		*r = merge(*r, fresh.measuredRecord)
		return true, nil
	})
	if err != nil {
		m.putOff(fresh, measureEvery)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh[key] == fresh {
		delete(m.fresh, key)
	}
	return nil
}

// settle writes what is fresh of an end, now.
func (m *measurements) settle(ctx context.Context, key string) error {
	m.mu.Lock()
	fresh := m.fresh[key]
	m.mu.Unlock()
	if fresh == nil {
		return nil
	}
	return m.write(ctx, key, fresh)
}

// flush writes what is due by then.
func (m *measurements) flush(ctx context.Context, by time.Time) error {
	m.mu.Lock()
	waiting := maps.Clone(m.fresh)
	maps.DeleteFunc(waiting, func(_ string, u *unwritten) bool { return u.due.After(by) })
	m.mu.Unlock()
	var errs []error
	for key, u := range waiting {
		errs = append(errs, m.write(ctx, key, u))
	}
	return errors.Join(errs...)
}

// next returns when something is due; the zero time for never.
func (m *measurements) next() (next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.fresh {
		next = sooner(next, u.due)
	}
	return next
}

// turned reports whether fresh has a relay that can be reached now and could
// not before, or the other way round.
func turned(before, fresh measuredRecord) bool {
	return slices.ContainsFunc(fresh.Relays, func(r measurement) bool {
		old := before.find(r.Name)
		return old == nil || failed(old) != failed(&r)
	})
}

// merge returns the newest measurement of each relay, of fresh when they are as
// old: an end does not measure all relays each time (wire §4.8). The oldest go
// when there are too many.
func merge(before, fresh measuredRecord) measuredRecord {
	all := slices.Concat(fresh.Relays, before.Relays)
	slices.SortStableFunc(all, func(a, b measurement) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), b.At.Compare(a.At))
	})
	all = slices.CompactFunc(all, func(a, b measurement) bool { return a.Name == b.Name })
	slices.SortStableFunc(all, func(a, b measurement) int { return b.At.Compare(a.At) })
	at := before.At
	if fresh.At.After(at) {
		at = fresh.At
	}
	return measuredRecord{at, all[:min(len(all), maxMeasured)]}
}

// find returns what was measured of a relay, or nil.
func (r measuredRecord) find(relay string) *measurement { return findMeasurement(r.Relays, relay) }

func findMeasurement(list []measurement, relay string) *measurement {
	i := slices.IndexFunc(list, func(m measurement) bool { return m.Name == relay })
	if i < 0 {
		return nil
	}
	return &list[i]
}
