package relay

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport/wire"
)

// The files of a relay's directory.
const (
	keyFile      = "relay.key"
	identityFile = "identity.pem"
	codeFile     = "code"

	maxFileBytes = 64 << 10
)

// own is the relay's own identity. It is never changed, only replaced.
type own struct {
	name        identity.Name
	certificate tls.Certificate
	renewAt     time.Time
}

// newOwn checks that chain is a relay's, for this key. Dates do not matter: an
// expired one can still be renewed (access §3).
func newOwn(chain []*x509.Certificate, key crypto.Signer, roots *identity.Roots) (*own, error) {
	peer, err := identity.VerifyIgnoringDates(chain, roots, identity.KindRelay)
	if err != nil {
		return nil, fmt.Errorf("verify identity: %w", err)
	}
	spki, err := identity.SPKIOf(key.Public())
	if err != nil {
		return nil, fmt.Errorf("verify identity: %w", err)
	}
	if spki != peer.SPKI {
		return nil, errors.New("verify identity: certificate is for another key")
	}
	o := &own{name: peer.Name, certificate: tls.Certificate{PrivateKey: key, Leaf: chain[0]}}
	for _, c := range chain {
		o.certificate.Certificate = append(o.certificate.Certificate, c.Raw)
	}
	o.renewAt = renewAt(chain[0].NotBefore, chain[0].NotAfter)
	return o, nil
}

// renewAt is half of the life, ±10 %, so that relays which enrolled together do
// not come back together (access §3).
func renewAt(notBefore, notAfter time.Time) time.Time {
	half := notAfter.Sub(notBefore) / 2
	return notBefore.Add(half - half/10 + random(half/5))
}

// load reads the identity from the directory; having none yet is no error.
func (s *Server) load() error {
	if err := durable.OpenDir(s.config.Dir); err != nil {
		return err
	}
	pem, err := durable.ReadPrivate(s.path(identityFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	chain, err := identity.ParseChain(pem)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path(identityFile), err)
	}
	key, err := s.key()
	if err != nil {
		return err
	}
	if err := s.adopt(chain, key); err != nil {
		return err
	}
	return s.forgetCode() // a cut may have come between storing the one and removing the other
}

// adopt makes chain the identity that the relay shows from now on.
func (s *Server) adopt(chain []*x509.Certificate, key crypto.Signer) error {
	o, err := newOwn(chain, key, s.config.Roots)
	if err != nil {
		return err
	}
	if s.own.Swap(o) == nil {
		close(s.enrolled)
	}
	return nil
}

// key returns the relay's key, which is made once, before the first enrolment:
// one that is asked for twice with the same key gets the same identity again.
func (s *Server) key() (crypto.Signer, error) {
	pem, err := durable.ReadPrivate(s.path(keyFile), maxFileBytes)
	if err == nil {
		return identity.ParseKey(pem)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	if pem, err = identity.MarshalKey(key); err != nil {
		return nil, err
	}
	return key, durable.WriteFile(s.path(keyFile), pem, 0o600)
}

// code returns the activation code as it was given; empty when there is none.
func (s *Server) code() (string, error) {
	if s.config.Code != "" {
		return s.config.Code, nil
	}
	b, err := durable.ReadPrivate(s.path(codeFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// enrol exchanges the activation code for an identity (wire §4.1), stores it
// and forgets the code.
func (s *Server) enrol(ctx context.Context, code string) error {
	key, err := s.key()
	if err != nil {
		return err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return err
	}
	conn, err := s.client.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := conn.Enrol(ctx, wire.Enrol{Code: code, CSR: csr})
	if err != nil {
		return err
	}
	if err := s.take(answer, key); err != nil {
		return err
	}
	return s.forgetCode()
}

func (s *Server) forgetCode() error {
	err := os.Remove(s.path(codeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget activation code: %w", err)
	}
	return nil
}

// renew gets a new certificate for the same key (wire §4.2).
func (s *Server) renew(ctx context.Context) error {
	key := s.own.Load().certificate.PrivateKey.(crypto.Signer)
	csr, err := identity.NewCSR(key)
	if err != nil {
		return err
	}
	conn, err := s.client.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := conn.Renew(ctx, wire.Renew{CSR: csr})
	if err != nil {
		return err
	}
	return s.take(answer, key)
}

// take verifies an identity that a server sent, stores it and adopts it.
func (s *Server) take(answer wire.Identity, key crypto.Signer) error {
	chain, err := identity.ParseChain([]byte(answer.Chain))
	if err != nil {
		return fmt.Errorf("read identity from server: %w", err)
	}
	if _, err := newOwn(chain, key, s.config.Roots); err != nil {
		return err
	}
	if err := durable.WriteFile(s.path(identityFile), identity.MarshalChain(chain), 0o600); err != nil {
		return err
	}
	return s.adopt(chain, key)
}

func (s *Server) path(name string) string { return filepath.Join(s.config.Dir, name) }
