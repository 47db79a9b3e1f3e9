package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"slices"
	"sync/atomic"
)

// Roots are the pinned roots: 1 to 8 self-signed CAs (identity §5). They are never changed once made, but by what they have
// signed themselves ([Roots.Refuse]), which may be called concurrently with everything else. A nil *Roots pins nothing, so that no chain is verified by it. There may be several so that a new root can be introduced while the old
// one still counts.
type Roots struct {
	certs   []*x509.Certificate
	refused atomic.Pointer[RefusedKeys] // that with the greatest sequence; nil: none
}

// NewRoots pins certificates. The faults are [FaultBadChain], [FaultWrongKey] and [FaultBadSignature].
func NewRoots(certs ...*x509.Certificate) (*Roots, error) {
	if len(certs) == 0 || len(certs) > maxChainCerts {
		return nil, refuse(FaultBadChain, "pin roots: not 1 to 8 certificates")
	}
	roots := &Roots{}
	for _, cert := range certs {
		if err := checkRoot(cert); err != nil {
			return nil, err
		}
		if roots.samePinned(cert) != nil {
			return nil, refuse(FaultBadChain, "pin roots: two certificates of one key")
		}
		roots.certs = append(roots.certs, cert)
	}
	return roots, nil
}

// ParseRoots pins the certificates of a PEM file; see [ParseChain] and [NewRoots] for its faults.
func ParseRoots(b []byte) (*Roots, error) {
	certs, err := ParseChain(b)
	if err != nil {
		return nil, err
	}
	return NewRoots(certs...)
}

// PinnedRoot finds in a chain the self-signed CA whose SPKI hash is pin, and pins it (identity §5). It verifies nothing
// else of the chain. The fault is [FaultWrongRoot] when there is none. That is how somebody begins who was given no
// file but 64 hex digits, on paper or in a command line.
func PinnedRoot(chain []*x509.Certificate, pin SPKI) (*Roots, error) {
	if len(chain) == 0 || len(chain) > maxChainCerts {
		return nil, refuse(FaultBadChain, "pin root: not 1 to 8 certificates")
	}
	for _, cert := range chain {
		if CertSPKI(cert) == pin && checkRoot(cert) == nil { // the same key may also be there cross-signed
			return NewRoots(cert)
		}
	}
	return nil, refuseChain(FaultWrongRoot, "the chain does not hold the pinned root", chain[0])
}

// ShownRoot finds in a chain the self-signed CA that it leads to, and pins it: for somebody who does not know yet whom to
// trust, and wants to see who answers. It proves nothing: anybody can show a chain that is good by itself. The fault is
// [FaultWrongRoot] when there is none.
func ShownRoot(chain []*x509.Certificate) (*Roots, error) {
	if len(chain) == 0 || len(chain) > maxChainCerts {
		return nil, refuse(FaultBadChain, "show root: not 1 to 8 certificates")
	}
	for _, cert := range slices.Backward(chain) {
		if checkRoot(cert) == nil {
			return NewRoots(cert)
		}
	}
	return nil, refuseChain(FaultWrongRoot, "the chain does not hold its root", chain[0])
}

// Certificates returns the pinned certificates; the slice is the caller's, the certificates are shared.
func (r *Roots) Certificates() []*x509.Certificate { return slices.Clone(r.certs) }

// PEM returns what [ParseRoots] reads.
func (r *Roots) PEM() []byte { return MarshalChain(r.certs) }

// checkRoot wants it signed by itself: a CA under somebody else's root would make that one the root.
func checkRoot(cert *x509.Certificate) error {
	if err := checkKey(cert.PublicKey); err != nil {
		return err
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return refuse(FaultBadChain, "pin root: not a CA")
	}
	return signedBy(cert, cert)
}

// signedMessage tells whether a pinned root has signed a message itself. Its dates do not count: it is pinned by its key.
func (r *Roots) signedMessage(message, signature []byte) bool {
	return r.find(func(root *x509.Certificate) bool {
		pub, ok := root.PublicKey.(ed25519.PublicKey)
		return ok && ed25519.Verify(pub, message, signature)
	}) != nil
}

// samePinned returns the pinned root with the key of cert, or nil.
func (r *Roots) samePinned(cert *x509.Certificate) *x509.Certificate {
	return r.find(func(root *x509.Certificate) bool { return CertSPKI(root) == CertSPKI(cert) })
}

// signerOf returns the pinned root that has signed cert, or nil.
func (r *Roots) signerOf(cert *x509.Certificate) *x509.Certificate {
	return r.find(func(root *x509.Certificate) bool { return signedBy(cert, root) == nil })
}

func (r *Roots) find(match func(*x509.Certificate) bool) *x509.Certificate {
	if r == nil {
		return nil
	}
	if i := slices.IndexFunc(r.certs, match); i >= 0 {
		return r.certs[i]
	}
	return nil
}
