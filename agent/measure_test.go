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
		want     []string
	}{
		"never measured":             {map[string]time.Time{}, "", false, []string{"r1", "r2", "r3", "r4"}},
		"all fresh":                  {fresh, "r1", false, nil},
		"asked for":                  {fresh, "r1", true, []string{"r1", "r2", "r3", "r4"}},
		"a new one":                  {with("r2", time.Time{}), "r1", false, []string{"r2"}},
		"one a week old":             {with("r2", ago(measureAll)), "r1", false, []string{"r2"}},
		"the last one after 6 h":     {with("r1", ago(measureNear)), "r1", false, []string{"r1", "r3", "r2"}},
		"6 h, but not the last one":  {with("r1", ago(measureNear)), "r4", false, nil},
		"the last one, not in there": {fresh, "r9", false, nil},
	} {
		var got []string
		for _, r := range dueRelays(slices.Clone(list), tt.measured, tt.last, tt.all, now) {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if got := dueRelays(nil, nil, "r1", true, now); got != nil {
		t.Errorf("an empty pool: %v", got)
	}
}

// The pool comes with the welcome; each relay is measured soon after, again when
// the Access Server asks, and when there is a new one.
func TestRelaysAreMeasuredAndTold(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrolNow()
		pool := wire.Pool{Relays: []wire.Relay{{Name: "r1", Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}}}
		r.access.welcome.Pool = pool
		r.net.Host(relayAddr) // nobody listens: refused
		p := r.start()
		l := <-r.access.links
		expect := func(limit time.Duration, names ...string) {
			t.Helper()
			begin := time.Now()
			var m wire.Measurements
			l.next(r, wire.TypeMeasurements, &m)
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
