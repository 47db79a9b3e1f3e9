//go:build linux

package lab

import (
	"fmt"
	"testing"
	"time"
)

// A gateway finds the one open port of a site's firewall, and knows it the next time.
func TestAgentFindsTheOpenPort(t *testing.T) {
	const first, again = 8 * time.Second, time.Second
	g := newRig(t).addDevice("press-4")
	g.enroll()
	for _, open := range ports {
		for _, others := range []string{"drop", "reject"} {
			t.Run(open+" open, others "+others, func(t *testing.T) {
				t.Attr("id", "N1")
				firewall(t, "open", open, "--others", others)
				g.forget()
				watch := watchLab()
				searching, found := g.run(t)
				searching.stop()
				remembering, remembered := g.run(t)
				remembering.stop()
				for _, p := range []*process{searching, remembering} {
					p.await(0, fmt.Sprintf("online %s via %s:%s", g.uid, accessName, open))
				}
				watch.Within(t, "online", found, first)
				watch.Within(t, "online the next time", remembered, again)
				t.Logf("online after %v, the next time after %v", found.Round(time.Millisecond), remembered.Round(time.Millisecond))
			})
		}
	}
}
