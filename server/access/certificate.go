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

// serverCertificate is the certificate that the server shows to its clients. The zero value has none. Its lock is held
// while a key is made, so that two handshakes do not make two.
type serverCertificate struct {
	mu      sync.Mutex // guards the rest
	current *tls.Certificate
	spki    identity.SPKI
	renew   time.Time // when half of its life is over
}

// Certificate returns the server's certificate for hawser-access/1 and hawser-api/1: leaf, issuing CA and root, so that
// a client that knows only a root's hash can find it (wire §1.1). It is valid for 30 days and replaced after half of
// them, with a new key: nothing has to be renewed on disk. It blocks only while it makes a key, and may be called for
// each handshake.
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
	made := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		made.Certificate = append(made.Certificate, cert.Raw)
	}
	c.current, c.spki, c.renew = made, identity.CertSPKI(chain[0]), now.Add(serverLife/2)
	return made, nil
}

// leafSPKI returns the key of the certificate that is shown now. TLS does not tell a server which certificate it has
// shown on a connection, so this is called right after the handshake. If the certificate is replaced in between, once
// in two weeks, the client gets a signed time that it refuses, and connects again.
func (s *Server) leafSPKI() (identity.SPKI, error) {
	if _, err := s.Certificate(); err != nil {
		return identity.SPKI{}, err
	}
	s.cert.mu.Lock()
	defer s.cert.mu.Unlock()
	return s.cert.spki, nil
}

// issue certifies a key for a name. The certificate is valid from backdate before now, for clients whose clock is
// behind.
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
