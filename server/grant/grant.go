// Package grant is the session grant: what an Access Server signs and a relay checks alone.
//
// A grant is a JWT (RFC 7519) of one fixed form (access §5). It is no bearer token: it names the key that may use it,
// the relay process that may accept it and the other end of the session. Its form may grow new claims; a relay ignores
// those that it does not know.
//
//	token, err := signer.Sign(grant.Grant{…})     // Access Server
//	g, err := grant.Parse(token, roots, now)      // relay, which then checks audience, holder and single use
package grant

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hawser/identity"
	"hawser/transport/wire"
)

// Life is how long a grant may be used, Leeway how far the clocks of an Access Server and a relay may differ (access
// §5).
const (
	Life   = 60 * time.Second
	Leeway = 10 * time.Second
)

// Grant is the permission of one end to join one session at one relay process (access §5). Times are whole seconds, as
// in RFC 7519 §2.
type Grant struct {
	ID              string // random, 128 bit, hex: single use
	Relay, Instance string // audience: the relay's name and the id of its running process
	Session         string
	Epoch           int // from 1
	Role            wire.Role
	Holder, Peer    identity.SPKI // the key that may use it; the key of the other end
	Permissions     []string
	Issued, Expires time.Time
}

const (
	headerType = "hawser-grant" // header typ: so that a token of another kind is never taken for a grant
	separator  = "/"            // of RELAY/INSTANCE; neither can contain it
	maxBytes   = 8 << 10        // what a join frame can carry (wire §2.2)
	minIDBytes = 16
	maxIDBytes = 64
)

// claims is the body of a grant, in the order of access §5.
type claims struct {
	jwt.RegisteredClaims // jti, iat, exp, aud

	Session     string        `json:"session"`
	Epoch       int           `json:"epoch"`
	Role        wire.Role     `json:"role"`
	Holder      identity.SPKI `json:"holder"`
	Peer        identity.SPKI `json:"peer"`
	Permissions []string      `json:"permissions"`
}

// Signer signs grants with the grant key of an Access Server. Cert is that key's certificate (identity §4), which
// travels in every grant. It is safe for concurrent use if Key is.
type Signer struct {
	Key  crypto.Signer // Ed25519
	Cert *x509.Certificate
}

// Sign returns g as a signed token. It adds nothing: the caller sets id and times. Fractions of a second are cut off.
func (s Signer) Sign(g Grant) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        g.ID,
			IssuedAt:  jwt.NewNumericDate(g.Issued),
			ExpiresAt: jwt.NewNumericDate(g.Expires),
			Audience:  jwt.ClaimStrings{g.Relay + separator + g.Instance},
		},
		Session: g.Session, Epoch: g.Epoch, Role: g.Role,
		Holder: g.Holder, Peer: g.Peer,
		Permissions: g.Permissions,
	})
	t.Header["typ"] = headerType
	t.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(s.Cert.Raw)}
	token, err := t.SignedString(s.Key)
	if err != nil {
		return "", fmt.Errorf("sign grant: %w", err)
	}
	return token, nil
}
