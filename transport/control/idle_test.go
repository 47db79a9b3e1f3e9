package control

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// idle runs f with a link that serves, whose heartbeat is a minute, and returns how it was lost.
func idleLink(t *testing.T, h Handler, f func(s *site, l *Link)) (lost Loss) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := s.link(ctx)
		wait := run(ctx, l, h)
		f(s, l)
		wait()
		lost = l.Lost()
		s.net.Heal(clientAddr, serverAddr)
	})
	return lost
}

// The server waits for the first ping within its own heartbeat: only a ping can tell it of a longer interval.
func TestPaceCountsFromTheNextPingOn(t *testing.T) {
	for _, tt := range []struct {
		pace time.Duration
		want []time.Duration // when pings come
		says time.Duration
	}{
		{10 * time.Second, []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second}, 10 * time.Second},
		{5 * time.Minute, []time.Duration{time.Minute, 6 * time.Minute, 11 * time.Minute}, 5 * time.Minute},
		{time.Second, []time.Duration{4 * time.Second, 8 * time.Second, 12 * time.Second}, 4 * time.Second},
		{time.Hour, []time.Duration{time.Minute, 21 * time.Minute, 41 * time.Minute}, 20 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.access.Welcome.HeartbeatS = 60
			ctx, cancel := context.WithCancel(t.Context())
			l := s.link(ctx)
			l.Pace(tt.pace)
			begin := time.Now()
			wait := run(ctx, l, Handler{})
			time.Sleep(tt.want[2] + time.Second)
			var at []time.Duration
			for _, p := range s.got(wire.TypePing)[:3] {
				at = append(at, p.At.Sub(begin))
				if next, _ := p.PingInterval(); next != tt.says {
					t.Errorf("pace %v: a ping announces %v", tt.pace, next)
				}
			}
			if !slices.Equal(at, tt.want) {
				t.Errorf("pace %v: pings after %v, want %v", tt.pace, at, tt.want)
			}
			cancel()
			wait()
		})
	}
}

func TestIdleTimesThatWereSurvivedAreTold(t *testing.T) {
	var got []time.Duration
	h := Handler{Survived: func(idle time.Duration) { got = append(got, idle) }}
	idleLink(t, h, func(s *site, l *Link) {
		time.Sleep(2*time.Minute + time.Second) // two pings
		time.Sleep(20 * time.Second)
		wire.Write(s.access.Newest(), wire.TypeMeasure, nil) // 21 s after the last ping
		time.Sleep(9 * time.Second)
		l.Measurements(wire.Measurements{}) // 9 s later
		time.Sleep(31 * time.Second)        // the next ping, 30 s later
		l.Busy(true)
		time.Sleep(20 * time.Second) // nothing of a busy link
		s.access.Drop()
	})
	if want := []time.Duration{time.Minute, time.Minute, 21 * time.Second, 30 * time.Second}; !slices.EqualFunc(got, want, near) {
		t.Errorf("survived %v, want %v", got, want)
	}
}

// near allows for the latency of the test's network.
func near(a, b time.Duration) bool { return (a - b).Abs() < 200*time.Millisecond }

func TestLossTellsHowIdleTheLinkWas(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(s *site, l *Link)
		want Loss
	}{
		"closed":                {func(s *site, l *Link) { time.Sleep(50 * time.Second); s.access.Drop() }, Loss{50 * time.Second, false}},
		"closed after a ping":   {func(s *site, l *Link) { time.Sleep(70 * time.Second); s.access.Drop() }, Loss{10 * time.Second, false}},
		"reset":                 {func(s *site, l *Link) { time.Sleep(50 * time.Second); s.net.Cut(clientAddr, serverAddr) }, Loss{50 * time.Second, false}},
		"silent from the start": {func(s *site, l *Link) { s.net.Stall(clientAddr, serverAddr) }, Loss{time.Minute, true}},
		"silent later":          {func(s *site, l *Link) { time.Sleep(130 * time.Second); s.net.Stall(clientAddr, serverAddr) }, Loss{time.Minute, true}},
		"a ping is answered by a reset": {func(s *site, l *Link) {
			time.Sleep(50 * time.Second)
			s.net.Stall(clientAddr, serverAddr)
			time.Sleep(11 * time.Second)
			s.net.Cut(clientAddr, serverAddr)
		}, Loss{time.Minute, true}},
		"measurements were sent meanwhile": {func(s *site, l *Link) {
			time.Sleep(20 * time.Second)
			l.Measurements(wire.Measurements{})
			time.Sleep(30 * time.Second)
			s.access.Drop()
		}, Loss{30 * time.Second, false}},
		"busy": {func(s *site, l *Link) { l.Busy(true); time.Sleep(time.Minute); s.access.Drop() }, Loss{}},
		"the network has changed": {func(s *site, l *Link) {
			time.Sleep(50 * time.Second)
			s.net.Stall(clientAddr, serverAddr)
			l.Probe()
		}, Loss{}},
		"the network has changed, and that was survived": {func(s *site, l *Link) {
			time.Sleep(50 * time.Second)
			l.Probe()
			time.Sleep(5 * time.Second)
			s.access.Drop()
		}, Loss{5 * time.Second, false}},
	} {
		if got := idleLink(t, Handler{}, tt.end); got.Silent != tt.want.Silent || !near(got.Idle, tt.want.Idle) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// A way that is closed without a word is found within the interval and ten seconds.
func TestPongMayTakeTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		l := s.link(t.Context())
		wait := run(t.Context(), l, Handler{})
		time.Sleep(61 * time.Second)
		s.net.Stall(clientAddr, serverAddr)
		closed := time.Now()
		if at, err := wait(); transport.ReasonOf(err) != transport.LinkLost || at.Sub(closed) > 70*time.Second {
			t.Errorf("%v after %v", err, at.Sub(closed))
		}
		s.net.Heal(clientAddr, serverAddr)
	})
}
