// Package credential keeps an identity in files: a key, and the chain of certificates for it.
//
// A key is private from its first byte on, and is on the medium before it is used, so that a request whose answer was lost
// can be made again with the same key. Files that belong together are written by Write, one after the other:
// the caller puts the one that makes them count last. Reads are bounded and refuse a certificate for another key or from another
// root; dates are not checked here, because an expired certificate can still be renewed.
package credential

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
)

// MaxFileBytes bounds every file that is read here. As much as identity §4 allows for a chain.
const MaxFileBytes = 64 << 10

// The modes of files: a key and what is kept beside it for its owner alone, and what everybody may read.
const (
	Private fs.FileMode = 0o600
	Public  fs.FileMode = 0o644
)

// ErrOtherKey: a key and a certificate do not belong together.
var ErrOtherKey = errors.New("the certificate is for another key")

// A Credential is a key and the certificates for it, leaf first.
type Credential struct {
	Key   crypto.Signer
	Chain []*x509.Certificate
}

// Check wants the leaf to be for the key, else ErrOtherKey. A key and a chain that were copied from two places would
// otherwise fail in TLS, with an alert that says nothing.
func (c Credential) Check() error {
	if len(c.Chain) == 0 {
		return errors.New("no certificate")
	}
	spki, err := identity.SPKIOf(c.Key.Public())
	if err == nil && spki != identity.CertSPKI(c.Chain[0]) {
		err = ErrOtherKey
	}
	return err
}

// Verify is Check, and wants the chain to be one of a kind under roots, whatever the date: an expired certificate can
// still be renewed (access §3). It returns who the holder is.
func (c Credential) Verify(roots *identity.Roots, kind identity.Kind) (identity.Peer, error) {
	peer, err := identity.VerifyIgnoringDates(c.Chain, roots, kind)
	if err == nil {
		err = c.Check()
	}
	return peer, err
}

// TLS is the credential as TLS shows it.
func (c Credential) TLS() tls.Certificate {
	shown := tls.Certificate{PrivateKey: c.Key, Leaf: c.Chain[0]}
	for _, cert := range c.Chain {
		shown.Certificate = append(shown.Certificate, cert.Raw)
	}
	return shown
}

// RenewAt is when a certificate is to be renewed: at half of its life, ±10 % of that, so that those who enrolled together
// do not come back together (access §3). The spread comes from the certificate's hash, which
// differs for everybody and stays the same when the program starts again.
func RenewAt(leaf *x509.Certificate) time.Time {
	half := leaf.NotAfter.Sub(leaf.NotBefore) / 2
	hash := sha256.Sum256(leaf.Raw)
	fraction := float64(binary.BigEndian.Uint32(hash[:])) / (1 << 32)
	return leaf.NotBefore.Add(half - half/10 + time.Duration(fraction*float64(half/5)))
}

// Load reads a private file and parses it; it refuses one that others may read, with durable.ErrExposed. A missing file is
// fs.ErrNotExist.
func Load[T any](path string, parse func([]byte) (T, error)) (value T, err error) {
	b, err := durable.ReadPrivate(path, MaxFileBytes)
	if err != nil {
		return value, err
	}
	return parsed(path, b, parse)
}

// LoadPublic is Load for a file that is no secret, wherever it lies and whoever may read it.
func LoadPublic[T any](path string, parse func([]byte) (T, error)) (value T, err error) {
	b, err := durable.ReadPublic(path, MaxFileBytes)
	if err != nil {
		return value, err
	}
	return parsed(path, b, parse)
}

func parsed[T any](path string, b []byte, parse func([]byte) (T, error)) (T, error) {
	value, err := parse(b)
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return value, err
}

// MakeKey returns the key in the file path. It makes one the first time, and only then: a key that is there and cannot be
// read stays as it is.
func MakeKey(path string) (crypto.Signer, error) {
	key, err := Load(path, identity.ParseKey)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	f, err := KeyFile(filepath.Base(path), key)
	if err != nil {
		return nil, err
	}
	return key, Write(filepath.Dir(path), f)
}

// A File is one file of a directory.
type File struct {
	Name string
	Data []byte
	Mode fs.FileMode
}

// KeyFile is the file of a key.
func KeyFile(name string, key crypto.Signer) (File, error) {
	pem, err := identity.MarshalKey(key)
	return File{name, pem, Private}, err
}

// ChainFile is the file of a chain of certificates.
func ChainFile(name string, chain []*x509.Certificate, mode fs.FileMode) File {
	return File{name, identity.MarshalChain(chain), mode}
}

// Write replaces files of a directory in this order, each on the medium before the next is begun. A power cut leaves a
// prefix of them, and so does an error.
func Write(dir string, files ...File) error {
	for _, f := range files {
		if err := durable.WriteFile(filepath.Join(dir, f.Name), f.Data, f.Mode); err != nil {
			return err
		}
	}
	return nil
}
