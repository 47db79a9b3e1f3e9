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

// A request is what one end shows when it joins.
type request struct {
	chain []*x509.Certificate // as TLS received it: possession of the leaf's key is proven, nothing else
	join  wire.Join
}

// The policy is what requests are checked against.
type policy struct {
	roots    *identity.Roots
	relay    string // name of this relay
	instance string // of this process
	now      time.Time
}

// joined is an accepted request: who joins, and for which session.
type joined struct {
	peer  identity.Peer
	grant grant.Grant
}

// judge decides whether an end may join (wire §5.1). It is pure: whether the grant was
// used and whether the key is revoked is checked by used and pairing, which change.
// The error is always a *transport.Error. If the certificate is good and the rest is
// not, the result says whose it is.
func judge(r request, p policy) (joined, error) {
	var a joined
	peer, err := verifyClient(r.chain, p)
	if err != nil {
		return a, err
	}
	a.peer = peer
	g, err := grant.Parse(r.join.Grant, p.roots, p.now)
	if err != nil {
		return a, asError(err, "parse grant")
	}
	a.grant = g
	switch {
	// The instance is what makes "used once" true over a restart, in which the memory of used grants is lost.
	case g.Relay != p.relay || g.Instance != p.instance:
		return a, refuse(transport.GrantAudience, "check grant: audience")
	// A grant that was copied on its way is of no use without the holder's key.
	case g.Holder != peer.SPKI:
		return a, refuse(transport.GrantHolder, "check grant: holder")
	case kindOf(g.Role) != peer.Name.Kind:
		return a, refuse(transport.WrongKind, fmt.Sprintf("check grant: role %q", g.Role))
	}
	return a, nil
}

// verifyClient verifies the chain of a client, which is a device or a user.
func verifyClient(chain []*x509.Certificate, p policy) (identity.Peer, error) {
	if len(chain) == 0 {
		return identity.Peer{}, refuse(transport.NotEnrolled, "verify client: no certificate")
	}
	peer, err := identity.Verify(chain, p.roots, p.now, identity.KindDevice, identity.KindUser)
	if err != nil {
		return identity.Peer{}, &transport.Error{Reason: transport.ReasonOf(err), Op: "verify client", Err: err}
	}
	return peer, nil
}

// kindOf is the kind of identity that may take a role.
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
	if e, ok := err.(*transport.Error); ok { // not one that is wrapped: the wrapping has more to say
		return e
	}
	return &transport.Error{Reason: transport.ReasonOf(err), Op: op, Err: err}
}
