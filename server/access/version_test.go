package access

import (
	"testing"
	"testing/synctest"

	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// older is what a Runtime says whose program knows the first version of sessions only.
func older() wire.Hello { return wire.Hello{Version: "1.0.0", Instance: "01"} }

// Of two programs that cannot speak with each other one has to be updated, and the answer names it (session §1). It is
// the same from a node that does not have the device.
func TestSessionNeedsItsVersionAtBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		_, offer := p.session()
		p.runtime.Close()
		want := func(w *world, path string, body any, text string) {
			t.Helper()
			response, raw := w.callRaw(p.admin, "POST", path, body)
			var problem api.Problem
			if err := unmarshal(raw, &problem); err != nil {
				t.Fatal(err)
			}
			if problem.Code != transport.Unsupported || problem.Detail != text {
				t.Errorf("%s: %d %+v, want unsupported: %s", path, response.StatusCode, problem, text)
			}
		}
		p.runtime = p.control(p.device, older())
		synctest.Wait()
		for _, w := range []*world{p.world, p.second} {
			for _, version := range []int{0, 1, 3} {
				want(w, "/api/v1/sessions", api.SessionRequest{Device: "press 1", SessionVersion: version}, "update hawser")
			}
			want(w, "/api/v1/sessions", api.SessionRequest{Device: "press 1", SessionVersion: 2}, "update hawser-agent of press 1")
			want(w, "/api/v1/sessions/"+offer.Session+"/move", api.MoveRequest{Epoch: 1, Reason: transport.LinkLost},
				"update hawser-agent of "+p.device.id.UID.String())
		}
		p.runtime.Close()
		p.runtime = p.control(p.device, hello("01"))
		synctest.Wait()
		p.session()
	})
}
