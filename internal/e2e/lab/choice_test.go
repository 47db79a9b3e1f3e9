//go:build linux

package lab

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"
)

// decision is DECISION of access §8, as hawser relays prints it.
type decision struct {
	Chosen, Incumbent string
	Relays            []struct {
		Name             string
		Manager, Runtime *measured
		Pipes, Max       int
		Score            float64 `json:"score_ms"`
		Verdict, Reason  string
	}
}

// measured is M of access §8.
type measured struct {
	RTT    float64 `json:"rtt_ms"`
	Jitter float64 `json:"jitter_ms"`
	Loss   float64 `json:"loss_pct"`
	Port   int
	Reason string
}

// round is one arrangement of the three relays, and which of them a session is to take.
type round struct {
	name  string
	away  [3]distance
	third bool // the best of the others has at most two thirds of the incumbent's score
	by10  bool // and this one is better by 10 ms
	want  string
}

// between is a distance in milliseconds.
func between(tech, device int) distance {
	return distance{time.Duration(tech) * time.Millisecond, time.Duration(device) * time.Millisecond}
}

func rounds() []round {
	return []round{
		{"the best is near to neither end", [3]distance{between(5, 120), between(30, 30), between(120, 5)}, false, false, "rs2"},
		{"noise", [3]distance{between(9, 112), between(34, 33), between(117, 9)}, false, false, "rs2"},
		{"better by 10 ms, not by a third", [3]distance{between(35, 40), between(45, 50), between(120, 5)}, false, true, "rs2"},
		{"better by a third, not by 10 ms", [3]distance{between(0, 0), between(2, 2), between(40, 40)}, true, false, "rs2"},
		{"better by both", [3]distance{between(5, 120), between(30, 30), between(10, 10)}, true, true, "rs3"},
		{"the former one is a little better again", [3]distance{between(5, 120), between(20, 20), between(24, 24)}, false, false, "rs3"},
		{"only one end is still near", [3]distance{between(15, 15), between(90, 90), between(5, 120)}, true, true, "rs1"},
	}
}

// Sessions take the relay with the least sum of the ways to both ends, and stay with it until another is clearly better.
func TestSessionTakesTheRelayNearToBothEnds(t *testing.T) {
	t.Attr("id", "A2-choice")
	t.Attr("cases", strconv.Itoa(len(rounds())))
	p := newPool(t)
	var away [3]*away
	for i, r := range p.relays {
		away[i] = putAway(t, r)
		r.run(t)
	}
	g := p.addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)

	last, incumbent := rounds()[len(rounds())-1], ""
	for _, r := range rounds() {
		for i, d := range r.away {
			away[i].move(d)
		}
		d := g.undisturbed(r, incumbent)
		d.expect(t, r, incumbent)
		var ping struct{ Relay string }
		g.manager(&ping, "ping", g.name, "--count", "1", "--json") // a session, whose relay is the next incumbent
		if ping.Relay != r.want {
			t.Fatalf("%s: the session takes %s, want %s", r.name, ping.Relay, r.want)
		}
		incumbent = ping.Relay
	}
	mark := agent.mark()
	forward := echoMachine(t)
	tech, addrs := g.connect(t, forward)
	tech.await(0, "session up via relay "+last.want)
	agent.await(mark, "relay="+last.want)
	tool, err := useForward(addrs[0], outer)
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	took, err := tool.trip(outer)
	if least := last.away[0].tech + last.away[0].device; err != nil || took < least {
		t.Errorf("to the machine and back in %v, want at least the relay's %v: %v", took, least, err)
	}
	t.Logf("over %s to the machine and back in %v", last.want, took.Round(time.Millisecond))
}

// undisturbed has both ends measure, again when the machine that plays all this was too busy for it to look as the round
// says. Each answer's arithmetic must be right.
func (g *gateway) undisturbed(r round, incumbent string) (d decision) {
	g.t.Helper()
	for began := time.Now(); time.Since(began) < 3*outer; {
		d = decision{}
		g.manager(&d, "relays", g.name, "--json")
		d.expectScores(g.t)
		if d.near(r) && (incumbent == "" || d.ahead(incumbent) == [2]bool{r.third, r.by10}) {
			return d
		}
		g.t.Logf("%s: measured again: %s", r.name, d)
	}
	g.t.Fatalf("%s: it is never measured so", r.name)
	return d
}

func (d decision) String() string {
	text, err := json.Marshal(d)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// near reports whether both ends have measured about what the relays are away: nothing is faster, a little may be slower.
func (d decision) near(r round) bool {
	const tolerance = 10 * time.Millisecond
	fits := func(m *measured, away time.Duration) bool {
		if m == nil || m.Reason != "" || m.Loss != 0 || !slices.Contains(ports, strconv.Itoa(m.Port)) {
			return false
		}
		more := time.Duration(m.RTT*float64(time.Millisecond)) - away
		return more >= 0 && more <= tolerance
	}
	for _, relay := range d.Relays {
		n, err := strconv.Atoi(relay.Name[len("rs"):])
		if err != nil || !fits(relay.Manager, r.away[n-1].tech) || !fits(relay.Runtime, r.away[n-1].device) {
			return false
		}
	}
	return len(d.Relays) == len(r.away)
}

// ahead reports by which margins of access §8 the best of the others is better than the incumbent.
func (d decision) ahead(incumbent string) [2]bool {
	mine, best := math.Inf(1), math.Inf(1)
	for _, r := range d.Relays {
		if r.Name == incumbent {
			mine = r.Score
		} else {
			best = min(best, r.Score)
		}
	}
	return [2]bool{3*best <= 2*mine, best+10 <= mine}
}

// expectScores wants the scores to be what access §8 makes of the numbers.
func (d decision) expectScores(t *testing.T) {
	t.Helper()
	for _, r := range d.Relays {
		if r.Manager == nil || r.Runtime == nil || r.Manager.Reason+r.Runtime.Reason != "" {
			continue // it has no score of its own
		}
		want := 50 * float64(r.Pipes) / float64(max(r.Max, 1))
		for _, m := range []*measured{r.Manager, r.Runtime} {
			want += m.RTT + 2*m.Jitter + 10*m.Loss
		}
		if math.Abs(r.Score-want) > 0.01 {
			t.Errorf("%s: score %v, want %v: %s", r.Name, r.Score, want, d)
		}
	}
}

// expect wants the round's decision, and a reason for every loser.
func (d decision) expect(t *testing.T, r round, incumbent string) {
	t.Helper()
	if d.Chosen != r.want || d.Incumbent != incumbent {
		t.Errorf("%s: chosen %q after %q, want %q after %q: %s", r.name, d.Chosen, d.Incumbent, r.want, incumbent, d)
	}
	for i, relay := range d.Relays {
		won := relay.Name == r.want
		if won != (relay.Verdict == "chosen") || !won && relay.Verdict != "lost" || won != (relay.Reason == "") {
			t.Errorf("%s: %s is %q: %q", r.name, relay.Name, relay.Verdict, relay.Reason)
		}
		if i > 0 && relay.Score < d.Relays[i-1].Score {
			t.Errorf("%s: not the best first: %s", r.name, d)
		}
		t.Logf("%s: %s %.1f + %.1f ms, score %.1f, %s: %s", r.name, relay.Name, relay.Manager.RTT, relay.Runtime.RTT, relay.Score,
			relay.Verdict, relay.Reason)
	}
}
