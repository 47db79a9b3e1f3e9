package access

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/choose"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// Limits of what an end may report as measured (wire §4.8).
const (
	maxMeasured  = 32               // relays of one end
	maxMeasureUS = 60 * 1000 * 1000 // far above 2 s, after which a frame counts as lost
	maxWayBytes  = 16
)

// checkMeasurements checks the measurements that an end has sent: they go into decisions, the audit and the terminals
// of other users.
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
		case len(r.Way) > maxWayBytes || store.Printable(r.Way) != r.Way:
			return nil, errors.New("way is out of bounds")
		}
		seen[r.Name] = true
		if r.Reason = cleanReason(r.Reason); r.Reason == "" && r.LossPct == 100 {
			r.Reason = transport.Timeout // nothing came back, so rtt and jitter mean nothing
		}
		if r.Reason != "" {
			r.RTTUS, r.JitterUS, r.LossPct = 0, 0, 0
		}
	}
	return m.Relays, nil
}

// measureEvery is how often the measurements of one end are written at most, unless a relay has become reachable or
// unreachable. Numbers that are a minute old still choose well, and a write costs a transaction.
const measureEvery = time.Minute

// measurements has what each end has measured: in the store, and in memory what is newer. It is safe for concurrent
// use.
type measurements struct {
	store *records

	mu    sync.Mutex // guards fresh; never held while the store works
	fresh map[string]*unwritten
}

// measured is what one end has measured of the relays.
type measured struct {
	at     time.Time // of the newest
	relays []choose.Measurement
}

// unwritten is what the store does not have yet. It is never changed, only replaced, except due: so write can compare
// the pointer to see whether newer measurements came meanwhile.
type unwritten struct {
	measured
	due time.Time // when it is to be written
}

// The keys of the table measurements. A Runtime measures for its device. A Manager measures for the machine on which it
// runs, which is known by the user's key: a user may have several, in different networks.
func measuredByRuntime(device identity.UID) string { return "device." + device.String() }
func measuredByManager(key identity.SPKI) string   { return "user." + key.String() }

// note adds new measurements of an end. They count at once; if it is too soon to write them, flushDue does so later.
func (m *measurements) note(ctx context.Context, key string, list []wire.Measurement, now time.Time) error {
	fresh := m.add(key, list, now.UTC())
	var stored measured
	err := m.store.View(ctx, func(tx *store.Tx) (err error) {
		stored, err = readMeasured(tx, key)
		return err
	})
	if err != nil {
		return err
	}
	// A time in the store that is ahead of the clock, which was set back meanwhile, does not postpone anything.
	if wait := stored.at.Add(measureEvery).Sub(now); wait > 0 && wait <= measureEvery && !reachabilityChanged(stored, fresh.measured) {
		m.postpone(fresh, wait)
		return nil
	}
	return m.write(ctx, key, fresh)
}

// add merges new measurements into what is unwritten of an end.
func (m *measurements) add(key string, list []wire.Measurement, now time.Time) *unwritten {
	fresh := &unwritten{measured{at: now}, time.Now().Add(measureEvery)}
	for _, r := range list {
		fresh.relays = append(fresh.relays, choose.Measurement{Measurement: r, At: now})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh == nil {
		m.fresh = make(map[string]*unwritten)
	}
	if before := m.fresh[key]; before != nil {
		fresh.measured = merge(before.measured, fresh.measured)
	}
	m.fresh[key] = fresh
	return fresh
}

// postpone sets when a write is due.
func (m *measurements) postpone(u *unwritten, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.due = time.Now().Add(wait)
}

func (m *measurements) unwritten(key string) *unwritten {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fresh[key]
}

// of returns the newest measurements of an end, written or not.
func (m *measurements) of(tx *store.Tx, key string) ([]choose.Measurement, error) {
	fresh := m.unwritten(key)
	stored, err := readMeasured(tx, key)
	if err == nil && fresh != nil {
		stored = merge(stored, fresh.measured)
	}
	return stored.relays, err
}

// readMeasured reads what the store has of an end. A missing or damaged row counts as not measured: the end soon
// measures again.
func readMeasured(tx *store.Tx, key string) (m measured, err error) {
	r := store.Measured{Key: key}
	err = tx.Get(&r)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		return m, nil
	} else if err != nil {
		return m, err
	}
	m.at = r.At
	return m, json.Unmarshal(r.Relays, &m.relays)
}

