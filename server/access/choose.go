package access

import (
	"strings"

	"hawser/transport"
)

// candidate is what is known of an online relay when one is chosen.
type candidate struct {
	name     string
	sessions int // that it carries now
}

// decision says which relay carries a session, and why (access §5.1).
type decision struct {
	relay  string           // empty when there is none
	reason transport.Reason // no-relay then
	text   string           // for the audit log
}

// choose decides on the relay of a session: the one with the fewest sessions,
// the first by name among equals. It is pure.
func choose(relays []candidate) decision {
	if len(relays) == 0 {
		return decision{reason: transport.NoRelay, text: "no relay is online"}
	}
	best := relays[0]
	for _, r := range relays[1:] {
		if r.sessions < best.sessions || r.sessions == best.sessions && strings.Compare(r.name, best.name) < 0 {
			best = r
		}
	}
	return decision{relay: best.name, text: "fewest sessions"}
}
