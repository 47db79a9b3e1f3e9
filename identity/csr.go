package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

const maxCSRBytes = 4 << 10 // identity §3

// NewCSR returns a certificate request in DER that asks for no name (identity §3): it proves that its sender
// has the key, once; it is no secret.
func NewCSR(key crypto.Signer) ([]byte, error) {
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR returns the public key whose possession a request proves, and takes nothing else from it (identity §3). The
// faults are [FaultMalformed], [FaultWrongKey], [FaultCSRName] and [FaultBadSignature]. The signature is checked last,
// because it costs most.
func ParseCSR(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxCSRBytes {
		return nil, refuse(FaultMalformed, "parse certificate request: too long")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(FaultMalformed, "parse certificate request: not PKCS#10")
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil || !bytes.Equal(spki, csr.RawSubjectPublicKeyInfo) {
		// Its hash in the certificate would not be the hash that its holder computes.
		return nil, refuse(FaultMalformed, "parse certificate request: key in an unusual encoding")
	}
	if !bytes.Equal(csr.RawTBSCertificateRequest, emptyRequest(spki)) {
		return nil, refuse(FaultCSRName, "parse certificate request: it asks for a name, extension or attribute")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(FaultBadSignature, "parse certificate request: not signed by its own key")
	}
	return csr.PublicKey, nil
}

// emptyRequest is the to-be-signed part of the only request we accept for a key (RFC 2986 §4.1). Comparing with it
// catches also the attributes that the X.509 parser skips.
func emptyRequest(spki []byte) []byte {
	der, err := asn1.Marshal(struct {
		Version    int
		Subject    pkix.RDNSequence
		PublicKey  asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0"`
	}{PublicKey: asn1.RawValue{FullBytes: spki}, Attributes: []asn1.RawValue{}})
	if err != nil {
		return nil // equals no request
	}
	return der
}
