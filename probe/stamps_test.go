package probe

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Properties of the time arithmetic over the whole space of 64-bit stamps. What
// real servers say of it is a narrow strip around today.

// anyStamp draws from all stamps but zero, and often from where they break.
func anyStamp(rng *rand.Rand) uint64 {
	edges := []uint64{1, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<63 + 1, 1<<64 - 1<<32, 1<<64 - 1}
	if rng.IntN(4) == 0 {
		return max(1, edges[rng.IntN(len(edges))]+rng.Uint64N(3)-1)
	}
	return max(1, rng.Uint64())
}

// anyTime draws an instant within 500 years of 1970.
func anyTime(rng *rand.Rand) time.Time {
	return time.Unix(rng.Int64N(1<<34)-1<<33, rng.Int64N(1e9))
}

// stampDiff is a−b of two stamps, which an era's end does not disturb.
func stampDiff(a, b uint64) time.Duration {
	d := int64(a - b)
	return time.Duration(d>>32)*time.Second + time.Duration((d&(1<<32-1))*1e9>>32)
}

// queryStub asks a server that says stamp, over a way of rtt, with a local
// clock that shows local.
func queryStub(t *testing.T, stamp uint64, local time.Time, rtt time.Duration) Sample {
	t.Helper()
	p := packet{mode: serverMode, stratum: 2, receive: stamp, xmit: stamp}
	readings := 0
	c := &SNTP{
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return &stubConn{reply: p.encode(), genuine: true}, nil
		},
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{addr1}, nil },
		Now: func() time.Time { // sent, received, and whatever is asked after that
			readings++
			return local.Add(rtt * time.Duration(min(readings-1, 1)))
		},
	}
	return c.Query(t.Context(), "time.example")
}

// Any stamp, near any floor, by any local clock: what is read is that stamp and
// half the round trip, the reading of it that lies nearest to the floor, and no
// local clock enters it.
func TestAnyStampIsReadNearestToTheFloor(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		stamp, floor, local := anyStamp(rng), anyTime(rng), anyTime(rng)
		rtt := time.Duration(rng.Int64N(int64(maxDelay)))
		s := queryStub(t, stamp, local, rtt)
		if s.Err != nil || s.RTT != rtt || !s.Received.Equal(local.Add(rtt)) {
			t.Fatalf("stamp %#x at %v over %v: %+v", stamp, local, rtt, s)
		}
		at := unfold(s.At, floor)
		if d := stampDiff(stampOf(at), stamp) - rtt/2; d.Abs() > 3*time.Nanosecond {
			t.Fatalf("stamp %#x near %v is read as %v, %v off", stamp, floor, at, d)
		}
		if off := at.Unix() - floor.Unix(); off < -1<<31 || off > 1<<31 {
			t.Fatalf("stamp %#x near %v is read as %v: an era away", stamp, floor, at)
		}
		if want := s.At.Sub(s.Received); s.Offset() != want {
			t.Fatalf("offset %v, want %v", s.Offset(), want)
		}
	}
}

// A sample counts exactly when its reading is within [F, C], wherever these lie
// and whatever the stamp.
func TestAStampCountsWithinFloorAndCeilingOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	counted := 0
	for range 20_000 {
		stamp, floor := anyStamp(rng), anyTime(rng)
		if rng.IntN(2) == 0 { // else hardly any would count
			stamp = stampOf(floor.Add(time.Duration(rng.Int64N(int64(20*year))))) | 1
		}
		ceiling := floor.AddDate(15, 0, 0)
		s := queryStub(t, stamp, time.Unix(0, 0), 0)
		at := unfold(s.At, floor)
		want := Reason("")
		switch {
		case at.Before(floor):
			want = ReasonBeforeFloor
		case at.After(ceiling):
			want = ReasonBeyondCeiling
		default:
			counted++
		}
		if got := reasonOf(s.Check(floor, ceiling)); got != want {
			t.Fatalf("stamp %#x in [%v, %v]: %q, want %q", stamp, floor, ceiling, got, want)
		}
	}
	if counted < 1000 {
		t.Errorf("only %d counted", counted)
	}
}

// Where in time it happens changes nothing: three that agree are believed and a
// fourth is outvoted, in every era, by every local clock.
func TestCombineIsTheSameInEveryEra(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 5_000 {
		floor, local := anyTime(rng), anyTime(rng)
		truth := floor.Add(time.Duration(rng.Int64N(int64(14 * year))))
		var samples []Sample
		for i, off := range []time.Duration{0, 5 * ms, -5 * ms, time.Hour} {
			after := time.Duration(i) * 700 * ms
			stamp := stampOf(truth.Add(off + after))
			s := queryStub(t, max(1, stamp), local.Add(after), 0)
			s.Source = string(rune('a' + i))
			samples = append(samples, s)
		}
		rng.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
		v := Combine(samples, 4, floor.Add(-time.Minute), floor.AddDate(15, 0, 0))
		if !v.Plausible || len(v.Agreed) != 3 || len(v.Rejected) != 1 || v.Rejected[0].Source != "d" {
			t.Fatalf("at %v, floor %v: %+v", truth, floor, v)
		}
		if off := v.At(local).Sub(truth).Abs(); off > 40*ms {
			t.Fatalf("at %v believes %v", truth, v.At(local))
		}
	}
}

// The packet's own arithmetic: what a server kept back is no way, over the whole
// space and across an era's end, where it is refused instead of believed.
func TestWhatAServerKeepsBackIsNoWay(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 20_000 {
		stamp := anyStamp(rng)
		kept := time.Duration(rng.Int64N(int64(time.Second)))
		receive := stamp - uint64(kept.Seconds()*(1<<32))
		b := packet{mode: serverMode, stratum: 2, receive: receive, xmit: stamp}.encode()
		if binary.BigEndian.Uint64(b[receiveStamp:]) != receive || receive == 0 {
			continue
		}
		readings := 0
		c := &SNTP{
			Dial: func(context.Context, string, string) (net.Conn, error) {
				return &stubConn{reply: b, genuine: true}, nil
			},
			Now: func() time.Time {
				readings++
				return time.Unix(0, 0).Add(time.Second * time.Duration(min(readings-1, 1)))
			},
		}
		s := c.Query(t.Context(), "192.0.2.1")
		if receive > stamp { // the era ended while it kept the packet
			if s.Err == nil {
				t.Fatalf("from %#x to %#x: %+v", receive, stamp, s)
			}
			continue
		}
		if d := (s.RTT - (time.Second - kept)).Abs(); s.Err != nil || d > time.Microsecond {
			t.Fatalf("kept %v of a second: round trip %v, %v", kept, s.RTT, s.Err)
		}
	}
}
