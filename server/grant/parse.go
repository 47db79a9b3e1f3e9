package grant

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// Parse checks everything about a token that needs no state: size, form, algorithm, the grant key's certificate up to
// roots, the signature, and the time now with Leeway. The relay then checks audience, holder and single use.
//
// The error is a *transport.Error with reason grant-expired, or bad-grant for everything else. Parse does not block and
// is safe for concurrent use.
func Parse(token string, roots *identity.Roots, now time.Time) (Grant, error) {
	if len(token) > maxBytes {
		return Grant{}, bad(fmt.Errorf("%d bytes, limit %d", len(token), maxBytes))
	}
	var c claims
	parser := jwt.NewParser(
		// The list of one algorithm comes from here and not from the token: a token that names its own (none, or HMAC
		// with a public key as its secret) is the oldest attack on JWT (RFC 8725 §2.1).
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithTimeFunc(func() time.Time { return now }),
		jwt.WithLeeway(Leeway),
		jwt.WithIssuedAt(),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding(),
	)
	_, err := parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		return grantKey(t.Header, roots, now)
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Grant{}, &transport.Error{Reason: transport.GrantExpired, Op: "check grant", Err: err}
	case err != nil:
		return Grant{}, bad(err)
	}
	g, err := c.grant()
	if err != nil {
		return Grant{}, bad(err)
	}
	return g, nil
}

func bad(err error) error {
	return &transport.Error{Reason: transport.BadGrant, Op: "check grant", Err: err}
}

// grantKey returns the public key of the header's certificate, if roots certify it as a grant key. Until that is
// verified the header is a stranger's input.
func grantKey(header map[string]any, roots *identity.Roots, now time.Time) (any, error) {
	if header["typ"] != headerType {
		return nil, errors.New("typ is not " + headerType)
	}
	chain, _ := header["x5c"].([]any)
	if len(chain) != 1 {
		return nil, errors.New("x5c is not one certificate")
	}
	text, _ := chain[0].(string)
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("decode x5c: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse x5c: %w", err)
	}
	if _, err := identity.VerifyGrantKey(cert, roots, now); err != nil {
		return nil, err
	}
	return cert.PublicKey, nil
}

// grant makes a Grant of the claims, if they have everything that a grant must have. What a correct Access Server never
// leaves out is required: an empty holder or session would otherwise match an empty one elsewhere.
func (c *claims) grant() (Grant, error) {
	if len(c.Audience) != 1 {
		return Grant{}, errors.New("aud is not one relay")
	}
	relay, instance, found := strings.Cut(c.Audience[0], separator)
	switch {
	case !found || relay == "" || instance == "":
		return Grant{}, errors.New("aud is not RELAY/INSTANCE")
	case len(c.ID) < minIDBytes || len(c.ID) > maxIDBytes:
		return Grant{}, errors.New("jti is not an id")
	case c.IssuedAt == nil || c.ExpiresAt.Sub(c.IssuedAt.Time) > Life:
		return Grant{}, errors.New("lives longer than a grant")
	case c.Session == "" || c.Epoch < 1:
		return Grant{}, errors.New("no session or epoch")
	case c.Role != wire.RoleRuntime && c.Role != wire.RoleManager:
		return Grant{}, errors.New("role is neither end of a session")
	case c.Holder.IsZero() || c.Peer.IsZero():
		return Grant{}, errors.New("no holder or no peer")
	}
	return Grant{
		ID: c.ID, Relay: relay, Instance: instance,
		Session: c.Session, Epoch: c.Epoch, Role: c.Role,
		Holder: c.Holder, Peer: c.Peer,
		Permissions: c.Permissions,
		Issued:      c.IssuedAt.UTC(), Expires: c.ExpiresAt.UTC(),
	}, nil
}
