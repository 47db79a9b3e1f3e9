package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hawser/agent/clock"
)

// A Signal is the gateway's state as a person in front of it needs it: on the LEDs,
// and as one word in status. It is not the State: that says what the connection does, and a person needs to know
// whether and whom to call.
type Signal string

// The signals; lights says how each one looks.
const (
	SignalStarting  Signal = "starting"
	SignalEnrolling Signal = "enrolling"
	SignalDialling  Signal = "dialling"
	SignalOnline    Signal = "online"
	SignalSession   Signal = "session"
	SignalLocked    Signal = "locked"
	SignalRefused   Signal = "refused"
	SignalStopped   Signal = "stopped"
)

// A Light is a blink code: lit for On and dark for Off in turn. With Off 0 the LED
// is always lit, with On 0 always dark.
type Light struct{ On, Off time.Duration }

// String describes it in words.
func (l Light) String() string {
	switch {
	case l.On == 0:
		return "dark"
	case l.Off == 0:
		return "steady"
	}
	return fmt.Sprintf("%d ms on, %d ms off", l.On.Milliseconds(), l.Off.Milliseconds())
}

// lights is the only table of blink codes; LEDs, status and docs/agent.md §6.2 take
// it from here. The codes differ in rhythm, so that nobody needs a watch, and the
// less can be reached, the darker the LED is. A function and not a variable: nobody can change it, and a test compares
// it with the page.
func lights() []signalRow {
	const ms = time.Millisecond
	return []signalRow{
		{SignalStarting, Light{100 * ms, 900 * ms}, "it has just started, or knows neither the time nor a way out"},
		{SignalEnrolling, Light{500 * ms, 500 * ms}, "it has no identity: `hawser-agent enroll`"},
		{SignalDialling, Light{125 * ms, 125 * ms}, "it finds no way out: `hawser-agent netcheck`"},
		{SignalOnline, Light{time.Second, 0}, "it can be reached, nobody is connected"},
		{SignalSession, Light{900 * ms, 100 * ms}, "somebody is connected"},
		{SignalLocked, Light{100 * ms, 2900 * ms}, "it is online, and the key switch lets nobody in"},
		{SignalRefused, Light{2000 * ms, 2000 * ms}, "the infrastructure does not accept its identity"},
		{SignalStopped, Light{}, "the agent does not run"},
	}
}

type signalRow struct {
	Signal
	light Light
	means string
}

// Light is the blink code of s on the status LED; dark when s is no signal.
func (s Signal) Light() Light {
	for _, row := range lights() {
		if row.Signal == s {
			return row.light
		}
	}
	return Light{}
}

// signalOf decides which signal is shown. It is pure. A running session comes first, because sessions outlive the
// control connection. The rest is ordered by what somebody in front of the box can do about it.
func signalOf(s State, now clock.State, sessions int, locked, cloned bool) Signal {
	switch {
	case s == StateStopped:
		return SignalStopped
	case sessions > 0:
		return SignalSession
	case s == StateBoot || s == StateDial && now == clock.Unknown:
		return SignalStarting
	case s == StateEnroll:
		return SignalEnrolling
	case s == StateDial:
		return SignalDialling
	case s == StateQuarantined || cloned:
		return SignalRefused
	case locked:
		return SignalLocked
	}
	return SignalOnline
}

// LEDs names the LEDs that show the signal, and whether a session runs; empty:
// none.
type LEDs struct{ Status, Session string }

// parseLED reads the name of a LED. The name becomes a path below /sys that root writes to: no slash, and no dot in
// front.
func parseLED(s string) (string, error) {
	if len(s) > 63 || strings.Contains(s, "/") || strings.HasPrefix(s, ".") {
		return "", fmt.Errorf("%.64q: want the name of a LED, as in /sys/class/leds", s)
	}
	return s, nil
}

// signal returns the signal of this moment. The three are read one after the other without a common lock; a signal that
// is wrong for a moment rings told again.
func (a *Agent) signal() (now Signal, sessions int) {
	sessions, locked := a.sessions.load()
	return signalOf(a.status.now(), a.clock.Status().State, sessions, locked, a.status.freshKey() != nil), sessions
}

// showSignal shows the signal on the LEDs until ctx ends; then it turns them off. It waits for a ring and does not
// poll: the kernel blinks, and an idle gateway sleeps.
func (a *Agent) showSignal(ctx context.Context) {
	status, session := lamp{name: a.config.LEDs.Status}, lamp{name: a.config.LEDs.Session}
	for ctx.Err() == nil {
		now, sessions := a.signal()
		status.show(a, now.Light())
		session.show(a, Light{On: time.Duration(min(sessions, 1)) * time.Second})
		select {
		case <-a.status.told:
		case <-ctx.Done():
		}
	}
	status.show(a, Light{})
	session.show(a, Light{})
}

// lamp is one LED.
type lamp struct {
	name  string // empty: there is none
	shown bool   // light was set
	light Light
}

func (l *lamp) show(a *Agent, light Light) {
	// Written at a change only: some LEDs are behind a slow bus.
	if l.name == "" || l.shown && l.light == light {
		return
	}
	l.shown, l.light = true, light
	if err := a.board.SetLED(l.name, light.On, light.Off); a.status.trouble("LED "+l.name, err) {
		a.log.Warn("LED cannot be used", "err", err)
	}
}
