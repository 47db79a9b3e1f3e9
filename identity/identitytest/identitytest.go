// Package identitytest makes the authorities of an infrastructure for tests, and certificates of every kind at the dates
// that a test wants.
//
// All of it is made by identity itself, so it is as good as what a server makes. Nothing is shared between two PKIs, and
// times come from time.Now, so a PKI may be made inside a synctest bubble. What identity refuses panics: a test that asks
// for it is wrong.
//
//	pki := identitytest.New(time.Now())
//	good := pki.Leaf(identity.RelayName("r1"), -time.Hour, time.Hour)
//	expired := pki.Leaf(identity.RelayName("r1"), -2*time.Hour, -time.Hour)
package identitytest

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"time"

	"hawser/identity"
)

// PKI is the authorities of one infrastructure, and the other keys that its Access Server signs with. Fields may be
// replaced by those of another PKI.
type PKI struct {
	Root, Issuing *identity.Authority
	Roots         *identity.Roots
	Access        identity.Name // whose keys these are:
	Time, Grant   Signer
}

// Signer is a key that the root has certified for signed time or for grants.
type Signer struct {
	Key  crypto.Signer
	Cert *x509.Certificate
}

// New makes an infrastructure whose authorities and keys begin 24 h before now. Its Access Server is a1.
func New(now time.Time) *PKI {
	p := &PKI{Root: must(identity.NewRoot(NewKey(), now))}
	p.Roots = must(identity.NewRoots(p.Root.Cert))
	return p.Another("a1", now)
}

// Another is the same infrastructure with the keys of another Access Server.
func (p *PKI) Another(name string, now time.Time) *PKI {
	root := p.Root
	p = &PKI{Root: root, Roots: p.Roots, Issuing: must(root.NewIssuing(NewKey(), now)), Access: identity.AccessName(name)}
	p.Time.Key, p.Grant.Key = NewKey(), NewKey()
	p.Time.Cert = must(root.CertifyTimeKey(p.Access, p.Time.Key.Public(), now))
	p.Grant.Cert = must(root.CertifyGrantKey(p.Access, p.Grant.Key.Public(), now))
	return p
}

// Leaf certifies a new key from and until so long from now.
func (p *PKI) Leaf(name identity.Name, from, until time.Duration) tls.Certificate {
	return p.Certify(NewKey(), name, from, until)
}

// Certify is Leaf for a key that is there already.
func (p *PKI) Certify(key crypto.Signer, name identity.Name, from, until time.Duration) tls.Certificate {
	return Certificate(key, p.Chain(key.Public(), name, from, until))
}

// Chain certifies a public key, such as that of a CSR, from and until so long from now.
func (p *PKI) Chain(pub crypto.PublicKey, name identity.Name, from, until time.Duration) []*x509.Certificate {
	now := time.Now()
	return must(p.Issuing.Issue(identity.Request{Name: name, Pub: pub, NotBefore: now.Add(from), NotAfter: now.Add(until)}))
}

// SignTime signs t with the key for time.
func (p *PKI) SignTime(t identity.SignedTime) []byte {
	return must(t.Sign(p.Time.Key, p.Time.Cert))
}

// Pin is the hash of the root's key, by which somebody who knows no certificate yet finds the root.
func (p *PKI) Pin() identity.SPKI { return identity.CertSPKI(p.Root.Cert) }

// NewKey makes an Ed25519 key.
func NewKey() crypto.Signer { return must(identity.NewKey()) }

// Certificate is a chain and the key of its leaf in the form that crypto/tls takes.
func Certificate(key crypto.Signer, chain []*x509.Certificate) tls.Certificate {
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// ServerConfig is how a server of ours speaks TLS: it asks for the client's certificate and judges none.
func ServerConfig(cert tls.Certificate, alpn string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
