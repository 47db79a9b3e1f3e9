package clock

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"hawser/probe"
	"hawser/transport"
)

// When to ask SNTP (time §6.2).
const (
	// Who asks a public server more often gets a kiss-o'-death, and is blocked in the end.
	leastPoll = 15 * time.Second // to one source
	firstPoll = 64 * time.Second
	lastPoll  = 4096 * time.Second
	denyRest  = 24 * time.Hour
)

// schedule says which SNTP sources to ask, and when. Its methods are pure; times
// are uptimes.
type schedule struct {
	wait    time.Duration // between two rounds; 0 before the first
	sources []source
}

// source is one SNTP source.
type source struct {
	name  string
	every time.Duration // its own interval, after RATE; 0: that of the rounds
	rest  time.Duration // it is not asked before this uptime
}

func newSchedule(names []string) schedule {
	var s schedule
	for _, n := range names {
		s.sources = append(s.sources, source{name: n})
	}
	return s
}

// due lists the sources that may be asked at an uptime.
func (s schedule) due(at time.Duration) (names []string) {
	for _, src := range s.sources {
		if src.rest <= at {
			names = append(names, src.name)
		}
	}
	return names
}

// next returns the schedule after a round that was sent at an uptime and gave
// samples. Soon makes the interval the shortest again.
func (s schedule) next(at time.Duration, samples []probe.Sample, soon bool) schedule {
	next := schedule{wait: min(max(2*s.wait, firstPoll), lastPoll), sources: slices.Clone(s.sources)}
	if soon {
		next.wait = firstPoll
	}
	for i := range next.sources {
		src := &next.sources[i]
		if n := slices.IndexFunc(samples, func(m probe.Sample) bool { return m.Source == src.name }); n >= 0 {
			src.asked(at, next.wait, samples[n].Kiss)
		}
	}
	return next
}

// asked updates a source after an answer. A kiss-o'-death is honoured (RFC 5905 §7.4). Who goes on asking after DENY is
// what makes operators close their servers.
func (src *source) asked(at, wait time.Duration, kiss string) {
	switch kiss {
	case "DENY", "RSTR":
		src.rest = at + denyRest
		return
	case "RATE":
		src.every = min(2*max(src.every, wait), lastPoll)
	}
	src.rest = at + max(src.every-src.every/10, leastPoll)
}

// pause returns the wait from an uptime to the next round, with jitter in [0, 1):
// the interval ± 10 %, and longer when no source may be asked by then.
func (s schedule) pause(at time.Duration, jitter float64) time.Duration {
	wait := s.wait - s.wait/10 + time.Duration(jitter*float64(s.wait/5))
	if len(s.sources) == 0 {
		return wait
	}
	first := slices.MinFunc(s.sources, func(a, b source) int { return cmp.Compare(a.rest, b.rest) })
	return max(wait, first.rest-at)
}

// with returns the schedule for these sources; those that it has already keep their
// rest.
func (s schedule) with(names []string) schedule {
	next := newSchedule(names)
	next.wait = s.wait
	for i := range next.sources {
		for _, old := range s.sources {
			if old.name == next.sources[i].name {
				next.sources[i] = old
			}
		}
	}
	return next
}

// Sources are the hosts of the infrastructure, HOST or HOST:PORT, then the configured SNTP servers, each once, and then
// those of the site: never more than of the others, so that the site cannot have the majority (time §6.2).
func Sources(infrastructure, configured []string, site []netip.Addr) []string {
	var list []string
	for _, h := range infrastructure {
		if host, _, err := transport.SplitHost(h); err == nil {
			list = append(list, host)
		}
	}
	var once []string
	for _, s := range append(list, configured...) {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	for _, a := range site[:min(len(site), len(once))] {
		if s := a.String(); !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
