package agent

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/accesstest"
)

func TestLimitsAreRead(t *testing.T) {
	l := DefaultLimits()
	if err := (rawLimits{Streams: "100", PerTarget: "8", Targets: []string{"192.168.10.30=2", "192.168.10.0/24 = 40", "2001:db8::/64=3"}, Memory: "64"}).check(&l); err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]int{"192.168.10.30": 2, "192.168.10.31": 40, "10.0.0.1": 8, "2001:db8::7": 3} {
		if got := l.of(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %d, want %d", a, got, want)
		}
	}
	if l.Streams != 100 || l.Memory != 64<<20 {
		t.Errorf("%+v", l)
	}
	for want, raw := range map[string]rawLimits{
		"limits.streams":    {Streams: "0"},
		"want a number":     {Streams: "many"},
		"1 to 65535":        {PerTarget: "65536"},
		"limits.per_target": {PerTarget: "-1"},
		"limits.targets":    {Targets: []string{"192.168.10.30=0"}},
		"ADDRESS=NUMBER":    {Targets: []string{"192.168.10.30"}},
		"bits set":          {Targets: []string{"192.168.10.30/24=3"}},
		"IPv4 written":      {Targets: []string{"::ffff:10.0.0.1=3"}},
		"not an address":    {Targets: []string{"plc=3"}},
		"limits.memory_mb":  {Memory: "15"},
	} {
		if err := raw.check(new(Limits)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", raw, err, want)
		}
	}
}

func TestStreamsFitIntoTheDescriptors(t *testing.T) {
	for descriptors, want := range map[int]int{0: 352, 1 << 20: 352, 416: 352, 415: 351, 128: 64, 64: 16, 40: 10, 1: 1} {
		got, why := DefaultLimits().streams(descriptors)
		if got != want || (why == nil) != (want == 352) {
			t.Errorf("with %d descriptors %d streams, %v; want %d", descriptors, got, why, want)
		}
		if why != nil && !strings.HasSuffix(why.Error(), "to 416") {
			t.Errorf("%v does not say how many it needs", why)
		}
	}
}

// Few descriptors never raise what the owner has set.
func TestFewDescriptorsLeaveASmallLimit(t *testing.T) {
	if got, why := (Limits{Streams: 10}).streams(70); got != 10 || why != nil {
		t.Errorf("%d, %v; want 10", got, why)
	}
}

func TestConnectionsOfAMachineAreCounted(t *testing.T) {
	var c connections
	a, b := netip.MustParseAddr("192.168.10.20"), netip.MustParseAddr("192.168.10.21")
	for i, want := range []bool{true, true, false, false} {
		if got := c.take(a, 2); got != want {
			t.Errorf("connection %d: %v", i, got)
		}
	}
	if !c.take(b, 1) {
		t.Error("another machine's connections count")
	}
	if c.give(a); !c.take(a, 2) || c.take(a, 2) {
		t.Error("one that has ended is not given again")
	}
	c.give(a)
	c.give(a)
	if c.give(b); len(c.open) > 0 {
		t.Errorf("%v are left", c.open)
	}
}

// A machine that takes two connections gets no third one, whoever asks, and a dial counts as well.
func TestAMachineGetsNoMoreConnectionsThanItsOwnerSays(t *testing.T) {
	fit := func(r *rig) {
		r.opts.Config.Limits = DefaultLimits()
		r.opts.Config.Limits.PerTarget = 2
	}
	attachedRigWith(t, fit, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		one, two := m.open(l, p, "s1", "tcp"), m.open(l, p, "s2", "tcp")
		first, reason := openTCP(r, one, "192.168.10.20:502")
		if reason != "" {
			t.Fatal(reason)
		}
		if _, reason := openTCP(r, two, "192.168.10.20:502"); reason != "" {
			t.Fatal(reason)
		}
		for range 3 {
			if _, reason := openTCP(r, two, "192.168.10.20:502"); reason != transport.Busy {
				t.Errorf("a third one: %q", reason)
			}
		}
		if _, reason := openTCP(r, two, "192.168.10.21:502"); reason != transport.Timeout {
			t.Errorf("another machine: %q", reason)
		}
		first.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if _, reason := openTCP(r, one, "192.168.10.20:502"); reason != "" {
			t.Errorf("when one has ended: %q", reason)
		}
	})
}

func TestFewDescriptorsAreToldOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Board.Descriptors = func() int { return 100 }
		p := r.start()
		p.await(StateEnroll, time.Minute)
		if got := strings.Join(p.Status().Troubles, "; "); !strings.Contains(got, "file descriptors: the system gives this program 100") {
			t.Errorf("troubles %q", got)
		}
		if n := r.notes.count("few file descriptors"); n != 1 || p.sessions.most != 36 {
			t.Errorf("said %d times; %d streams", n, p.sessions.most)
		}
		p.stop(20 * time.Second)
	})
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"192.168.10.20=8", "2001:db8::/64=3", "10.0.0.0/8 = 65535", "=", "::ffff:1.2.3.4=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseLimit(s)
		if err == nil && (l.Most < 1 || l.Most > 65535 || !l.Network.IsValid() || l.Network != l.Network.Masked()) {
			t.Errorf("%q is %+v", s, l)
		}
	})
}
