package relay

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/wire"
)

// own is the relay's own identity. It is never changed, only replaced.
type own struct {
	name        identity.Name
	certificate tls.Certificate
	renewAt     time.Time
}

// newOwn checks that chain is a relay's, for this key and, unless that is
// empty, of this name. Dates do not matter: an expired one can still be renewed
// (access §3).
func newOwn(chain []*x509.Certificate, key crypto.Signer, roots *identity.Roots, name string) (*own, error) {
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
	if name != "" && name != peer.Name.ID {
		return nil, refuse(transport.WrongName, fmt.Sprintf("verify identity: it is relay %s's, the configuration says %s", peer.Name.ID, name))
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
	if err := durable.OpenDir(string(s.home)); err != nil {
		return err
	}
	chain, err := s.home.identity()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	key, err := s.home.key()
	if err != nil {
		return err
	}
	o, err := newOwn(chain, key, s.config.Roots, s.config.Name)
	if err != nil {
		return err
	}
	s.adopt(o)
	return s.home.forgetCode() // a cut may have come between storing the one and removing the other
}

// adopt makes o the identity that the relay shows from now on.
func (s *Server) adopt(o *own) {
	if s.own.Swap(o) == nil {
		close(s.enrolled)
	}
}

// take verifies an identity that a server sent and stores it.
func (h home) take(answer wire.Identity, key crypto.Signer, roots *identity.Roots, name string) (*own, error) {
	chain, err := identity.ParseChain([]byte(answer.Chain))
	if err != nil {
		return nil, fmt.Errorf("read identity from server: %w", err)
	}
	o, err := newOwn(chain, key, roots, name)
	if err != nil {
		return nil, err
	}
	return o, h.keepIdentity(chain)
}
