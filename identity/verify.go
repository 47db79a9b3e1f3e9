package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// Peer is whom a verified chain proves. The name says who; the SPKI says which key, and is what registries compare: a
// certificate is renewed, its key stays.
type Peer struct {
	Name Name
	SPKI SPKI              // of Leaf's key: what is pinned and revoked
	Leaf *x509.Certificate // shared with the chain that was verified
}

// Verify tells whom chain proves at now (identity §5): leaf first, then issuing CA, and optionally the root. With no kind
// wanted, any is accepted. The error is an [*Error]. It judges one chain; that the peer has the leaf's key is what TLS
// proves, and that it is not revoked is what the registry knows.
func Verify(chain []*x509.Certificate, roots *Roots, now time.Time, want ...Kind) (Peer, error) {
	return verify(chain, roots, &now, want)
}

// VerifyIgnoringDates is Verify for renew alone, where the registry's knowledge of the key takes the place of the
// dates, and of a refused issuing key (identity §18): a gateway comes back by itself after years on a shelf (identity §5).
func VerifyIgnoringDates(chain []*x509.Certificate, roots *Roots, want ...Kind) (Peer, error) {
	return verify(chain, roots, nil, want)
}

// VerifyGrantKey tells whose key for grants cert certifies at now (identity §5). The root must have signed it itself.
func VerifyGrantKey(cert *x509.Certificate, roots *Roots, now time.Time) (Name, error) {
	return verifyServerKey(cert, roots, now, usageGrant)
}

// verify is both Verify; without now, dates are ignored.
func verify(chain []*x509.Certificate, roots *Roots, now *time.Time, want []Kind) (Peer, error) {
	if err := verifyPath(chain, roots, now); err != nil {
		return Peer{}, err
	}
	leaf := chain[0] // and nothing but the leaf from here on
	use := onlyUsage(leaf)
	if use < usageDevice || use > usageAccess {
		return Peer{}, refuse(FaultWrongKind, "verify leaf: not exactly one kind among its key usages")
	}
	name, err := nameIn(leaf)
	if err != nil {
		return Peer{}, err
	}
	if usageOf(name.Kind) != use {
		return Peer{}, refuse(FaultWrongKind, "verify leaf: name and key usage are of different kinds")
	}
	if len(want) > 0 && !slices.Contains(want, name.Kind) {
		return Peer{}, refuse(FaultWrongKind, "verify leaf: not of the wanted kind")
	}
	return Peer{Name: name, SPKI: CertSPKI(leaf), Leaf: leaf}, nil
}

// verifyServerKey verifies a time or grant key, which the root has certified itself.
func verifyServerKey(cert *x509.Certificate, roots *Roots, now time.Time, use usage) (Name, error) {
	if err := verifyPath([]*x509.Certificate{cert}, roots, &now); err != nil {
		return Name{}, err
	}
	if onlyUsage(cert) != use {
		return Name{}, refuse(FaultWrongKind, "verify server key: certified for another use")
	}
	name, err := nameIn(cert)
	if err != nil {
		return Name{}, err
	}
	if name.Kind != KindAccess {
		return Name{}, refuse(FaultWrongKind, "verify server key: not an access server's")
	}
	if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok {
		return Name{}, refuse(FaultWrongKey, "verify server key: not Ed25519")
	}
	return name, nil
}

// verifyPath is steps 1 to 7 of identity §5. It follows the chain as presented instead of searching a path, so that no
// certificate can be in it without a part; then crypto/x509 validates the path as well. The library searches any path
// that works; a second path that nobody has looked at would be a way in.
func verifyPath(chain []*x509.Certificate, roots *Roots, now *time.Time) error {
	if len(chain) == 0 || len(chain) > maxChainCerts {
		return refuse(FaultBadChain, "verify chain: not 1 to 8 certificates")
	}
	leaf := chain[0]
	path, err := followChain(chain, roots)
	if err != nil {
		return err
	}
	if now != nil {
		if err := checkDates(path, *now); err != nil {
			return err
		}
		if roots.Refuses(path) {
			return refuseChain(FaultRefusedKey, "verify chain: the root has refused a key of it", leaf)
		}
	}
	// Otherwise an issuing CA could appear as a device.
	if leaf.IsCA {
		return refuse(FaultBadChain, "verify chain: the leaf is a CA")
	}
	if err := checkKey(leaf.PublicKey); err != nil {
		return err
	}
	return validate(path, now)
}

