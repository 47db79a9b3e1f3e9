package agent

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A Signal is what the gateway shows of itself to who stands before it: on its
// LEDs, and as one word in status.
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

// A Light is how a LED looks: lit for On and dark for Off in turn. Off 0 is
// steadily lit, On 0 is dark.
type Light struct{ On, Off time.Duration }

// String tells it in words.
func (l Light) String() string {
	switch {
	case l.On == 0:
		return "dark"
	case l.Off == 0:
		return "steady"
	}
	return fmt.Sprintf("%d ms on, %d ms off", l.On.Milliseconds(), l.Off.Milliseconds())
}

// lights is the one table of blink codes: the LEDs, status and docs/agent.md
// §6.2 have it from here. Codes are told apart without a watch: by rhythm, and
// the darker, the less can be reached.
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

// Light is how the status LED shows s; dark when s is no signal.
func (s Signal) Light() Light {
	for _, row := range lights() {
		if row.Signal == s {
			return row.light
		}
	}
	return Light{}
}

// signalOf decides what is shown. It is pure. That somebody is connected comes
// first: sessions outlive the control connection.
func signalOf(s State, clock ClockState, sessions int, locked bool) Signal {
	switch {
	case s == StateStopped:
		return SignalStopped
	case sessions > 0:
		return SignalSession
	case s == StateBoot || s == StateDial && clock == ClockUnknown:
		return SignalStarting
	case s == StateEnroll:
		return SignalEnrolling
	case s == StateDial:
		return SignalDialling
	case s == StateQuarantined:
		return SignalRefused
	case locked:
		return SignalLocked
	}
	return SignalOnline
}

// LEDs names the LEDs that show the signal, and whether a session runs; empty:
// none.
type LEDs struct{ Status, Session string }

// parseLED reads the name of a LED.
func parseLED(s string) (string, error) {
	if len(s) > 63 || strings.Contains(s, "/") || strings.HasPrefix(s, ".") {
		return "", fmt.Errorf("%.64q: want the name of a LED, as in /sys/class/leds", s)
	}
	return s, nil
}

// signal is what to show now.
func (a *Agent) signal() (now Signal, sessions int) {
	sessions, locked := a.sessions.load()
	return signalOf(a.status.now(), a.clock.Status().State, sessions, locked), sessions
}

// showSignal keeps the LEDs at what there is to show until ctx ends; then it
// darkens them.
func (a *Agent) showSignal(ctx context.Context) {
	status, session := lamp{name: a.Config.LEDs.Status}, lamp{name: a.Config.LEDs.Session}
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
	shown bool   // light is what was last asked for
	light Light
	sick  bool // which was said already
}

func (l *lamp) show(a *Agent, light Light) {
	if l.name == "" || l.shown && l.light == light {
		return
	}
	l.shown, l.light = true, light
	if err := a.board.SetLED(l.name, light.On, light.Off); err != nil && !l.sick {
		a.log.Warn("LED cannot be used", "err", err)
		l.sick = true
	}
}
