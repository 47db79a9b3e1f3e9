package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// The layout of identity §10: context, UID, new floor, sequence; signature.
const (
	resetContext      = "hawser floor reset v1\x00"
	resetMessageBytes = len(resetContext) + 16 + 8 + 8

	// FloorResetBytes is the length of every encoded [FloorReset].
	FloorResetBytes = resetMessageBytes + ed25519.SignatureSize
)

// FloorReset is the root's word that one device's clock may go back (identity §10). It is no secret and does not end; the
// device takes each Sequence once.
type FloorReset struct {
	UID      UID       // of the device; never zero
	To       time.Time // the new floor: nanoseconds, 1970 to 2262
	Sequence uint64    // greater than that of every reset before it for this device
}

// Sign encodes r and signs it with the key of root, which must be Ed25519.
func (r FloorReset) Sign(root *Authority) ([]byte, error) {
	pub, ok := root.Key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(root.Cert.PublicKey) {
		return nil, refuse(FaultWrongKey, "sign floor reset: not the root's Ed25519 key")
	}
	if r.UID.IsZero() {
		return nil, refuse(FaultWrongUID, "sign floor reset: for no device")
	}
	ns, ok := nanoseconds(r.To)
	if !ok {
		return nil, errors.New("sign floor reset: outside 1970 to 2262")
	}
	b := append([]byte(resetContext), r.UID[:]...)
	b = binary.BigEndian.AppendUint64(b, ns)
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	signature, err := root.Key.Sign(rand.Reader, b, crypto.Hash(0)) // Ed25519 hashes by itself
	return append(b, signature...), err
}

// VerifyFloorReset reads a reset for uid that a pinned root has signed itself. Dates of the root do not count: whoever
// needs a reset has no time to judge them by. The error is an [*Error]. The root itself signs, and no server key: what
// a stolen server could sign would let it lower any floor.
func VerifyFloorReset(b []byte, roots *Roots, uid UID) (FloorReset, error) {
	rest, ok := bytes.CutPrefix(b, []byte(resetContext))
	if !ok || len(b) != FloorResetBytes {
		return FloorReset{}, refuse(FaultMalformed, "verify floor reset: wrong length or context")
	}
	if !roots.signedMessage(b[:resetMessageBytes], b[resetMessageBytes:]) {
		return FloorReset{}, refuse(FaultBadSignature, "verify floor reset: no pinned root has signed it")
	}
	var r FloorReset
	rest = rest[copy(r.UID[:], rest):]
	ns := int64(binary.BigEndian.Uint64(rest))
	r.To, r.Sequence = time.Unix(0, ns).UTC(), binary.BigEndian.Uint64(rest[8:])
	switch {
	case ns < 0:
		return FloorReset{}, refuse(FaultMalformed, "verify floor reset: before 1970")
	case r.UID != uid || uid.IsZero():
		return FloorReset{}, refuse(FaultWrongUID, "verify floor reset: made for another device")
	}
	return r, nil
}
