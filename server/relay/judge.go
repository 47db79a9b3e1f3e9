package relay

import (
	"crypto/x509"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

// A claim is what one end shows when it joins.
type claim struct {
	chain []*x509.Certificate // as TLS received it: possession of the leaf's key is proven, nothing else
	join  wire.Join
}

// The law is what claims are judged by.
type law struct {
	roots    *identity.Roots
	relay    string // the own name
	instance string // the own process
	now      time.Time
}

// An admission is a claim that was found good: who it is and what for.
type admission struct {
	peer  identity.Peer
	grant grant.Grant
}

// judge says whether an end may join (wire §5.1). It holds nothing and asks
// nobody: whether the grant was used and whether the key was revoked is for
// used and table, which change with what they answer. The error is always a
// *transport.Error; when the certificate is good but the rest is not, the
// admission says whose it was.
func judge(c claim, l law) (admission, error) {
	var a admission
	peer, err := verifyClient(c.chain, l)
	if err != nil {
		return a, err
	}
	a.peer = peer
	if c.join.Crypto != wire.CryptoNested {
		return a, refuse(transport.Unsupported, "check join: crypto")
	}
	g, err := grant.Parse(c.join.Grant, l.roots, l.now)
	if err != nil {
		return a, asError(err, "parse grant")
	}
	a.grant = g
	switch {
	case g.Relay != l.relay || g.Instance != l.instance:
		return a, refuse(transport.GrantAudience, "check grant: audience")
	case g.Holder != peer.SPKI:
		return a, refuse(transport.GrantHolder, "check grant: holder")
	case g.Crypto != c.join.Crypto:
		return a, refuse(transport.Unsupported, "check grant: crypto is not the join's")
	case kindOf(g.Role) != peer.Name.Kind:
		return a, refuse(transport.WrongKind, fmt.Sprintf("check grant: role %q", g.Role))
	}
	return a, nil
}

// verifyClient says who shows a chain: only devices and users come to a relay.
func verifyClient(chain []*x509.Certificate, l law) (identity.Peer, error) {
	if len(chain) == 0 {
		return identity.Peer{}, refuse(transport.NotEnrolled, "verify client: no certificate")
	}
	peer, err := identity.Verify(chain, l.roots, l.now, identity.KindDevice, identity.KindUser)
	if err != nil {
		return identity.Peer{}, &transport.Error{Reason: transport.ReasonOf(err), Op: "verify client", Err: err}
	}
	return peer, nil
}

// kindOf is who takes a role: no grant makes a device of a user.
func kindOf(r wire.Role) identity.Kind {
	switch r {
	case wire.RoleRuntime:
		return identity.KindDevice
	case wire.RoleManager:
		return identity.KindUser
	}
	return ""
}

// nameEachOther reports whether each grant's holder is the
// other's peer (wire §5.1).
func nameEachOther(a, b grant.Grant) bool {
	return a.Holder == b.Peer && b.Holder == a.Peer
}

func refuse(r transport.Reason, op string) *transport.Error {
	return &transport.Error{Reason: r, Op: op}
}

func asError(err error, op string) *transport.Error {
	if e, ok := err.(*transport.Error); ok { // itself: what wraps one says more
		return e
	}
	return &transport.Error{Reason: transport.ReasonOf(err), Op: op, Err: err}
}
