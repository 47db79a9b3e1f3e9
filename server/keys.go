package server

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
)

// The keys of an Access Server by the names of their files, NAME.key and NAME.pem (identity §4).
const (
	issuingName = "issuing"
	timeName    = "time"
	grantName   = "grant"
	rootName    = "root"
)

// savePair writes a key of this server and the certificates for it to dir, which must be there.
func savePair(dir, name string, key crypto.Signer, chain ...*x509.Certificate) error {
	file, err := credential.KeyFile(name+".key", key)
	if err != nil {
		return err
	}
	return credential.Write(dir, file, credential.ChainFile(name+".pem", chain, credential.Public))
}

// loadPair reads a pair, whose key nobody else may be able to read, and checks that they belong together.
func loadPair(dir, name string) (c credential.Credential, err error) {
	file := filepath.Join(dir, name)
	if c.Key, err = credential.Load(file+".key", identity.ParseKey); err != nil {
		return c, err
	}
	if c.Chain, err = credential.LoadPublic(file+".pem", identity.ParseChain); err != nil {
		return c, err
	}
	if err := c.Check(); err != nil {
		return c, fmt.Errorf("read %s.pem and %s.key: %w", file, name, err)
	}
	return c, nil
}

// accessKeys are what an Access Server signs with.
type accessKeys struct {
	issuing, time, grant credential.Credential
}

// loadAccessKeys reads those of the Access Server name, and checks that all of it is under roots, now. All three are
// tried before a port is opened: a key that does not fit would show at the first client, as if it were the client's
// error.
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
	if _, err := identity.VerifyGrantKey(k.grant.Chain[0], roots, now); err != nil {
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

// signsTime checks that what a time key signs verifies under roots, for clients of the Access Server name. It signs a
// time and verifies it as a client would: a client believes only the time key of the very server that it asked.
func signsTime(p credential.Credential, name identity.Name, roots *identity.Roots, now time.Time) error {
	b, err := identity.SignedTime{Time: now}.Sign(p.Key, p.Chain[0])
	if err != nil {
		return err
	}
	_, err = identity.VerifySignedTime(b, roots, [32]byte{}, identity.Peer{Name: name}, identity.UID{})
	return err
}

// issues checks that what an issuing key signs verifies under roots: it issues a certificate for a moment and throws it
// away.
func issues(p credential.Credential, roots *identity.Roots, now time.Time) error {
	if len(p.Chain) < 2 {
		return errors.New("its root is not with it")
	}
	chain, err := authority(p).Issue(identity.Request{
		Name: identity.RelayName("check"), Pub: p.Key.Public(), NotBefore: now, NotAfter: now.Add(time.Minute),
	})
	if err != nil {
		return err
	}
	_, err = identity.Verify(chain, roots, now, identity.KindRelay)
	return err
}

func authority(p credential.Credential) *identity.Authority {
	return &identity.Authority{Cert: p.Chain[0], Key: p.Key, Chain: p.Chain[1:]}
}

// loadRoots reads the pinned roots, which are no secret.
func loadRoots(path string) (*identity.Roots, error) {
	return credential.LoadPublic(path, identity.ParseRoots)
}

// loadRoot reads the root that init has made, from wherever it is kept.
func loadRoot(dir string, now time.Time) (*identity.Authority, error) {
	p, err := loadPair(dir, rootName)
	if err != nil {
		return nil, err
	}
	if _, err := identity.NewRoots(p.Chain[0]); err != nil {
		return nil, err
	}
	if now.Before(p.Chain[0].NotBefore) || now.After(p.Chain[0].NotAfter) {
		return nil, errors.New("the root is not valid now: look at the clock")
	}
	return &identity.Authority{Cert: p.Chain[0], Key: p.Key}, nil
}
