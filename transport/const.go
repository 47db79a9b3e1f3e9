package transport

import "time"

// From wire §1.2: the ALPN protocols.
const (
	ALPNAccess  = "hawser-access/1"
	ALPNRelay   = "hawser-relay/1"
	ALPNAPI     = "hawser-api/1"
	ALPNSession = "hawser-session/2"
	ALPNNode    = "hawser-node/1"
)

// Ours to tune: the search for a way out (wire §8).
const (
	maxTCP    = 6 // connects in flight
	maxTLS    = 2 // handshakes in flight, not counting those older than slotTime
	maxMemory = 64

	// After this a silent handshake gives its slot away, and a silent hello gets its small form beside it. It was 4 s,
	// the whole time-out: behind two silent ports all others then waited that long.
	slotTime      = 1500 * time.Millisecond
	minStagger    = 250 * time.Millisecond // between two attempts
	goodHeadStart = 2 * time.Second        // during which only the last good candidate is tried
	goodJoins     = 1800 * time.Millisecond
	restTime      = 10 * time.Minute // how long a candidate that failed is tried last
	otherWays     = 2 * time.Second  // after which proxies join the direct candidates, or the other way round

	// Time-outs of one attempt. They double with each search that found nothing,
	// up to the factor maxPatience, so that a slower path is found in the end. 5 s let two lost SYNs be sent again
	// (after 1 s and 3 s); a connect that needs a third one waits for the next search.
	tcpTimeout   = 5 * time.Second
	tlsTimeout   = 4 * time.Second
	proxyTimeout = 10 * time.Second // for the answer of a proxy
	maxPatience  = 4
)

// From wire §8.1: the small form.
const (
	// smallSegment is the MSS of the small form: with 40 bytes of IPv6 and 32 of TCP
	// it fits through the least MTU of IPv6, with 48 bytes left for a tunnel.
	smallSegment = 1160
	smallTime    = 24 * time.Hour
)
