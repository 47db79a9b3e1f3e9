package choose

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// rtt is a measurement without jitter and loss, of a round trip in ms.
func rtt(ms float64) *Measurement {
	return &Measurement{Measurement: wire.Measurement{RTTUS: int64(ms * 1000), Port: 443, Way: "direct"}}
}

func failure(r transport.Reason) *Measurement {
	return &Measurement{Measurement: wire.Measurement{Reason: r}}
}

// relay is a contender measured by both ends; load: pipes and max.
func relay(name string, manager, runtime *Measurement, load ...int) Relay {
	c := Relay{Name: name, Manager: manager, Runtime: runtime}
	if len(load) == 2 {
		c.Load = wire.Load{Pipes: load[0], Max: load[1]}
	}
	return c
}

// show returns a decision as "r1 20.0 chosen; r2 40.0 lost: why".
func show(d api.Decision) string {
	var lines []string
	for _, r := range d.Relays {
		line := fmt.Sprintf("%s %.1f %s", r.Name, r.ScoreMS, r.Verdict)
		if r.Reason != "" {
			line += ": " + r.Reason
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestChoose(t *testing.T) {
	jittery := &Measurement{Measurement: wire.Measurement{RTTUS: 10_000, JitterUS: 4_000, LossPct: 20}}
	cases := []struct {
		name            string
		incumbent, lost string
		relays          []Relay
		want            string
	}{
		{"none is online", "r1", "", nil, ""},
		{"nothing is known", "", "", []Relay{relay("r2", nil, nil), relay("r1", nil, nil)},
			"r1 2000.0 chosen; r2 2000.0 lost: equal to r1"},
		{"the least sum of both ends", "", "", []Relay{relay("r1", rtt(30), rtt(40)), relay("r2", rtt(60), rtt(5)), relay("r3", rtt(31), rtt(50))},
			"r2 65.0 chosen; r1 70.0 lost: 5.0 ms more than r2; r3 81.0 lost: 16.0 ms more than r2"},
		{"good for one end only", "", "", []Relay{relay("r1", rtt(1), rtt(200)), relay("r2", rtt(200), rtt(1)), relay("r3", rtt(60), rtt(60))},
			"r3 120.0 chosen; r1 201.0 lost: 81.0 ms more than r3; r2 201.0 lost: 81.0 ms more than r3"},
		{"jitter counts twice, loss ten times", "", "", []Relay{relay("r1", jittery, rtt(10)), relay("r2", rtt(200), rtt(20))},
			"r2 220.0 chosen; r1 228.0 lost: 8.0 ms more than r2"},
		{"unreachable for the Manager", "", "", []Relay{relay("r1", failure(transport.Timeout), rtt(1)), relay("r2", rtt(300), rtt(300))},
			"r2 600.0 chosen; r1 1001.0 out: the Manager could not reach it: timeout"},
		{"unreachable for the Runtime", "r1", "", []Relay{relay("r1", rtt(1), failure(transport.Refused)), relay("r2", rtt(300), nil)},
			"r2 1300.0 chosen; r1 1001.0 out: the Runtime could not reach it: refused"},
		{"unreachable, but there is no other", "", "", []Relay{relay("r1", rtt(1), failure(transport.Timeout)), relay("r2", rtt(1), rtt(1), 9, 9)},
			"r1 1001.0 chosen; r2 52.0 out: carries its maximum of 9"},
		{"unmeasured by one end", "", "", []Relay{relay("r1", rtt(1), nil), relay("r2", rtt(400), rtt(400)), relay("r3", nil, rtt(2))},
			"r2 800.0 chosen; r1 1001.0 lost: not measured by the Runtime; r3 1002.0 lost: not measured by the Manager"},
		{"full", "r1", "", []Relay{relay("r1", rtt(1), rtt(1), 100, 100), relay("r2", rtt(90), rtt(90), 99, 100)},
			"r2 229.5 chosen; r1 52.0 out: carries its maximum of 100"},
		{"all are full", "r1", "", []Relay{relay("r1", rtt(1), rtt(1), 7, 5)},
			"r1 52.0 out: carries its maximum of 5"},
		{"load decides among equals", "", "", []Relay{relay("r1", rtt(10), rtt(10), 50, 100), relay("r2", rtt(10), rtt(10), 10, 100)},
			"r2 25.0 chosen; r1 45.0 lost: 20.0 ms more than r2"},
		{"load can only count against", "", "", []Relay{relay("r1", rtt(10), rtt(10), -500, 100), relay("r2", rtt(10), rtt(10), 5, -1), relay("r3", rtt(9), rtt(10))},
			"r3 19.0 chosen; r1 20.0 lost: 1.0 ms more than r3; r2 20.0 lost: 1.0 ms more than r3"},
		{"failed in a move", "r1", "r1", []Relay{relay("r1", rtt(1), rtt(1)), relay("r2", rtt(200), rtt(200))},
			"r2 400.0 chosen; r1 2.0 out: the session has just lost it"},
		{"failed in a move, but there is no other", "r1", "r1", []Relay{relay("r1", rtt(1), rtt(1)), relay("r2", failure(transport.DNS), rtt(1))},
			"r1 2.0 chosen; r2 1001.0 out: the Manager could not reach it: dns"},
		{"the name breaks a tie", "", "", []Relay{relay("r3", rtt(5), rtt(5)), relay("r2", rtt(4), rtt(6)), relay("r4", rtt(5), rtt(5))},
			"r2 10.0 chosen; r3 10.0 lost: equal to r2; r4 10.0 lost: equal to r2"},
		{"the incumbent is offline", "r9", "", []Relay{relay("r1", rtt(5), rtt(5)), relay("r2", rtt(4), rtt(5))},
			"r2 9.0 chosen; r1 10.0 lost: 1.0 ms more than r2"},
		{"the incumbent keeps a tie", "r3", "", []Relay{relay("r1", rtt(5), rtt(5)), relay("r3", rtt(5), rtt(5))},
			"r1 10.0 lost: equal to r3; r3 10.0 chosen"},
	}
	for _, c := range cases {
		d := Decide(Input{Incumbent: c.incumbent, Lost: c.lost, Relays: c.relays})
		if got := show(d); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if d.Incumbent != c.incumbent || (d.Chosen == "") != !strings.Contains(c.want, "chosen") {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	t.Attr("id", "A2-choice")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

// Rounds of measuring: what is chosen in one is the incumbent of the next.
func TestChooseMovesOnlyByBothMargins(t *testing.T) {
	rounds := []struct {
		name   string
		r1, r2 float64 // sums of both ends in ms
		want   string
	}{
		{"the first", 100, 130, "r1"},
		{"noise", 104, 97, "r1"},
		{"noise the other way", 99, 133, "r1"},
		{"10 ms better, not two thirds", 100, 68, "r1"},
		{"nearly two thirds", 100, 67, "r1"},
		{"two thirds", 99, 66, "r2"},
		{"noise", 80, 99, "r2"},
		{"r1 is best, not by enough", 67, 99, "r2"},
		{"r1 is best by enough", 66, 99, "r1"},
		{"both are near", 12, 2.1, "r1"},
		{"both are near, r2 by 10 ms", 12, 2, "r2"},
		{"r1 takes nothing", 0, 9.9, "r2"},
		{"r1 takes nothing, r2 10 ms", 0, 10, "r1"},
		{"far away", 900, 601, "r1"},
		{"far away by a third", 900, 600, "r2"},
	}
	incumbent := ""
	for i, r := range rounds {
		d := Decide(Input{Incumbent: incumbent, Relays: []Relay{
			relay("r1", rtt(r.r1/3), rtt(r.r1*2/3), 0, 100), relay("r2", rtt(r.r2/2), rtt(r.r2/2), 0, 100)}})
		if d.Chosen != r.want {
			t.Errorf("round %d, %s: %s", i, r.name, show(d))
		}
		incumbent = d.Chosen
	}
	t.Attr("id", "A2-choice")
	t.Attr("cases", fmt.Sprint(len(rounds)))
}

// randomInput has every kind of relay, with numbers close enough to meet the
// margins.
func randomInput(r *rand.Rand) Input {
	in := Input{Device: identity.UID{1}, At: time.Unix(0, 0).UTC()}
	one := func() *Measurement {
		switch r.Intn(8) {
		case 0:
			return nil
		case 1:
			return failure(transport.Timeout)
		}
		m := rtt(float64(r.Intn(80)))
		m.JitterUS, m.LossPct = int64(r.Intn(3))*1000, r.Intn(2)
		return m
	}
	for i := range r.Intn(6) {
		in.Relays = append(in.Relays, relay(fmt.Sprintf("r%d", i), one(), one(), r.Intn(14)-2, r.Intn(14)-2))
	}
	in.Incumbent, in.Lost = fmt.Sprintf("r%d", r.Intn(7)), fmt.Sprintf("r%d", r.Intn(12))
	return in
}

func TestChooseHoldsForAnyInput(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 5000 {
		in := randomInput(r)
		d := Decide(in)
		byName := make(map[string]candidate)
		fit := 0
		for _, c := range in.Relays {
			r := rate(c, in.Lost)
			if byName[c.Name] = r; r.class < justLost {
				fit++
			}
		}
		for _, c := range d.Relays {
			if (c.Verdict == api.VerdictChosen) != (c.Name == d.Chosen) || (c.Reason == "") != (c.Name == d.Chosen) {
				t.Fatalf("%+v: %s", in, show(d))
			}
		}
		chosen, incumbent := byName[d.Chosen], byName[in.Incumbent]
		if fit > 0 && chosen.class != 0 {
			t.Fatalf("one that is out was chosen: %s", show(d))
		}
		better := chosen.score+10_000 <= incumbent.score && 3*chosen.score <= 2*incumbent.score
		if incumbent.Name != "" && incumbent.class == chosen.class && d.Chosen != "" && d.Chosen != in.Incumbent && !better {
			t.Fatalf("%s gave way to less than both margins: %s", in.Incumbent, show(d))
		}
		shuffled := in
		shuffled.Relays = slices.Clone(in.Relays)
		r.Shuffle(len(shuffled.Relays), func(i, j int) {
			shuffled.Relays[i], shuffled.Relays[j] = shuffled.Relays[j], shuffled.Relays[i]
		})
		if again := Decide(shuffled); !reflect.DeepEqual(again, d) {
			t.Fatalf("the order counts: %s, %s", show(d), show(again))
		}
		loaded := in
		loaded.Relays = slices.Clone(in.Relays)
		for i := range loaded.Relays {
			c := &loaded.Relays[i]
			c.Load.Pipes += r.Intn(3)
			if more := rate(*c, ""); more.score < rate(in.Relays[i], "").score || more.class < rate(in.Relays[i], "").class {
				t.Fatalf("more load made %+v better", *c)
			}
		}
	}
}
