package mux

import (
	"fmt"
	"testing"
	"time"
)

const (
	slowRate = 100e3  // 100 KB/s
	fastRate = 12.5e6 // 100 Mbit/s
)

// simTime is how long a rate is simulated, after 10 s of warm-up; each frame costs the same computing.
func simTime(rate float64) time.Duration {
	if rate > 10*slowRate {
		return 10 * time.Second
	}
	return time.Minute
}

// eachLine runs f for each rate and each round trip that the window was made for.
func eachLine(t *testing.T, f func(t *testing.T, rate float64, rtt time.Duration)) {
	for _, rate := range []float64{slowRate, fastRate} {
		for _, rtt := range []time.Duration{20 * ms, 100 * ms, 300 * ms} {
			t.Run(fmt.Sprintf("%.0fKBps/%v", rate/1000, rtt), func(t *testing.T) { f(t, rate, rtt) })
		}
	}
}

// result is what an end's own direction has carried.
type result struct {
	throughput float64       // bytes a second
	share      float64       // of the rate
	queue      time.Duration // median of what its data waited on the line
	keys       time.Duration // median of what a keystroke took beyond the way
	frame      time.Duration // one frame's time on the line
}

// measure runs the line for d and returns what each end has carried meanwhile.
func (s *sim) measure(rtt, d time.Duration) (list [2]result) {
	for _, e := range s.ends {
		e.forget()
	}
	s.run(d)
	for i, e := range s.ends {
		r := result{throughput: float64(e.peer.delivered) / d.Seconds(), queue: quantile(e.queues, .5)}
		r.share = r.throughput / e.out.rate
		r.keys = max(quantile(e.keyTimes, .5)-rtt/2, 0)
		r.frame = time.Duration(float64(e.w.frame()+headerBytes) / e.out.rate * float64(time.Second))
		list[i] = r
	}
	return list
}

// want checks one direction.
func (r result) want(t *testing.T, name string, share float64, queue time.Duration) {
	t.Helper()
	t.Logf("%s: %.1f %% of the line, queue %v, keystroke %v", name, 100*r.share, r.queue.Round(ms), r.keys.Round(ms))
	if r.share < share || r.queue > queue {
		t.Errorf("%s: %.1f %% of the line, want %.0f; queue %v, want %v", name, 100*r.share, 100*share, r.queue, queue)
	}
}

// One stream fills the line, and a keystroke is quick on it: window and credit together.
func TestLineIsFullAndQuick(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		s.ends[0].send()
		s.ends[0].press(210 * ms)
		s.run(10 * time.Second)
		r := s.measure(rtt, simTime(rate))[0]
		r.want(t, "up", 0.9, queueTarget+r.frame)
		if most := 2*queueTarget + r.frame; r.keys > most {
			t.Errorf("a keystroke takes %v more than the way, at most %v", r.keys, most)
		}
	})
}

// At 300 ms each end sends a window's worth in one go, after acks that come in one go: that is what the lines lack.
func TestBothDirectionsAtOnce(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		for _, e := range s.ends {
			e.send()
			e.press(210 * ms)
		}
		s.run(10 * time.Second)
		list := s.measure(rtt, simTime(rate))
		list[0].want(t, "up", 0.55, 75*ms)
		list[1].want(t, "down", 0.55, 75*ms)
	})
}

// With round trips alone the second direction got less than 1 %.
func TestDirectionThatBeginsLaterIsNotStarved(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		s.ends[0].send()
		s.run(10 * time.Second)
		s.ends[1].send()
		s.run(10 * time.Second)
		list := s.measure(rtt, simTime(rate))
		list[0].want(t, "first", 0.65, 75*ms)
		list[1].want(t, "later", 0.4, 75*ms)
	})
}

func TestDirectionsOfDifferentRates(t *testing.T) {
	for _, rtt := range []time.Duration{20 * ms, 100 * ms, 300 * ms} {
		s := newSim(slowRate, 10*slowRate, rtt)
		for _, e := range s.ends {
			e.send()
		}
		s.run(10 * time.Second)
		list := s.measure(rtt, time.Minute)
		list[0].want(t, fmt.Sprint("slow direction, ", rtt), 0.65, 75*ms)
		list[1].want(t, fmt.Sprint("quick direction, ", rtt), 0.65, 75*ms)
	}
}

