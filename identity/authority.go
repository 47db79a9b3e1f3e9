package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"
)

// Authority is a CA of ours: the root, or an issuing CA under it (identity §4). Its methods may be called concurrently
// when its Key may. It holds no serial numbers and no list: certificates are found by their key's hash, and revoked in
// the registry.
type Authority struct {
	Cert  *x509.Certificate
	Key   crypto.Signer
	Chain []*x509.Certificate // the parents of Cert, root last; empty for the root
}

// NewRoot makes a root that begins 24 h before now.
func NewRoot(key crypto.Signer, now time.Time) (*Authority, error) {
	spki, err := SPKIOf(key.Public())
	if err != nil {
		return nil, err
	}
	template := caTemplate("root", spki, 1, now.Add(-backdate), now.Add(rootLife))
	self := &Authority{Cert: template, Key: key}
	cert, err := self.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// NewIssuing certifies an issuing CA. Only the root can: the fault is [FaultRefused] for another authority. So the
// root's key signs a handful of certificates in its life and can lie in a safe.
func (a *Authority) NewIssuing(key crypto.Signer, now time.Time) (*Authority, error) {
	if !a.isRoot() {
		return nil, refuse(FaultRefused, "certify issuing CA: only the root does")
	}
	spki, err := SPKIOf(key.Public())
	if err != nil {
		return nil, err
	}
	template := caTemplate("issuing", spki, 0, now.Add(-backdate), now.Add(issuingLife))
	cert, err := a.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, Key: key, Chain: a.parents()}, nil
}

// Request says what a leaf is to certify. Its dates are cut to those of the issuer.
type Request struct {
	Name                Name
	Pub                 crypto.PublicKey
	NotBefore, NotAfter time.Time
}

// Issue certifies a device, user, relay or access server, and returns leaf, issuing CA and root. The faults are
// [FaultRefused] (the root issues no leaves; nothing is left of the dates), [FaultBadName] and [FaultWrongKey].
func (a *Authority) Issue(r Request) ([]*x509.Certificate, error) {
	if a.isRoot() {
		return nil, refuse(FaultRefused, "issue certificate: the root issues no leaves")
	}
	template, err := checkedLeaf(r.Name, usageOf(r.Name.Kind), r.Pub, r.NotBefore, r.NotAfter)
	if err != nil {
		return nil, err
	}
	// Both, because in TLS a holder may be either end (identity §4).
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf, err := a.sign(template, r.Pub)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{leaf}, a.parents()...), nil
}

// CertifyTimeKey certifies the Ed25519 key with which an Access Server signs time, for five years. Only the
// root can. The faults are [FaultRefused], [FaultWrongKind], [FaultBadName] and [FaultWrongKey].
func (a *Authority) CertifyTimeKey(access Name, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	return a.certifyServerKey(access, usageTime, pub, now)
}

// CertifyGrantKey is CertifyTimeKey for the key with which an Access Server signs grants.
func (a *Authority) CertifyGrantKey(access Name, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	return a.certifyServerKey(access, usageGrant, pub, now)
}

// certifyServerKey is the root's alone: an issuing CA that was stolen can make identities, but neither time nor grants.
func (a *Authority) certifyServerKey(access Name, use usage, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if !a.isRoot() {
		return nil, refuse(FaultRefused, "certify server key: only the root does")
	}
	if access.Kind != KindAccess {
		return nil, refuse(FaultWrongKind, "certify server key: not an access server")
	}
	if _, ok := pub.(ed25519.PublicKey); !ok {
		return nil, refuse(FaultWrongKey, "certify server key: not Ed25519")
	}
	template, err := checkedLeaf(access, use, pub, now.Add(-backdate), now.Add(serverKeyLife))
	if err != nil {
		return nil, err
	}
	return a.sign(template, pub)
}

// checkedLeaf checks what the caller wants certified before any key is used.
func checkedLeaf(name Name, use usage, pub crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	if err := name.check(); err != nil {
		return nil, err
	}
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	return leafTemplate(name, use, notBefore, notAfter)
}

// sign cuts the template's dates to those of a and signs it for pub. For the root itself, template is a.Cert.
func (a *Authority) sign(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	if template.NotBefore.Before(a.Cert.NotBefore) {
		template.NotBefore = a.Cert.NotBefore
	}
	if template.NotAfter.After(a.Cert.NotAfter) {
		template.NotAfter = a.Cert.NotAfter
	}
	template.NotBefore = wholeSeconds(template.NotBefore)
	template.NotAfter = wholeSeconds(template.NotAfter)
	if !template.NotAfter.After(template.NotBefore) {
		return nil, refuse(FaultRefused, "sign certificate: it would end before it begins")
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, pub, a.Key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	// Parsed again, so that what is handed out is what a verifier will see and not the template.
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return cert, nil
}

// wholeSeconds rounds down: X.509 dates have no fractions.
func wholeSeconds(t time.Time) time.Time { return time.Unix(t.Unix(), 0).UTC() }

func (a *Authority) isRoot() bool { return len(a.Chain) == 0 }

// parents is what follows a certificate that a has signed.
func (a *Authority) parents() []*x509.Certificate {
	return append([]*x509.Certificate{a.Cert}, a.Chain...)
}
