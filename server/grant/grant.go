// Package grant is the session grant: what an Access Server signs and a relay checks alone.
//
// A grant is a JWT (RFC 7519) of one fixed form (access §5). It is no bearer
// token: it names the key that may use it, the relay process that may take it
// and the other end of the session. Its form may grow new claims; a relay
// ignores those that it does not know.
//
//	token, err := signer.Sign(grant.Grant{…})     // Access Server
//	g, err := grant.Parse(token, roots, now)      // relay, which then checks audience, holder and single use
package grant

import (
	"time"

	"hawser/identity"
	"hawser/transport/wire"
)

// Life is how long a grant may be used, Leeway how far the clocks of an Access
// Server and a relay may differ (access §5).
const (
	Life   = 60 * time.Second
	Leeway = 10 * time.Second
)

// Grant is the permission of one end to join one session at one relay process
// (access §5). Times are whole seconds, as in RFC 7519 §2.
type Grant struct {
	ID              string // random, 128 bit, hex: single use
	Relay, Instance string // audience: the relay's name and the id of its running process
	Session         string
	Epoch           int // from 1
	Role            wire.Role
	Holder, Peer    identity.SPKI // the key that may use it; the key of the other end
	Permissions     []string
	Crypto          wire.Crypto
	Issued, Expires time.Time
}
