package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/transport/control"
)

// Each step is an event, and then the interval at which the link pings.
func TestIdleLinkLearns(t *testing.T) {
	const want = 120 * time.Second
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	home, abroad := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9")
	type step struct {
		what string
		do   func(k idleLink) idleLink
		want float64 // seconds
	}
	aloud := func(sec, want float64) step {
		return step{fmt.Sprint("aloud after ", sec), func(k idleLink) idleLink { return k.lost(control.Loss{Idle: seconds(sec)}, now) }, want}
	}
	silent := func(sec, want float64) step {
		return step{fmt.Sprint("silent after ", sec), func(k idleLink) idleLink {
			return k.lost(control.Loss{Idle: seconds(sec), Silent: true}, now)
		}, want}
	}
	lived := func(sec, next float64) step {
		return step{fmt.Sprint("survived ", sec), func(k idleLink) idleLink { return k.survived(seconds(sec), want, now) }, next}
	}
	pass := func(d time.Duration) step {
		return step{fmt.Sprint("pass ", d), func(k idleLink) idleLink { now = now.Add(d); return k }, 0}
	}
	from := func(a netip.Addr, next float64) step {
		return step{"attached from " + a.String(), func(k idleLink) idleLink { return k.attached(a, now) }, next}
	}
	climb := []step{lived(4, 6), lived(6, 9), lived(9, 13.5), lived(13.5, 20.25), lived(20.25, 25), lived(25, 25)}
	join := func(parts ...[]step) []step { return slices.Concat(parts...) }
	one := func(s ...step) []step { return s }

	for name, steps := range map[string][]step{
		"one loss is none":                    one(aloud(50, 120), lived(120, 120), aloud(50, 120)),
		"two losses of one length":            one(aloud(50, 120), aloud(50, 4)),
		"of about one length":                 one(aloud(50, 120), aloud(41, 4), lived(4, 6)),
		"of two lengths":                      one(aloud(50, 120), aloud(39, 120), aloud(50, 120)),
		"too short to count":                  one(aloud(3.9, 120), aloud(3.9, 120), aloud(0, 120)),
		"an idle time was survived between":   one(aloud(50, 120), lived(49, 120), aloud(50, 120), lived(20, 120), aloud(50, 4)),
		"in silence":                          one(silent(120, 120), silent(120, 4)),
		"in silence, then aloud":              one(silent(120, 120), aloud(50, 4)),
		"aloud, then in silence":              one(aloud(50, 120), silent(120, 4)),
		"the climb meets the limit":           one(silent(120, 120), silent(120, 4), lived(4, 6), lived(6, 9), lived(9, 13.5), silent(13.5, 4), lived(4, 6), lived(6, 6.75), lived(6.75, 6.75)),
		"a loss below what was survived":      one(silent(120, 120), silent(120, 4), lived(4, 6), lived(6, 9), lived(9, 13.5), aloud(8, 13.5), lived(13.5, 20.25)),
		"the shortest interval":               one(aloud(5, 120), aloud(5, 4), silent(4, 4), silent(4, 4), lived(4, 4)),
		"the climb ends at half":              join(one(aloud(50, 120), aloud(50, 4)), climb),
		"after a day one step":                join(one(aloud(50, 120), aloud(50, 4)), climb, one(pass(25*time.Hour), lived(25, 37.5), lived(37.5, 37.5), pass(25*time.Hour), lived(37.5, 56.25), aloud(50, 37.5), lived(37.5, 37.5), pass(23*time.Hour), lived(37.5, 37.5))),
		"a step is taken back once":           join(one(aloud(50, 120), aloud(50, 4)), climb, one(pass(25*time.Hour), lived(25, 37.5), silent(37.5, 25), lived(25, 25), silent(25, 25))),
		"a loss that no step is to blame for": join(one(aloud(50, 120), aloud(50, 4)), climb, one(pass(25*time.Hour), lived(25, 37.5), aloud(20, 37.5), lived(37.5, 37.5), lived(37.5, 37.5))),
		"up to what it would be":              join(one(aloud(50, 120), aloud(50, 4)), climb, one(pass(25*time.Hour), lived(25, 37.5), lived(37.5, 37.5), pass(25*time.Hour), lived(37.5, 56.25), lived(56.25, 56.25), pass(25*time.Hour), lived(56.25, 84.375), lived(84.375, 84.375), pass(25*time.Hour), lived(84.375, 120), lived(120, 120), silent(120, 120), lived(120, 120))),
		"our own address is another one":      join(one(aloud(50, 120), aloud(50, 4)), climb, one(from(home, 37.5), lived(37.5, 37.5), from(home, 37.5), from(abroad, 56.25))),
		"the clock was set back":              join(one(aloud(50, 120), aloud(50, 4)), climb, one(pass(-time.Hour), lived(25, 37.5))),
	} {
		t.Run(name, func(t *testing.T) {
			k := idleLink{learnt: learnt{}}
			for i, s := range steps {
				k = s.do(k)
				if got := k.interval(want); s.want != 0 && got != seconds(s.want) {
					t.Errorf("step %d, %s: pings every %v, want %v s (%+v)", i, s.what, got, s.want, k)
				}
			}
		})
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// What is read from the disk is bounded: a gateway must not ping a thousand times a
// second, or once a year.
func TestLearntIntervalsFromTheDiskAreChecked(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{0: 0, time.Second: 0, -time.Hour: 0, 4 * time.Second: 4 * time.Second,
		20 * time.Minute: 20 * time.Minute, time.Hour: 0} {
		if got := (learnt{Interval: d}).checked(); got.Interval != want {
			t.Errorf("%v: %v, want %v", d, got.Interval, want)
		}
	}
}

func TestLearntIntervalsAreKeptAndBounded(t *testing.T) {
	dir := stateDir(t)
	s := must(openStore(dir, nil))(t)
	addr := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 443)
	}
	k := learnt{25 * time.Second, agentAddr, build}
	for n := range 1000 {
		s.learn(addr(n), k)
	}
	if n := len(s.saved.Idle); n > maxGoodHosts {
		t.Errorf("%d addresses", n)
	}
	s.learn(addr(998), learnt{})
	if err := s.save(build, 0); err != nil {
		t.Fatal(err)
	}
	again := must(openStore(dir, nil))(t)
	if got := again.learnt(addr(999)); got != k {
		t.Errorf("read %+v, want %+v", got, k)
	}
	if got := again.learnt(addr(998)); got != (learnt{}) {
		t.Errorf("what was forgotten: %+v", got)
	}
}
