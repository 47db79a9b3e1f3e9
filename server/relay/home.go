package relay

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/wire"
)

// The files of a relay's directory.
const (
	keyFile      = "relay.key"
	identityFile = "identity.pem"
	codeFile     = "code"

	maxFileBytes = 64 << 10
)

// home is a relay's directory, private to it.
type home string

func (h home) path(name string) string { return filepath.Join(string(h), name) }

// key returns the relay's key. It is made once, before the first enrollment, so that a
// repeated enrollment gets the same identity again.
func (h home) key() (crypto.Signer, error) { return credential.MakeKey(h.path(keyFile)) }

// identity returns the stored identity, or fs.ErrNotExist if there is no certificate. If
// only the key is missing, it is an error and no key is made.
func (h home) identity() (c credential.Credential, err error) {
	if c.Chain, err = credential.Load(h.path(identityFile), identity.ParseChain); err != nil {
		return c, err
	}
	if c.Key, err = credential.Load(h.path(keyFile), identity.ParseKey); err != nil {
		return c, fmt.Errorf("the key of %s: %v", h.path(identityFile), err) // without fs.ErrNotExist, which would mean that nothing is stored
	}
	return c, nil
}

func (h home) keepIdentity(chain []*x509.Certificate) error {
	return credential.Write(string(h), credential.ChainFile(identityFile, chain, credential.Private))
}

// code returns the activation code that somebody has put there; zero when
// there is none.
func (h home) code() (code identity.Code, err error) {
	b, err := durable.ReadPrivate(h.path(codeFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return code, nil
	}
	if err == nil && len(bytes.TrimSpace(b)) > 0 {
		if code, err = identity.ParseCode(string(b)); err != nil {
			err = fmt.Errorf("read %s: %w", h.path(codeFile), err)
		}
	}
	return code, err
}

func (h home) forgetCode() error {
	err := os.Remove(h.path(codeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget activation code: %w", err)
	}
	return nil
}

// own is the relay's identity. It is never changed, only replaced. So it can be read without a lock for each handshake.
type own struct {
	name        identity.Name
	certificate tls.Certificate
	chain       []*x509.Certificate
	renewAt     time.Time
}

// newOwn checks that c is a relay's and, unless that is empty, of this name.
// Its dates are not checked: an expired one can still be renewed (access §3).
func newOwn(c credential.Credential, roots *identity.Roots, name string) (*own, error) {
	peer, err := c.Verify(roots, identity.KindRelay)
	if err != nil {
		return nil, fmt.Errorf("verify identity: %w", err)
	}
	if name != "" && name != peer.Name.ID {
		return nil, refuse(transport.WrongName, fmt.Sprintf("verify identity: it is relay %s's, the configuration says %s", peer.Name.ID, name))
	}
	return &own{name: peer.Name, certificate: c.TLS(), chain: c.Chain, renewAt: credential.RenewAt(c.Chain[0])}, nil
}

// load reads the identity from the directory. It is no error if there is none yet.
func (s *Server) load() error {
	if err := durable.OpenDir(string(s.home)); err != nil {
		return err
	}
	if err := credential.LoadRefused(string(s.home), s.config.Roots); err != nil {
		return err
	}
	stored, err := s.home.identity()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	o, err := newOwn(stored, s.config.Roots, s.config.Name)
	if err != nil {
		return err
	}
	s.adopt(o)
	return s.home.forgetCode() // a power cut may have left it beside the identity
}

// adopt makes o the relay's identity from now on.
func (s *Server) adopt(o *own) {
	if s.own.Swap(o) == nil {
		close(s.enrolled)
	}
}

// take verifies an identity from a server, and stores it.
func (h home) take(answer wire.Identity, key crypto.Signer, roots *identity.Roots, name string) (*own, error) {
	chain, err := identity.ParseChain([]byte(answer.Chain))
	if err != nil {
		return nil, fmt.Errorf("read identity from server: %w", err)
	}
	o, err := newOwn(credential.Credential{Key: key, Chain: chain}, roots, name)
	if err != nil {
		return nil, err
	}
	return o, h.keepIdentity(chain)
}
