package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
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
	const op = "sign audit head"
	if h.Seq < 1 {
		return nil, refuse(FaultMalformed, op+": no record")
	}
	b := binary.BigEndian.AppendUint64([]byte(auditContext), uint64(h.Seq))
	return signByGrant(op, append(b, h.Hash[:]...), h.Time, key, cert)
}

// VerifyAuditHead reads an audit head that the grant key of some Access Server under roots has signed. The error is an
// [*Error].
func VerifyAuditHead(b []byte, roots *Roots) (AuditHead, error) {
	const op = "verify audit head"
	fields, at, node, err := verifyByGrant(op, b, auditContext, auditMessageBytes, roots)
	if err != nil {
		return AuditHead{}, err
	}
	h := AuditHead{Node: node, Seq: int64(binary.BigEndian.Uint64(fields)), Hash: [32]byte(fields[8:]), Time: at}
	if h.Seq < 1 {
		return AuditHead{}, refuse(FaultMalformed, op+": no record")
	}
	return h, nil
}
