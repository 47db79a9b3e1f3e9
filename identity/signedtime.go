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

// The layout of identity §6: context, nonce, time, SPKI hash, UID, sequence; signature; certificate.
const (
	timeContext       = "hawser signed time v1\x00"
	timeMessageBytes  = len(timeContext) + 32 + 8 + 32 + 16 + 8
	timeFixedBytes    = timeMessageBytes + ed25519.SignatureSize
	maxServerKeyBytes = 2 << 10
)

// SignedTime is an Access Server's answer to the question what time it is (identity §6). It says nothing about how old
// it is: judge that by how long the answer to Nonce took. Server binds it to the TLS connection on which it was asked
// for: somebody in the middle who relays the question cannot use the answer.
type SignedTime struct {
	Nonce    [32]byte
	Time     time.Time // nanoseconds; 1970 to 2262
	Server   SPKI      // of the TLS leaf of the connection that the answer is for
	UID      UID       // zero for an asker without one
	Sequence uint64    // counts the answers of one server
}

// Sign encodes t and signs it with the time key that cert certifies.
func (t SignedTime) Sign(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, refuse(FaultWrongKey, "sign time: not the certified Ed25519 key")
	}
	if len(cert.Raw) > maxServerKeyBytes {
		return nil, refuse(FaultMalformed, "sign time: certificate too long")
	}
	message, err := t.message()
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand.Reader, message, crypto.Hash(0)) // Ed25519 hashes by itself
	if err != nil {
		return nil, fmt.Errorf("sign time: %w", err)
	}
	return append(append(message, signature...), cert.Raw...), nil
}

// VerifySignedTime reads an answer to nonce, given on the connection of server, to uid (zero: none). Of server its Name
// and SPKI count. The time key is verified at the signed time itself, and it must be server's own (identity §6). The
// error is an [*Error]. It cannot be verified at the asker's time, which is what the answer is to mend; that its key
// was certified for that moment is all that can be said.
func VerifySignedTime(b []byte, roots *Roots, nonce [32]byte, server Peer, uid UID) (SignedTime, error) {
	if len(b) <= timeFixedBytes || len(b) > timeFixedBytes+maxServerKeyBytes {
		return SignedTime{}, refuse(FaultMalformed, "verify signed time: wrong length")
	}
	message, signature, der := b[:timeMessageBytes], b[timeMessageBytes:timeFixedBytes], b[timeFixedBytes:]
	t, err := parseTimeMessage(message)
	if err != nil {
		return SignedTime{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return SignedTime{}, refuse(FaultMalformed, "verify signed time: not an X.509 certificate")
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return SignedTime{}, refuse(FaultWrongKey, "verify signed time: not an Ed25519 key")
	}
	if !ed25519.Verify(pub, message, signature) {
		return SignedTime{}, refuse(FaultBadSignature, "verify signed time: wrong signature")
	}
	name, err := verifyServerKey(cert, roots, t.Time, usageTime)
	if err != nil {
		return SignedTime{}, err
	}
	if name != server.Name { // or one stolen time key would vouch for every server
		return SignedTime{}, refuse(FaultWrongServer, "verify signed time: the time key is another server's")
	}
	if err := t.answers(nonce, server.SPKI, uid); err != nil {
		return SignedTime{}, err
	}
	return t, nil
}

// answers tells whether t was made for this question. None of the three is secret.
func (t SignedTime) answers(nonce [32]byte, server SPKI, uid UID) error {
	switch {
	case t.Nonce != nonce:
		return refuse(FaultWrongNonce, "verify signed time: answers another question")
	case t.Server != server:
		return refuse(FaultWrongServer, "verify signed time: made for another connection")
	case t.UID != uid:
		return refuse(FaultWrongUID, "verify signed time: made for another device")
	}
	return nil
}

// message encodes what is signed.
func (t SignedTime) message() ([]byte, error) {
	ns, ok := nanoseconds(t.Time)
	if !ok {
		return nil, errors.New("sign time: outside 1970 to 2262")
	}
	b := make([]byte, 0, timeFixedBytes+maxServerKeyBytes)
	b = append(b, timeContext...)
	b = append(b, t.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, ns)
	b = append(b, t.Server[:]...)
	b = append(b, t.UID[:]...)
	return binary.BigEndian.AppendUint64(b, t.Sequence), nil
}

// parseTimeMessage decodes what is signed: exactly timeMessageBytes.
func parseTimeMessage(b []byte) (SignedTime, error) {
	b, ok := bytes.CutPrefix(b, []byte(timeContext))
	if !ok {
		return SignedTime{}, refuse(FaultMalformed, "verify signed time: wrong context")
	}
	var t SignedTime
	b = b[copy(t.Nonce[:], b):]
	ns := int64(binary.BigEndian.Uint64(b))
	b = b[8:]
	b = b[copy(t.Server[:], b):]
	b = b[copy(t.UID[:], b):]
	t.Sequence = binary.BigEndian.Uint64(b)
	if ns < 0 {
		return SignedTime{}, refuse(FaultMalformed, "verify signed time: before 1970")
	}
	t.Time = time.Unix(0, ns).UTC()
	return t, nil
}

// nanoseconds is a time as all that is signed here has it: since 1970. ok is false before that and after 2262, where
// UnixNano wraps.
func nanoseconds(t time.Time) (ns uint64, ok bool) {
	n := t.UnixNano()
	return uint64(n), n >= 0 && time.Unix(0, n).Equal(t)
}
