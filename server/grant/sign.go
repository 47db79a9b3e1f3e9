package grant

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"hawser/identity"
	"hawser/transport/wire"
)

const (
	headerType = "hawser-grant" // header typ: a token made for something else is no grant
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
	Crypto      wire.Crypto   `json:"crypto"`
}

// Signer signs grants with the grant key of an Access Server. Cert is that
// key's certificate (identity §4), which travels in every grant. It is safe
// for concurrent use if Key is.
type Signer struct {
	Key  crypto.Signer // Ed25519
	Cert *x509.Certificate
}

// Sign returns g as a signed token. It fills nothing in: id and times are the
// caller's. Fractions of a second are cut off.
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
		Permissions: g.Permissions, Crypto: g.Crypto,
	})
	t.Header["typ"] = headerType
	t.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(s.Cert.Raw)}
	token, err := t.SignedString(s.Key)
	if err != nil {
		return "", fmt.Errorf("sign grant: %w", err)
	}
	return token, nil
}
