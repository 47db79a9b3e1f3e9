//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/agent/clock"
	"hawser/board/boardtest"
	"hawser/server"
)

// A server whose clock is four years ahead (its time key ends after five) takes a gateway with it: floor, identity
// and store are of then. Once the clock is right the operator brings all of it back,
// and no hand touches the gateway.
func TestAGatewayComesBackFromAServersWrongClock(t *testing.T) {
	t.Attr("id", "K11")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stopDNS, stopAccess := w.resolver(), w.accessServer()
		tech, o := w.technician(), w.gateway()
		defer tech.Close()
		device, err := tech.AddDevice(t.Context(), "press 4")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Enroll(t.Context(), o, agent.EnrollOptions{Code: parsed(t, device.Code)}); err != nil {
			t.Fatal(err)
		}
		stopAccess()
		w.now = func() time.Time { return time.Now().AddDate(4, 0, 0) }
		stopAccess = w.accessServer()
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		online := func() bool { return a.Status().State == agent.StateAttached }
		w.within(10*time.Second, "a wrong clock: online at that time", online)
		if ahead := time.Until(a.Status().Since); ahead < 3*365*24*time.Hour {
			t.Fatalf("only %v ahead: this shows nothing", ahead)
		}

		// The clock is put right. The gateway's own restarts do not help.
		stopAccess()
		w.now = nil
		right := time.Now()
		stopAccess = w.server(accessAddr, func(c *server.Config) { c.Relay, c.Access.ClockSet = nil, right })
		time.Sleep(time.Hour)
		stopAgent()
		o.Board = boardtest.New(time.Now())
		if a, err = agent.New(o); err != nil {
			t.Fatal(err)
		}
		stopAgent = w.task("agent", a.Run)
		for range 20 {
			time.Sleep(3 * time.Minute)
			if online() {
				t.Fatal("online with a floor in the future")
			}
		}

		signed, err := server.SignFloorReset(server.ResetOptions{Dir: filepath.Dir(w.made.Config), UID: device.UID.String(), To: right.Format(time.RFC3339)})
		if err != nil {
			t.Fatal(err)
		}
		w.within(7*time.Minute, "floor reset: online", online)
		if st := a.Status(); st.Clock.State != clock.Authentic || st.Clock.FloorReset == nil || time.Since(st.Since).Abs() > 10*time.Minute {
			t.Errorf("status %+v", st)
		}

		// The file stays for a while: nothing comes of it a second time.
		stopAgent()
		if a, err = agent.New(o); err != nil {
			t.Fatal(err)
		}
		stopAgent = w.task("agent", a.Run)
		w.within(10*time.Second, "restarted: online", online)
		if st := a.Status().Clock; st.FloorReset != nil {
			t.Errorf("the same reset was taken again: %+v", st)
		}
		if err := os.Remove(signed.File); err != nil {
			t.Error(err)
		}
		for _, stop := range []func(){stopAgent, stopAccess, stopDNS} {
			stop()
		}
	})
}
