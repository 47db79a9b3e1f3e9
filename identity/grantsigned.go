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

// What an Access Server signs with its grant key to be shown later (identity §14, §19): a message that begins with a context
// and ends with the time of the signature, the signature, and the key's certificate.

// signByGrant signs a message, to which it adds the time: nanoseconds, 1970 to 2262.
func signByGrant(op string, message []byte, at time.Time, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, refuse(FaultWrongKey, op+": not the certified Ed25519 key")
	}
	if len(cert.Raw) > maxServerKeyBytes {
		return nil, refuse(FaultMalformed, op+": certificate too long")
	}
	ns, inRange := nanoseconds(at)
	if !inRange {
		return nil, errors.New(op + ": outside 1970 to 2262")
	}
	b := binary.BigEndian.AppendUint64(message, ns)
	signature, err := key.Sign(rand.Reader, b, crypto.Hash(0)) // Ed25519 hashes by itself
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return append(append(b, signature...), cert.Raw...), nil
}

// verifyByGrant reads a message of bytesOf bytes that the grant key of some Access Server under roots has signed, and returns
// what is in it between the context and the time, and that server's label. The key is verified at the time of the signature:
// this is evidence of what was, also when the key has ended since.
func verifyByGrant(op string, b []byte, context string, bytesOf int, roots *Roots) (fields []byte, at time.Time, node string, err error) {
	end := bytesOf + ed25519.SignatureSize
	if len(b) <= end || len(b) > end+maxServerKeyBytes || !bytes.HasPrefix(b, []byte(context)) {
		return nil, at, "", refuse(FaultMalformed, op+": wrong length or context")
	}
	cert, err := x509.ParseCertificate(b[end:])
	if err != nil {
		return nil, at, "", refuse(FaultMalformed, op+": not an X.509 certificate")
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, at, "", refuse(FaultWrongKey, op+": not an Ed25519 key")
	}
	if !ed25519.Verify(pub, b[:bytesOf], b[bytesOf:end]) {
		return nil, at, "", refuse(FaultBadSignature, op+": wrong signature")
	}
	ns := int64(binary.BigEndian.Uint64(b[bytesOf-8:]))
	if ns < 0 {
		return nil, at, "", refuse(FaultMalformed, op+": before 1970")
	}
	at = time.Unix(0, ns).UTC()
	name, err := VerifyGrantKey(cert, roots, at)
	if err != nil {
		return nil, at, "", err
	}
	return b[len(context) : bytesOf-8], at, name.ID, nil
}