// followChain is steps 2 to 4 of identity §5. It returns the chain with the pinned root at its end.
func followChain(chain []*x509.Certificate, roots *Roots) ([]*x509.Certificate, error) {
	leaf, last := chain[0], len(chain)-1
	if last > 0 && roots.samePinned(chain[last]) != nil {
		chain = chain[:last]
	}
	for i, issuer := range chain[1:] {
		if checkKey(issuer.PublicKey) != nil {
			// Not ours, and its signature could cost any amount of time to verify.
			return nil, refuseChain(FaultWrongRoot, "verify chain: issuer with a key we do not use", leaf)
		}
		if err := signedBy(chain[i], issuer); err != nil {
			return nil, refuseChain(FaultOf(err), "verify chain: a certificate is not issued by the next one", leaf)
		}
	}
	root := roots.signerOf(chain[len(chain)-1])
	if root == nil {
		return nil, refuseChain(FaultWrongRoot, "verify chain: not signed by a pinned root", leaf)
	}
	if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return CertSPKI(c) == CertSPKI(root) }) {
		return nil, refuseChain(FaultBadChain, "verify chain: the root is in it twice, or in place of the leaf", leaf)
	}
	return append(slices.Clone(chain), root), nil
}

// signedBy tells whether issuer, as a CA, has signed cert. The faults are [FaultBadChain] and [FaultBadSignature].
func signedBy(cert, issuer *x509.Certificate) error {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return refuse(FaultBadChain, "check issuer: another issuer")
	}
	err := cert.CheckSignatureFrom(issuer)
	if _, notCA := errors.AsType[x509.ConstraintViolationError](err); notCA {
		return refuse(FaultBadChain, "check issuer: not a CA")
	}
	if err != nil {
		return refuse(FaultBadSignature, "check issuer: wrong signature")
	}
	return nil
}

// checkDates is step 5 of identity §5, apart from the library's validation because that does not tell early from late.
// A gateway without a clock has to know which it is: "not yet valid" means wait for the time, "expired" means renew.
func checkDates(path []*x509.Certificate, now time.Time) error {
	for i, cert := range path {
		what := "an issuer"
		if i == 0 {
			what = "the leaf"
		}
		if now.Before(cert.NotBefore) {
			return refuse(FaultNotYetValid, "verify chain: "+what+" is not valid before "+cert.NotBefore.Format(time.RFC3339))
		}
		if now.After(cert.NotAfter) {
			return refuse(FaultExpired, "verify chain: "+what+" is not valid after "+cert.NotAfter.Format(time.RFC3339))
		}
	}
	return nil
}

// validate is step 7 of identity §5. Without now it validates copies whose dates are open: no instant need lie within the
// dates of the whole path, such as when the issuing CA was renewed with its key after the leaf had ended.
func validate(path []*x509.Certificate, now *time.Time) error {
	if now == nil {
		path, now = undated(path)
	}
	last := len(path) - 1
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   *now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // ours are judged by onlyUsage
	}
	opts.Roots.AddCert(path[last])
	for _, cert := range path[1:last] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := path[0].Verify(opts); err != nil {
		return refuseChain(FaultBadChain, "verify chain: no valid certification path", path[0])
	}
	return nil
}

// undated returns copies of a path whose dates are open, and an instant within them.
func undated(path []*x509.Certificate) ([]*x509.Certificate, *time.Time) {
	now := path[0].NotBefore
	open := make([]*x509.Certificate, len(path))
	for i, cert := range path {
		c := *cert
		c.NotBefore, c.NotAfter = now, now
		open[i] = &c
	}
	return open, &now
}