// write puts fresh measurements into the store. Then it forgets them, unless newer ones came meanwhile.
func (m *measurements) write(ctx context.Context, key string, fresh *unwritten) error {
	err := m.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		stored, err := readMeasured(tx, key)
		if err != nil {
			return err
		}
		all := merge(stored, fresh.measured)
		relays, err := json.Marshal(all.relays)
		if err != nil {
			return err
		}
		return tx.Put(&store.Measured{Key: key, At: all.at, Relays: relays})
	})
	if err != nil {
		m.postpone(fresh, measureEvery)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh[key] == fresh {
		delete(m.fresh, key)
	}
	return nil
}

// flushKey writes what is fresh of one end, now.
func (m *measurements) flushKey(ctx context.Context, key string) error {
	if fresh := m.unwritten(key); fresh != nil {
		return m.write(ctx, key, fresh)
	}
	return nil
}

// flushDue writes what is due by a time. Those that fail are due again later, each by itself.
func (m *measurements) flushDue(ctx context.Context, by time.Time) error {
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

// next returns when something is due; the zero time is never.
func (m *measurements) next() (next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.fresh {
		next = sooner(next, u.due)
	}
	return next
}

// reachabilityChanged reports whether fresh has a relay that has become reachable or unreachable, or that is new.
func reachabilityChanged(before, fresh measured) bool {
	return slices.ContainsFunc(fresh.relays, func(r choose.Measurement) bool {
		old := findMeasurement(before.relays, r.Name)
		return old == nil || choose.Failed(old) != choose.Failed(&r)
	})
}

// merge returns the newest measurement of each relay, and that of fresh if both are of the same time: an end does not
// measure all relays each time (wire §4.8). If there are too many, it drops the oldest.
func merge(before, fresh measured) measured {
	all := slices.Concat(fresh.relays, before.relays)
	slices.SortStableFunc(all, func(a, b choose.Measurement) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), b.At.Compare(a.At))
	})
	all = slices.CompactFunc(all, func(a, b choose.Measurement) bool { return a.Name == b.Name })
	slices.SortStableFunc(all, func(a, b choose.Measurement) int { return b.At.Compare(a.At) })
	at := before.at
	if fresh.at.After(at) {
		at = fresh.at
	}
	return measured{at, all[:min(len(all), maxMeasured)]}
}

func findMeasurement(list []choose.Measurement, relay string) *choose.Measurement {
	i := slices.IndexFunc(list, func(m choose.Measurement) bool { return m.Name == relay })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// measureTimeout is how long a request waits for a Runtime that was asked to measure. A Runtime gives no relay more
// (package probe).
const measureTimeout = 15 * time.Second

// measurementsFrom handles what a Runtime has measured. If the store does not work the link stays: the measurements are
// kept in memory.
func (s *Server) measurementsFrom(ctx context.Context, l *link, f wire.Frame) error {
	uid, err := identity.ParseUID(l.peer.Name.ID)
	if l.peer.Name.Kind != identity.KindDevice || err != nil {
		return unexpected(f)
	}
	var m wire.Measurements
	if err := f.Decode(&m); err != nil {
		return err
	}
	list, err := checkMeasurements(m)
	if err != nil {
		return fmt.Errorf("%w: measurements: %v", wire.ErrFrame, err)
	}
	if err := s.noteMeasurements(ctx, measuredByRuntime(uid), list); err != nil {
		s.logFailure("measurements not stored", err, "uid", uid)
	}
	l.measurementsArrived()
	return nil
}

// noteMeasurements adds measurements of relays that the registry knows; others could fill the store with invented
// names.
func (s *Server) noteMeasurements(ctx context.Context, key string, list []wire.Measurement) error {
	var known []wire.Measurement
	err := s.store.View(ctx, func(tx *store.Tx) error {
		for _, m := range list {
			if s.presence.find(identity.RelayName(m.Name)) == nil { // it may just be restarting
				err := tx.Get(&store.Member{Kind: identity.KindRelay, ID: m.Name})
				if errors.Is(err, store.ErrNotFound) {
					continue
				} else if err != nil {
					return err
				}
			}
			known = append(known, m)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer s.dueChanged.Ring()
	return s.measured.note(ctx, key, known, s.now())
}
