package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent/clock"
	"hawser/board/boardtest"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

func TestSignalOf(t *testing.T) {
	for _, tt := range []struct {
		state    State
		clock    clock.State
		sessions int
		locked   bool
		want     Signal
	}{
		{StateBoot, clock.Authentic, 0, false, SignalStarting},
		{StateDial, clock.Unknown, 0, false, SignalStarting},
		{StateDial, clock.Plausible, 0, false, SignalDialling},
		{StateDial, clock.Authentic, 0, true, SignalDialling},
		{StateEnroll, clock.Unknown, 0, false, SignalEnrolling},
		{StateAttached, clock.Authentic, 0, false, SignalOnline},
		{StateAttached, clock.Conflict, 0, false, SignalOnline},
		{StateAttached, clock.Authentic, 0, true, SignalLocked},
		{StateAttached, clock.Authentic, 2, false, SignalSession},
		{StateAttached, clock.Authentic, 1, true, SignalSession}, // it is being ended
		{StateDial, clock.Authentic, 1, false, SignalSession},
		{StateQuarantined, clock.Authentic, 0, true, SignalRefused},
		{StateStopped, clock.Authentic, 1, false, SignalStopped},
	} {
		if got := signalOf(tt.state, tt.clock, tt.sessions, tt.locked, false); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// Whoever stands in front of a gateway that was cloned has to see that something is wrong, though it is attached.
func TestAClonedGatewayLooksRefused(t *testing.T) {
	if got := signalOf(StateAttached, clock.Authentic, 0, true, true); got != SignalRefused {
		t.Errorf("it shows %s", got)
	}
}

func TestNoTwoSignalsLookAlike(t *testing.T) {
	seen := map[Light]Signal{}
	for _, row := range lights() {
		if other, ok := seen[row.light]; ok || row.Signal.Light() != row.light {
			t.Errorf("%s looks like %s%s", row.Signal, row.Signal.Light(), other)
		}
		seen[row.light] = row.Signal
	}
	if Signal("else").Light() != (Light{}) {
		t.Error("what is no signal is lit")
	}
}

// The page of the gateway's owner has the table of this code, no row more and no row less.
func TestTheOperatorsPageHasTheTableOfSignals(t *testing.T) {
	_, section, ok := strings.Cut(string(must(os.ReadFile("../docs/agent.md"))(t)), "### 6.2 LEDs\n")
	if !ok {
		t.Fatal("docs/agent.md has no §6.2 about LEDs")
	}
	section, _, _ = strings.Cut(section, "\n#")
	var got, want []string
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	for _, row := range lights() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", row.Signal, row.light, row.means))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("docs/agent.md §6.2 has\n%s\nwant\n%s", g, w)
	}
}

// The LEDs say what status says, in every state, and are set only when that
// changes.
func TestTheLEDsShowTheSignalOfStatus(t *testing.T) {
	t.Attr("id", "Q7")
	bubble(t, func(r *rig) {
		leds := new(boardtest.LEDs)
		leds.Give(r.opts.Board, "green:status", "green:user")
		r.opts.Config.LEDs = LEDs{"green:status", "green:user"}
		p := r.start()
		shows := func(want Signal) {
			t.Helper()
			r.until(2*time.Hour, "signal "+string(want), func() bool { return p.Status().Signal == want })
			on, off := leds.Shown("green:status")
			if (Light{on, off}) != want.Light() {
				t.Errorf("%s: the LED shows %s", want, Light{on, off})
			}
		}
		shows(SignalEnrolling)
		r.net.Stall(agentAddr, accessAddr)
		r.enrollNow()
		shows(SignalStarting) // in 1970
		r.net.Heal(agentAddr, accessAddr)
		shows(SignalOnline)
		sets := leds.Sets()
		time.Sleep(time.Hour)
		if synctest.Wait(); leds.Sets() != sets {
			t.Errorf("set %d times while nothing happened", leds.Sets()-sets)
		}
		r.access.Down()
		shows(SignalDialling)
		r.access.Set(func() { r.access.RefuseHello = &wire.Refusal{Reason: transport.Revoked} })
		r.access.Up()
		shows(SignalRefused)
		p.stop(time.Second)
		for _, led := range []string{"green:status", "green:user"} {
			if on, _ := leds.Shown(led); on != 0 {
				t.Errorf("%s is lit after the stop", led)
			}
		}
	})
}

func TestTheSessionLEDIsLitWhileASessionRuns(t *testing.T) {
	t.Attr("id", "Q7")
	leds := new(boardtest.LEDs)
	fitted := func(r *rig) {
		leds.Give(r.opts.Board, "green:user")
		r.opts.Config.LEDs = LEDs{Session: "green:user"}
	}
	attachedRigWith(t, fitted, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		lit := func() bool { on, off := leds.Shown("green:user"); return on > 0 && off == 0 }
		if lit() || p.Status().Signal != SignalOnline {
			t.Errorf("before: lit %t, %s", lit(), p.Status().Signal)
		}
		s := m.open(l, p, "s1", "tcp")
		if synctest.Wait(); !lit() || p.Status().Signal != SignalSession {
			t.Errorf("in a session: lit %t, %s", lit(), p.Status().Signal)
		}
		s.Close()
		r.next(l, wire.TypeEndSession, new(wire.EndSession))
		if synctest.Wait(); lit() {
			t.Error("after the session: lit")
		}
	})
}

func TestAMissingLEDIsOneLine(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Config.LEDs = LEDs{"none", ""}
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		r.access.Down()
		p.await(StateDial, time.Minute)
		p.stop(time.Second)
		if n := r.notes.count("LED cannot be used"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}