func TestAcksThatComeLateDoNotMatter(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		s.jitter = 10 * ms
		s.ends[0].send()
		s.run(10 * time.Second)
		r := s.measure(rtt, simTime(rate))[0]
		r.want(t, "up", 0.9, queueTarget+10*ms+r.frame)
	})
}

// A mobile network holds up all that follows, by up to 60 ms in each direction.
func TestJitterOfTheWay(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		for _, e := range s.ends {
			e.out.jitter = 60 * ms
		}
		s.ends[0].send()
		s.run(10 * time.Second)
		r := s.measure(rtt, simTime(rate))[0]
		r.want(t, "up", 0.5, queueTarget+r.frame)
	})
}

// A lost packet holds up what follows for a round trip, and then all of it comes at once. The round after it sees a queue
// that is none.
func TestLossesOfPackets(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		s.ends[0].out.loses = 3100 * ms
		s.ends[0].send()
		s.run(10 * time.Second)
		r := s.measure(rtt, time.Minute)[0]
		r.want(t, "up", 0.85, 2*queueTarget)
	})
}

// Others use three tenths of the line, in bursts that take it for 20 ms each.
func TestCrossTraffic(t *testing.T) {
	eachLine(t, func(t *testing.T, rate float64, rtt time.Duration) {
		s := newSim(rate, rate, rtt)
		s.ends[0].cross(0.3, int(rate/50))
		s.ends[0].send()
		s.run(10 * time.Second)
		r := s.measure(rtt, simTime(rate))[0]
		r.want(t, "up", 0.85*0.7, 3*queueTarget)
	})
}

// Half an hour with clocks that drift by 50 µs a second: three new measurements, and nothing runs away.
func TestClocksThatDrift(t *testing.T) {
	for _, drift := range []float64{50e-6, -50e-6} {
		s := newSim(slowRate, slowRate, 100*ms)
		s.ends[0].drift = drift
		for _, e := range s.ends {
			e.send()
		}
		s.run(28 * time.Minute)
		list := s.measure(100*ms, 2*time.Minute) // just before the next measurement
		list[0].want(t, fmt.Sprintf("drift %v, up", drift), 0.65, 2*queueTarget)
		list[1].want(t, fmt.Sprintf("drift %v, down", drift), 0.65, 2*queueTarget)
	}
}

// A change of the relay's network makes the way longer, or shorter, or the line slower.
func TestLineThatChanges(t *testing.T) {
	s := newSim(10*slowRate, 10*slowRate, 40*ms)
	s.ends[0].send()
	s.run(time.Minute)
	s.ends[0].out.rate = slowRate
	s.run(5 * time.Second)
	s.measure(40*ms, time.Minute)[0].want(t, "a tenth of the rate", 0.9, queueTarget+30*ms)
	s.ends[0].out.rate = 10 * slowRate
	s.run(5 * time.Second)
	s.measure(40*ms, time.Minute)[0].want(t, "the rate again", 0.9, queueTarget+10*ms)
	for _, e := range s.ends {
		e.out.delay += 130 * ms
	}
	s.run(11 * time.Minute)
	s.measure(300*ms, time.Minute)[0].want(t, "a way of 300 ms, measured anew", 0.9, queueTarget+10*ms)
	for _, e := range s.ends {
		e.out.delay = 10 * ms
	}
	// The queue hides how short the way is until it is measured anew.
	s.run(11 * time.Minute)
	s.measure(20*ms, time.Minute)[0].want(t, "a way of 20 ms, measured anew", 0.9, queueTarget+10*ms)
}

// A reader that takes half of what the line carries is not overrun, and its credit does not grow without need.
func TestSlowReaderBoundsTheSender(t *testing.T) {
	s := newSim(10*slowRate, 10*slowRate, 100*ms)
	s.ends[1].read = 2 * slowRate
	s.ends[0].send()
	s.run(10 * time.Second)
	r := s.measure(100*ms, time.Minute)[0]
	if r.throughput < 1.8*slowRate || s.ends[1].c.window() > 256<<10 {
		t.Errorf("%.0f bytes a second with a window of %d", r.throughput, s.ends[1].c.window())
	}
}
