package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The layout of identity §14: context, seq, hash, time; signature; certificate.
const (
	auditContext      = "hawser audit head v1\x00"
	auditMessageBytes = len(auditContext) + 8 + 32 + 8
	auditFixedBytes   = auditMessageBytes + ed25519.SignatureSize
)

// AuditHead is an Access Server's word that its audit chain had a record with this number and hash (identity §14). Whoever
// keeps one can tell later that the record is gone or another one; and a chain that begins after one was shortened by its
// own server, and not by somebody who can only write to its database.
type AuditHead struct {
	Node string // the server's label; its grant key's certificate says it
	Seq  int64  // 1 or more
	Hash [32]byte
	Time time.Time // of the signature: nanoseconds, 1970 to 2262
}

// Sign encodes h, but not its Node, and signs it with the grant key that cert certifies.
func (h AuditHead) Sign(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, refuse(FaultWrongKey, "sign audit head: not the certified Ed25519 key")
	}
	ns, inRange := nanoseconds(h.Time)
	switch {
	case len(cert.Raw) > maxServerKeyBytes:
		return nil, refuse(FaultMalformed, "sign audit head: certificate too long")
	case h.Seq < 1:
		return nil, refuse(FaultMalformed, "sign audit head: no record")
	case !inRange:
		return nil, errors.New("sign audit head: outside 1970 to 2262")
	}
	b := binary.BigEndian.AppendUint64([]byte(auditContext), uint64(h.Seq))
	b = append(b, h.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, ns)
	signature, err := key.Sign(rand.Reader, b, crypto.Hash(0)) // Ed25519 hashes by itself
	if err != nil {
		return nil, fmt.Errorf("sign audit head: %w", err)
	}
	return append(append(b, signature...), cert.Raw...), nil
}

// VerifyAuditHead reads an audit head that the grant key of some Access Server under roots has signed. The key is verified
// at the time of the signature: a head is evidence of what was, also when the key has ended since. The error is an
// [*Error].
func VerifyAuditHead(b []byte, roots *Roots) (AuditHead, error) {
	if len(b) <= auditFixedBytes || len(b) > auditFixedBytes+maxServerKeyBytes || !bytes.HasPrefix(b, []byte(auditContext)) {
		return AuditHead{}, refuse(FaultMalformed, "verify audit head: wrong length or context")
	}
	cert, err := x509.ParseCertificate(b[auditFixedBytes:])
	if err != nil {
		return AuditHead{}, refuse(FaultMalformed, "verify audit head: not an X.509 certificate")
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return AuditHead{}, refuse(FaultWrongKey, "verify audit head: not an Ed25519 key")
	}
	if !ed25519.Verify(pub, b[:auditMessageBytes], b[auditMessageBytes:auditFixedBytes]) {
		return AuditHead{}, refuse(FaultBadSignature, "verify audit head: wrong signature")
	}
	rest := b[len(auditContext):]
	h := AuditHead{Seq: int64(binary.BigEndian.Uint64(rest)), Hash: [32]byte(rest[8:40])}
	ns := int64(binary.BigEndian.Uint64(rest[40:]))
	if h.Seq < 1 || ns < 0 {
		return AuditHead{}, refuse(FaultMalformed, "verify audit head: no record, or before 1970")
	}
	h.Time = time.Unix(0, ns).UTC()
	name, err := VerifyGrantKey(cert, roots, h.Time)
	if err != nil {
		return AuditHead{}, err
	}
	h.Node = name.ID
	return h, nil
}
