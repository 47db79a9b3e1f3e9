package agent

import (
	"context"

	"hawser/probe"
)

// keepTime asks the SNTP sources until ctx ends, on the schedule of time §6.2.
func (a *Agent) keepTime(ctx context.Context) {
	sntp := &probe.SNTP{Resolve: a.resolver.Resolve, Dial: a.DialContext, Now: a.clock.ticks}
	var plan schedule
	for ctx.Err() == nil {
		// The site's may become known late: its network comes up after the agent does.
		plan = plan.with(a.Config.timeSources(a.board.TimeServers()))
		configured := len(plan.sources)
		if configured == 0 {
			return // nobody is configured, and then the site is not asked alone
		}
		sent := a.board.Uptime()
		samples := sntp.Round(ctx, plan.due(sent))
		if ctx.Err() != nil {
			return
		}
		floor, ceiling := a.clock.comparable()
		v := probe.Combine(samples, configured, floor, ceiling)
		act := a.discipline(v, configured)
		state := a.clock.Status().State
		a.log.Debug("sntp round", "agreed", len(v.Agreed), "rejected", len(v.Rejected), "reason", v.Reason, "clock", state, "does", act.do, "by", act.by)
		plan = plan.next(sent, samples, act.again || state == ClockUnknown)
		sleep(ctx, plan.pause(a.board.Uptime(), float64(random(1<<20))/(1<<20)))
	}
}

// discipline gives the clock a verdict. What that spends of the step budget is
// stored before.
func (a *Agent) discipline(v probe.Verdict, configured int) action {
	budget := stepBudget
	if err := a.store.spend(a.clock.cost(v, configured)); err != nil {
		a.log.Error("save state", "err", err)
		budget = a.store.spent()
	}
	return a.clock.Round(v, configured, budget)
}
