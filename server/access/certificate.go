package access

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"hawser/identity"
)

// ownCertificate is the certificate that the server shows.
type ownCertificate struct {
	mu      sync.Mutex // guards the rest
	current *tls.Certificate
	spki    identity.SPKI
	renew   time.Time // when half of its life is over
}

// Certificate returns the server's certificate for hawser-access/1 and
// hawser-api/1: leaf, issuing CA and root, so that a client that knows only a
// root's hash can find it (wire §1.1). It lives 30 days; after half of that
// there is a new one with a fresh key. It does not block for longer than
// making a key takes, and may be asked for each handshake.
func (s *Server) Certificate() (*tls.Certificate, error) {
	c := &s.cert
	c.mu.Lock()
	defer c.mu.Unlock()
	now := s.now()
	if c.current != nil && now.Before(c.renew) {
		return c.current, nil
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	chain, err := s.issue(s.cfg.Name, key.Public(), serverLife)
	if err != nil {
		return nil, err
	}
	own := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		own.Certificate = append(own.Certificate, cert.Raw)
	}
	c.current, c.spki, c.renew = own, identity.CertSPKI(chain[0]), now.Add(serverLife/2)
	return own, nil
}

// leafSPKI names the key of the certificate that is shown now. TLS does not
// tell a server which certificate a connection has got, so it is asked right
// after the handshake: a connection that straddles the change, once in two
// weeks, gets a signed time that it refuses, and comes back.
func (s *Server) leafSPKI() (identity.SPKI, error) {
	if _, err := s.Certificate(); err != nil {
		return identity.SPKI{}, err
	}
	s.cert.mu.Lock()
	defer s.cert.mu.Unlock()
	return s.cert.spki, nil
}

// issue certifies a key for a name, from a little before now.
func (s *Server) issue(name identity.Name, pub crypto.PublicKey, life time.Duration) ([]*x509.Certificate, error) {
	now := s.now()
	chain, err := s.cfg.Issuing.Issue(identity.Request{
		Name: name, Pub: pub, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
	})
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", name, err)
	}
	return chain, nil
}
