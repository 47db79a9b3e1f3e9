package agent

import (
	"context"
	"slices"
	"time"

	"hawser/probe"
	"hawser/transport"
)

const (
	firstPoll = 64 * time.Second
	lastPoll  = 4096 * time.Second
)

// keepTime asks the SNTP sources until ctx ends, on the schedule of time §6.
func (a *Agent) keepTime(ctx context.Context) {
	sntp := &probe.SNTP{Resolve: a.resolver.Resolve, Dial: a.DialContext, Now: a.clock.ticks}
	sources := a.Config.timeSources()
	configured := len(sources)
	for wait := time.Duration(0); ctx.Err() == nil && len(sources) > 0; {
		floor, ceiling := a.clock.window()
		samples := sntp.Round(ctx, sources)
		v := probe.Combine(samples, configured, floor, ceiling)
		a.clock.Round(v)
		if ctx.Err() != nil {
			return
		}
		a.log.Debug("sntp round", "agreed", len(v.Agreed), "rejected", len(v.Rejected), "reason", v.Reason, "clock", a.clock.Status().State)
		sources, wait = nextPoll(sources, samples, wait, v.Plausible)
		sleep(ctx, wait-wait/10+random(wait/5))
	}
}

// nextPoll is whom to ask next time, and in which time, after a round that came
// wait after the one before it (0: the first round; time §6). A kiss-o'-death is
// obeyed as RFC 5905 §7.4 wants: DENY and RSTR end the questions to that source,
// RATE makes all rare. It is pure.
func nextPoll(sources []string, samples []probe.Sample, wait time.Duration, plausible bool) ([]string, time.Duration) {
	if plausible {
		wait = min(2*wait, lastPoll)
	}
	wait = max(wait, firstPoll)
	var unwelcome []string
	for _, s := range samples {
		switch s.Kiss {
		case "RATE":
			wait = lastPoll
		case "DENY", "RSTR":
			unwelcome = append(unwelcome, s.Source)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(sources), func(s string) bool { return slices.Contains(unwelcome, s) })
	return rest, wait
}

// timeSources are the hosts of the own infrastructure, then the configured ones.
func (c Config) timeSources() []string {
	var list []string
	for _, h := range c.Access {
		if host, _, err := transport.SplitHost(h); err == nil {
			list = append(list, host)
		}
	}
	return append(list, c.Time...)
}
