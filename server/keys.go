package server

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
)

const maxPEMBytes = 64 << 10

// The keys of an Access Server by the names of their files, NAME.key and
// NAME.pem (identity §4).
const (
	issuingName = "issuing"
	timeName    = "time"
	grantName   = "grant"
	rootName    = "root"
)

// A keyPair is a key of this server and the certificates for it, leaf first.
type keyPair struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

// savePair writes a pair to dir, which must be there.
func savePair(dir, name string, p keyPair) error {
	pem, err := identity.MarshalKey(p.key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, name+".key"), pem, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name+".pem"), identity.MarshalChain(p.chain), 0o644)
}

// loadPair reads a pair, whose key nobody else may be able to read, and checks
// that they belong together.
func loadPair(dir, name string) (p keyPair, err error) {
	file := filepath.Join(dir, name)
	b, err := durable.ReadPrivate(file+".key", maxPEMBytes)
	if err != nil {
		return p, err
	}
	if p.key, err = identity.ParseKey(b); err != nil {
		return p, fmt.Errorf("read %s.key: %w", file, err)
	}
	if p.chain, err = loadChain(file + ".pem"); err != nil {
		return p, err
	}
	spki, err := identity.SPKIOf(p.key.Public())
	if err != nil {
		return p, fmt.Errorf("read %s.key: %w", file, err)
	}
	if spki != identity.CertSPKI(p.chain[0]) {
		return p, fmt.Errorf("read %s.pem: it certifies another key than %s.key", file, name)
	}
	return p, nil
}

// accessKeys are what an Access Server signs with.
type accessKeys struct {
	issuing, time, grant keyPair
}

// loadAccessKeys reads those of the Access Server name, and checks that all of it
// is under roots, now.
func loadAccessKeys(dir string, name identity.Name, roots *identity.Roots, now time.Time) (k accessKeys, err error) {
	if k.issuing, err = loadPair(dir, issuingName); err != nil {
		return k, err
	}
	if k.time, err = loadPair(dir, timeName); err != nil {
		return k, err
	}
	if k.grant, err = loadPair(dir, grantName); err != nil {
		return k, err
	}
	if _, err := identity.VerifyGrantKey(k.grant.chain[0], roots, now); err != nil {
		return k, fmt.Errorf("verify grant key: %w", err)
	}
	if err := signsTime(k.time, name, roots, now); err != nil {
		return k, fmt.Errorf("verify time key: %w", err)
	}
	if err := issues(k.issuing, roots, now); err != nil {
		return k, fmt.Errorf("verify issuing key: %w", err)
	}
	return k, nil
}

// signsTime checks that what a time key signs verifies under roots, for clients
// of the Access Server name.
func signsTime(p keyPair, name identity.Name, roots *identity.Roots, now time.Time) error {
	b, err := identity.SignedTime{Time: now}.Sign(p.key, p.chain[0])
	if err != nil {
		return err
	}
	_, err = identity.VerifySignedTime(b, roots, [32]byte{}, identity.Peer{Name: name}, identity.UID{})
	return err
}

// issues checks that what an issuing key signs verifies under roots: it issues
// a certificate for a moment and throws it away.
func issues(p keyPair, roots *identity.Roots, now time.Time) error {
	if len(p.chain) < 2 {
		return errors.New("its root is not with it")
	}
	chain, err := authority(p).Issue(identity.Request{
		Name: identity.RelayName("check"), Pub: p.key.Public(), NotBefore: now, NotAfter: now.Add(time.Minute),
	})
	if err != nil {
		return err
	}
	_, err = identity.Verify(chain, roots, now, identity.KindRelay)
	return err
}

func authority(p keyPair) *identity.Authority {
	return &identity.Authority{Cert: p.chain[0], Key: p.key, Chain: p.chain[1:]}
}

func chainOf(certs ...*x509.Certificate) []*x509.Certificate { return certs }

func loadChain(path string) ([]*x509.Certificate, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	chain, err := identity.ParseChain(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return chain, nil
}

// loadRoots reads the pinned roots, which are no secret.
func loadRoots(path string) (*identity.Roots, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return roots, nil
}

// readFile reads a file that others may read too, of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEMBytes+1))
	if err == nil && len(b) > maxPEMBytes {
		err = fmt.Errorf("read %s: %w", path, durable.ErrTooLarge)
	}
	return b, err
}
