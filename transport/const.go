package transport

import "time"

// From wire §1.2: the ALPN protocols.
const (
	ALPNAccess  = "hawser-access/1"
	ALPNRelay   = "hawser-relay/1"
	ALPNAPI     = "hawser-api/1"
	ALPNSession = "hawser-session/1"
)

// Ours to tune: the search for a way out (wire §8).
const (
	maxTCP    = 6 // connects in flight
	maxTLS    = 2 // handshakes in flight, not counting those older than slotTime
	maxMemory = 64

	slotTime   = 1500 * time.Millisecond
	minStagger = 250 * time.Millisecond // between two attempts
	goodAlone  = 2 * time.Second        // the last good candidate has the stage for itself
	goodJoins  = 1800 * time.Millisecond
	rest       = 10 * time.Minute // a candidate that failed goes last for so long

	// Time-outs of one attempt. They double with each search that found nothing,
	// up to maxPatience times, so that a path slower than them is found too.
	tcpTimeout  = 5 * time.Second
	tlsTimeout  = 4 * time.Second
	maxPatience = 4
)
