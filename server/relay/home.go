package relay

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hawser/identity"
	"hawser/internal/durable"
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

// key returns the relay's key, which is made once, before the first enrolment:
// one that is asked for twice with the same key gets the same identity again.
func (h home) key() (crypto.Signer, error) {
	pem, err := durable.ReadPrivate(h.path(keyFile), maxFileBytes)
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
	return key, durable.WriteFile(h.path(keyFile), pem, 0o600)
}

// identity returns the stored certificate and its chain; a missing one is
// fs.ErrNotExist.
func (h home) identity() ([]*x509.Certificate, error) {
	pem, err := durable.ReadPrivate(h.path(identityFile), maxFileBytes)
	if err != nil {
		return nil, err
	}
	chain, err := identity.ParseChain(pem)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h.path(identityFile), err)
	}
	return chain, nil
}

func (h home) keepIdentity(chain []*x509.Certificate) error {
	return durable.WriteFile(h.path(identityFile), identity.MarshalChain(chain), 0o600)
}

// code returns the activation code as it was given; empty when there is none.
func (h home) code() (string, error) {
	b, err := durable.ReadPrivate(h.path(codeFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

func (h home) forgetCode() error {
	err := os.Remove(h.path(codeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget activation code: %w", err)
	}
	return nil
}
