package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
)

// The layout of identity §12.2: context, hash of the label, new key, sequence; signature.
const (
	domainResetContext      = "hawser domain reset v1\x00"
	domainResetMessageBytes = len(domainResetContext) + 32 + ed25519.PublicKeySize + 8

	// DomainResetBytes is the length of every encoded [DomainReset].
	DomainResetBytes = domainResetMessageBytes + ed25519.SignatureSize
)

// DomainReset is the root's word that a domain has another key (identity §12.2): the cure for one that is lost or stolen. It
// names no old key, so that it counts whatever that one has signed. It is no secret and does not end; a verifier takes each
// Sequence once.
type DomainReset struct {
	Domain   string    // a label
	Key      PublicKey // the new domain key, Ed25519
	Sequence uint64    // greater than in every reset before it for this domain, not zero
}

// Sign encodes r and signs it with the key of root, which must be Ed25519.
func (r DomainReset) Sign(root *Authority) ([]byte, error) {
	pub, ok := root.Key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(root.Cert.PublicKey) {
		return nil, refuse(FaultWrongKey, "sign domain reset: not the root's Ed25519 key")
	}
	key, ok := r.Key.ed25519()
	if !ok {
		return nil, refuse(FaultWrongKey, "sign domain reset: a domain key is Ed25519")
	}
	if err := CheckLabel(r.Domain); err != nil {
		return nil, err
	}
	if r.Sequence == 0 {
		return nil, refuse(FaultMalformed, "sign domain reset: the first sequence is 1")
	}
	label := sha256.Sum256([]byte(r.Domain))
	b := append([]byte(domainResetContext), label[:]...)
	b = binary.BigEndian.AppendUint64(append(b, key...), r.Sequence)
	signature, err := root.Key.Sign(rand.Reader, b, crypto.Hash(0)) // Ed25519 hashes by itself
	return append(b, signature...), err
}

// VerifyDomainReset reads a reset for domain that a pinned root has signed itself, and that is newer than the last one that
// was taken (0: none). As with a floor reset, dates of the root do not count. The error is an [*Error]: [FaultStale] for a
// sequence that is not new.
func VerifyDomainReset(b []byte, roots *Roots, domain string, last uint64) (DomainReset, error) {
	rest, ok := bytes.CutPrefix(b, []byte(domainResetContext))
	if !ok || len(b) != DomainResetBytes {
		return DomainReset{}, refuse(FaultMalformed, "verify domain reset: wrong length or context")
	}
	if !roots.signedMessage(b[:domainResetMessageBytes], b[domainResetMessageBytes:]) {
		return DomainReset{}, refuse(FaultBadSignature, "verify domain reset: no pinned root has signed it")
	}
	r := DomainReset{Domain: domain, Sequence: binary.BigEndian.Uint64(rest[64:])}
	switch label := sha256.Sum256([]byte(domain)); {
	case r.Sequence == 0:
		return DomainReset{}, refuse(FaultMalformed, "verify domain reset: no sequence")
	case !bytes.Equal(rest[:32], label[:]):
		return DomainReset{}, refuse(FaultNotStated, "verify domain reset: for another domain")
	case r.Sequence <= last:
		return DomainReset{}, refuse(FaultStale, "verify domain reset: a later one, or this one, was taken already")
	}
	var err error
	r.Key, err = NewPublicKey(ed25519.PublicKey(bytes.Clone(rest[32:64])))
	return r, err
}

// Successor is the domain key that follows the pinned one by a [DomainStatement] of its own (identity §12.1). The faults are
// [FaultMalformed] for another statement, [FaultNotStated] for another domain, and [FaultBadSignature] when it is not the
// pinned key that is replaced and has signed.
func Successor(change Signed, domain string, pinned PublicKey) (PublicKey, error) {
	s, ok := change.Statement.(DomainStatement)
	switch {
	case !ok:
		return PublicKey{}, refuse(FaultMalformed, "change domain key: another statement")
	case s.Domain != domain:
		return PublicKey{}, refuse(FaultNotStated, "change domain key: of another domain")
	case s.Old != pinned || !change.SignedBy(pinned):
		return PublicKey{}, refuse(FaultBadSignature, "change domain key: the pinned key has not signed that it is replaced")
	}
	return s.New, nil
}
