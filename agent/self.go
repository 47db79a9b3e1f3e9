package agent

import (
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
	"hawser/internal/durable"
)

// Self is the Runtime's own identity as it is stored. It has not been verified
// against the time; the servers do that.
type Self struct {
	Name  identity.Name
	UID   identity.UID
	SPKI  identity.SPKI
	Roots *identity.Roots
	Cert  tls.Certificate // chain and key; Leaf is set
	Label string          // the operator's name of the device; known right after enrolment alone
}

// self loads the identity. The error is ErrNotEnrolled when there is none.
func (s *store) self() (*Self, error) { return readSelf(s.dir) }

// readSelf loads the identity in a state directory and makes nothing there.
func readSelf(dir string) (*Self, error) {
	chainPEM, err := durable.ReadPrivate(filepath.Join(dir, identityFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, err
	}
	rootPEM, err := durable.ReadPrivate(filepath.Join(dir, rootFile), maxFileBytes)
	if err != nil {
		return nil, err
	}
	roots, err := identity.ParseRoots(rootPEM)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, rootFile), err)
	}
	key, err := readKey(dir)
	if err != nil {
		return nil, err
	}
	return newSelf(chainPEM, key, roots)
}

func readKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, keyFile)
	b, err := durable.ReadPrivate(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	key, err := identity.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return key, nil
}

// key returns the device's key for its enrolment; it makes and stores one the
// first time.
func (s *store) key() (crypto.Signer, error) {
	key, err := readKey(s.dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	b, err := identity.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, keyFile), b, 0o600); err != nil {
		return nil, err
	}
	return key, nil
}

// newSelf checks that a chain is the identity of a device with this key under
// these roots, whatever the date.
func newSelf(chainPEM []byte, key crypto.Signer, roots *identity.Roots) (*Self, error) {
	chain, err := identity.ParseChain(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	peer, err := identity.VerifyIgnoringDates(chain, roots, identity.KindDevice)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	own, err := identity.SPKIOf(key.Public())
	if err == nil && own != peer.SPKI {
		err = errors.New("the certificate is for another key")
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	uid, err := identity.ParseUID(peer.Name.ID)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return &Self{Name: peer.Name, UID: uid, SPKI: peer.SPKI, Roots: roots,
		Cert: tls.Certificate{Certificate: raw(chain), PrivateKey: key, Leaf: chain[0]}}, nil
}

func raw(chain []*x509.Certificate) [][]byte {
	list := make([][]byte, len(chain))
	for i, c := range chain {
		list[i] = c.Raw
	}
	return list
}

// saveIdentity stores the roots first: identity.pem is the commit.
func (s *store) saveIdentity(chainPEM []byte, roots *identity.Roots) error {
	if err := durable.WriteFile(filepath.Join(s.dir, rootFile), roots.PEM(), 0o600); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.dir, identityFile), chainPEM, 0o600)
}

// IdentityInfo is what identity show prints (cli §2). Without an identity all
// but Enrolled is zero.
type IdentityInfo struct {
	UID       string    `json:"uid"`
	Domain    string    `json:"domain"`
	SPKI      string    `json:"spki_sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Enrolled  bool      `json:"enrolled"`
}

// ShowIdentity tells whose identity lies in a state directory. It makes nothing
// there. That there is none is no error; an identity that is damaged is.
func ShowIdentity(dir string) (IdentityInfo, error) {
	self, err := readSelf(dir)
	if errors.Is(err, ErrNotEnrolled) {
		return IdentityInfo{}, nil
	}
	if err != nil {
		return IdentityInfo{}, fmt.Errorf("show identity in %s: %w", dir, err)
	}
	leaf := self.Cert.Leaf
	return IdentityInfo{self.UID.String(), self.Name.Domain, self.SPKI.String(), leaf.NotBefore.UTC(), leaf.NotAfter.UTC(), true}, nil
}

// Reset removes the identity in a state directory and all that belongs to it, in
// an order that leaves no half of one after a power cut: identity.pem, the
// commit, goes first and the key next. What is missing is no error. The caller
// sees to it that no agent runs there.
func Reset(dir string) error {
	for _, f := range []string{identityFile, keyFile, rootFile, stateSlots + ".0", stateSlots + ".1"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reset identity: %w", err)
		}
	}
	return nil
}
