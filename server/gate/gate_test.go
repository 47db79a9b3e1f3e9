package gate

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func from(addr string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(addr), Port: 1} }

func TestWhoLosesAPlaceIsCutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("tests", Limits{2, 2, 2}, nil)
		cuts := 0
		first := g.Enter(from("192.0.2.1"), func() { cuts++ })
		second := g.Enter(from("192.0.2.1"), func() { t.Error("the second was cut") })
		third := g.Enter(from("192.0.2.2"), nil)
		if first == nil || second == nil || third == nil || cuts != 1 {
			t.Fatalf("places %v %v %v, cuts %d", first, second, third, cuts)
		}
		first.Leave()
		first.Progress()
		if p := g.Enter(from("192.0.2.3"), nil); p != nil {
			t.Error("a place that was taken was left again")
		}
		second.Leave()
		if p := g.Enter(from("192.0.2.3"), nil); p == nil {
			t.Error("a place that was left is not free")
		}
		var none *Place
		none.Progress()
		none.Leave()
	})
}

func TestTheLogSaysOnceAMinuteWhoIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		g := New("tests", Limits{3, 2, 2}, slog.New(slog.NewTextHandler(&log, nil)))
		for range 100 {
			g.Enter(from("192.0.2.1"), func() {})
		}
		said := strings.TrimSpace(log.String())
		if strings.Count(said, "\n") != 0 || !strings.Contains(said, "level=WARN") || !strings.Contains(said, "what=tests refused=1 cut=0 addr=192.0.2.1/32") {
			t.Errorf("it says %q", said)
		}
		log.Reset()
		time.Sleep(time.Minute)
		g.Enter(from("192.0.2.1"), func() {}) // takes the place of one that is stuck
		if !strings.Contains(log.String(), "refused=97 cut=1") {
			t.Errorf("a minute later it says %q", &log)
		}
	})
}
