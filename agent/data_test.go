package agent

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
	"hawser/transport/wire"
)

func TestPlanTakesMeasurementsFirstThenTheInterval(t *testing.T) {
	const mb = 1_000_000
	for name, tt := range map[string]struct {
		heartbeat, limit time.Duration
		budget           int64 // MB
		interval         time.Duration
		measure          time.Duration
		short            bool
	}{
		"no budget":                      {2 * time.Minute, 0, 0, 2 * time.Minute, measureIdle, false},
		"no budget, learnt":              {2 * time.Minute, 25 * time.Second, 0, 25 * time.Second, measureIdle, false},
		"enough":                         {2 * time.Minute, 0, 6, 2 * time.Minute, measureIdle, false},
		"enough, learnt":                 {2 * time.Minute, time.Minute, 20, time.Minute, measureIdle, false},
		"measurements once a week":       {2 * time.Minute, 0, 5, 2 * time.Minute, measureAll, false},
		"longer intervals":               {2 * time.Minute, 0, 4, 151 * time.Second, 0, false},
		"much longer intervals":          {2 * time.Minute, 0, 1, 859 * time.Second, 0, false},
		"never beyond what was learnt":   {2 * time.Minute, 25 * time.Second, 4, 25 * time.Second, 0, true},
		"learnt, with some room":         {4 * time.Second, time.Minute, 40, 14 * time.Second, 0, false},
		"a heartbeat longer than needed": {10 * time.Minute, 0, 3, 10 * time.Minute, measureIdle, false},
	} {
		p := planIdle(tt.heartbeat, tt.limit, tt.budget*mb)
		if p.interval.Round(time.Second) != tt.interval || p.measure != tt.measure || (p.over > 0) != tt.short {
			t.Errorf("%s: %+v, %d bytes a month", name, p, p.dayBytes()*monthDays)
		}
		if cost := p.dayBytes() * monthDays; tt.budget > 0 && cost-p.over > tt.budget*mb {
			t.Errorf("%s: costs %d, short of %d, budget %d", name, cost, p.over, tt.budget*mb)
		}
	}
	usual := planIdle(2*time.Minute, 0, 0).dayBytes()
	if usual > 300_000 {
		t.Errorf("an idle day costs %d bytes", usual)
	}
	none := idlePlan{2 * time.Minute, 0, 0}.dayBytes() * monthDays
	if p := planIdle(2*time.Minute, 0, none); p.measure != 0 || p.interval != 2*time.Minute || p.over != 0 {
		t.Errorf("with a budget for no measurements: %+v", p)
	}
	if p := planIdle(2*time.Minute, 0, 1); p.interval != longestIdle || p.over != p.dayBytes()*monthDays-1 {
		t.Errorf("with no budget to speak of: %+v", p)
	}
}

func TestMonthIsThirtyDaysLikeThisOne(t *testing.T) {
	p := planIdle(2*time.Minute, 0, 0)
	for _, tt := range []struct {
		counted int64
		span    time.Duration
		want    int64
	}{
		{0, 0, p.dayBytes() * 30}, {200_000, 24 * time.Hour, 6_000_000}, {100_000, 12 * time.Hour, (100_000 + p.dayBytes()/2) * 30},
	} {
		if got := month(tt.counted, tt.span, p); got < tt.want-30 || got > tt.want+30 {
			t.Errorf("%d in %v: %d, want %d", tt.counted, tt.span, got, tt.want)
		}
	}
}

func TestMeterForgetsWhatIsOlderThanADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meter
		m.add(1000)
		for hour := range 100 {
			time.Sleep(time.Hour)
			m.add(10)
			bytes, span := m.day()
			want := int64(1000 + 10*(hour+1))
			if hour >= 23 {
				want = 240
			}
			if bytes != want || span > dayTime || span < min(dayTime, time.Duration(hour)*time.Hour)-time.Hour {
				t.Errorf("after %d hours: %d in %v, want %d", hour+1, bytes, span, want)
			}
		}
		time.Sleep(1000 * time.Hour)
		if bytes, _ := m.day(); bytes != 0 {
			t.Errorf("after a long silence: %d", bytes)
		}
	})
}

func TestBytesAreCountedAsOnTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		v6 := netip.MustParseAddr("2001:db8::1")
		server := n.Host(accessAddr)
		server.AddAddr(v6)
		n.Host(agentAddr).AddAddr(netip.MustParseAddr("2001:db8::7"))
		defer must(server.Serve(443, func(c net.Conn) { io.Copy(c, c) }))(t).Stop()
		var m meter
		dial := m.counting(n.Host(agentAddr).DialContext)
		counted := func() (bytes int64) {
			bytes, _ = m.day()
			m.hours = [24]int64{}
			return bytes
		}
		for host, extra := range map[netip.Addr]int64{accessAddr: 0, v6: 3 * ipv6Bytes} {
			c := must(dial(t.Context(), "tcp", netip.AddrPortFrom(host, 443).String()))(t)
			if got := counted(); got != openBytes {
				t.Errorf("a connect: %d bytes", got)
			}
			c.Write(make([]byte, 30)) // a ping as a TLS record; a pong is 4 bytes less
			io.ReadFull(c, make([]byte, 30))
			if got := counted(); got != exchangeBytes+4+extra {
				t.Errorf("%v: a ping and a pong of its size: %d bytes, want %d", host, got, exchangeBytes+4+extra)
			}
			c.Close()
			c.Close()
			if got := counted(); got != closeBytes {
				t.Errorf("two closes: %d bytes", got)
			}
		}
		c := must(dial(t.Context(), "udp", netip.AddrPortFrom(accessAddr, 53).String()))(t)
		if _, ok := c.(net.PacketConn); !ok {
			t.Error("a socket of datagrams is none any more")
		}
		c.Write(make([]byte, 48))
		if got := counted(); got != 48+udpBytes {
			t.Errorf("a datagram: %d bytes", got)
		}
		c.Close()
		must(dial(uncounted(t.Context()), "tcp", netip.AddrPortFrom(accessAddr, 443).String()))(t).Close()
		if got := counted(); got != 0 {
			t.Errorf("a session: %d bytes", got)
		}
		if _, err := dial(t.Context(), "tcp", netip.AddrPortFrom(accessAddr, 80).String()); err == nil {
			t.Error("a closed port is open")
		}
	})
}

// The gateway with a budget pings as rarely as that wants, and the server, which is told, waits.
func TestBudgetStretchesTheInterval(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.opts.Config.Budget = 3_000_000
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		want := planIdle(2*time.Minute, 0, 3_000_000).interval
		time.Sleep(2 * time.Hour)
		list := r.access.Heard(wire.TypePing)
		if first := list[1].At.Sub(list[0].At); first != want {
			t.Errorf("two pings are %v apart, want %v", first, want)
		}
		if next, _ := list[0].PingInterval(); next != want || p.Status().State != StateAttached {
			t.Errorf("announces %v, now %s", next, p.Status().State)
		}
		if st := p.Status().Data; st.BudgetBytes != 3_000_000 || st.OverBytes != 0 || st.IntervalS != int(want/time.Second) || st.MonthBytes > 3_500_000 {
			t.Errorf("status %+v", st)
		}
		p.stop(time.Second)
	})
}
