package agent

import (
	"slices"
	"testing"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

func TestDueRelays(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	list := []wire.Relay{{Name: "r1"}, {Name: "r2"}, {Name: "r3"}, {Name: "r4"}}
	fresh := map[string]time.Time{"r1": ago(time.Hour), "r2": ago(2 * time.Hour), "r3": ago(3 * time.Hour), "r4": ago(time.Hour)}
	with := func(name string, at time.Time) map[string]time.Time {
		m := map[string]time.Time{}
		for k, v := range fresh {
			m[k] = v
		}
		m[name] = at
		return m
	}
	for name, tt := range map[string]struct {
		measured map[string]time.Time
		last     string
		all      bool
		every    time.Duration
		want     []string
	}{
		"never measured":             {map[string]time.Time{}, "", false, measureIdle, []string{"r1", "r2", "r3", "r4"}},
		"all fresh":                  {fresh, "r1", false, measureIdle, nil},
		"asked for":                  {fresh, "r1", true, 0, []string{"r1", "r2", "r3", "r4"}},
		"a new one":                  {with("r2", time.Time{}), "r1", false, 0, []string{"r2"}},
		"one a week old":             {with("r2", ago(measureAll)), "r1", false, measureIdle, []string{"r2"}},
		"the last one after 6 h":     {with("r1", ago(measureNear)), "r1", false, measureIdle, []string{"r1", "r3", "r2"}},
		"6 h, but not the last one":  {with("r1", ago(measureNear)), "r4", false, measureIdle, nil},
		"the last one, not in there": {fresh, "r9", false, measureIdle, nil},
		"idle, all fresh":            {fresh, "", false, measureIdle, nil},
		"idle, a day later":          {later(fresh, measureIdle), "", false, measureIdle, []string{"r3"}},
		"idle, with a small budget":  {later(fresh, measureIdle), "", false, measureAll, nil},
		"idle, a week later":         {later(fresh, measureAll), "", false, measureAll, []string{"r3"}},
		"idle, with no budget left":  {later(fresh, measureAll), "", false, 0, nil},
	} {
		r := &relays{list: slices.Clone(list), measured: tt.measured, last: tt.last, all: tt.all}
		if tt.last != "" {
			r.usedAt = ago(time.Hour)
		}
		var got []string
		for _, r := range r.take(now, tt.every) {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if got := newRelays().take(now, measureIdle); got != nil {
		t.Errorf("an empty pool: %v", got)
	}
}

// later is when all was measured d earlier.
func later(measured map[string]time.Time, d time.Duration) map[string]time.Time {
	m := map[string]time.Time{}
	for name, at := range measured {
		m[name] = at.Add(-d)
	}
	return m
}

// The pool comes with the welcome; each relay is measured soon after, again when
// the Access Server asks, and when there is a new one.
func TestRelaysAreMeasuredAndTold(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		pool := wire.Pool{Relays: []wire.Relay{{Name: "r1", Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}}}
		r.access.Welcome.Pool = pool
		r.net.Host(relayAddr) // nobody listens: refused
		p := r.start()
		l := <-r.access.Links
		expect := func(limit time.Duration, names ...string) {
			t.Helper()
			begin := time.Now()
			var m wire.Measurements
			r.next(l, wire.TypeMeasurements, &m)
			var got []string
			for _, one := range m.Relays {
				got = append(got, one.Name)
				if one.Reason == "" {
					t.Errorf("%s was measured, but nobody is there", one.Name)
				}
			}
			if took := time.Since(begin); !slices.Equal(got, names) || took > limit {
				t.Errorf("measured %v after %v, want %v within %v", got, took, names, limit)
			}
		}
		expect(measureSoon+time.Second, "r1")
		wire.Write(l, wire.TypeMeasure, nil)
		expect(2*time.Second, "r1")
		pool.Relays = append(pool.Relays, wire.Relay{Name: "r2", Hosts: []string{relayAddr.String()}, Ports: []transport.Port{80}})
		wire.WriteJSON(l, wire.TypePool, pool)
		expect(measureSoon+time.Second, "r2")
		p.stop(time.Second)
	})
}
