package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"slices"
)

// The layout of identity §18: context, sequence, hashes; signature.
const (
	refusedContext = "hawser refused keys v1\x00"
	refusedHead    = len(refusedContext) + 8

	// MaxRefusedKeys is how many keys one [RefusedKeys] names.
	MaxRefusedKeys = 64
	// MaxRefusedBytes is the length of the longest encoded [RefusedKeys].
	MaxRefusedBytes = refusedHead + MaxRefusedKeys*len(SPKI{}) + ed25519.SignatureSize
)

// RefusedKeys is the root's word that keys which it has certified count no more: issuing, time and grant keys that were
// stolen or replaced (identity §18). It is no secret and does not end.
type RefusedKeys struct {
	Keys     []SPKI // sorted, each once, 1 to MaxRefusedKeys
	Sequence uint64 // that with the greatest counts, and no other
}

// Sign encodes r, sorted, and signs it with the key of root, which must be Ed25519.
func (r RefusedKeys) Sign(root *Authority) ([]byte, error) {
	pub, ok := root.Key.Public().(ed25519.PublicKey)
	if !ok || !pub.Equal(root.Cert.PublicKey) {
		return nil, refuse(FaultWrongKey, "sign refused keys: not the root's Ed25519 key")
	}
	keys := slices.Clone(r.Keys)
	slices.SortFunc(keys, compareSPKI)
	if keys = slices.Compact(keys); len(keys) == 0 || len(keys) > MaxRefusedKeys {
		return nil, refuse(FaultMalformed, "sign refused keys: not 1 to 64 keys")
	}
	b := binary.BigEndian.AppendUint64([]byte(refusedContext), r.Sequence)
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	signature, err := root.Key.Sign(rand.Reader, b, crypto.Hash(0)) // Ed25519 hashes by itself
	return append(b, signature...), err
}

// VerifyRefusedKeys reads a list of refused keys that a pinned root has signed itself. Dates of the root do not count, as
// for a floor reset. The error is an [*Error].
func VerifyRefusedKeys(b []byte, roots *Roots) (r RefusedKeys, err error) {
	end := len(b) - ed25519.SignatureSize
	rest, ok := bytes.CutPrefix(b, []byte(refusedContext))
	if keys := end - refusedHead; !ok || keys <= 0 || keys%len(SPKI{}) != 0 || keys > MaxRefusedKeys*len(SPKI{}) {
		return r, refuse(FaultMalformed, "verify refused keys: wrong length or context")
	}
	if !roots.signedMessage(b[:end], b[end:]) {
		return r, refuse(FaultBadSignature, "verify refused keys: no pinned root has signed it")
	}
	r.Sequence = binary.BigEndian.Uint64(rest)
	for k := range slices.Chunk(b[refusedHead:end], len(SPKI{})) {
		r.Keys = append(r.Keys, SPKI(k))
	}
	for i, k := range r.Keys[1:] {
		if compareSPKI(r.Keys[i], k) >= 0 {
			return RefusedKeys{}, refuse(FaultMalformed, "verify refused keys: not sorted, or one twice")
		}
	}
	return r, nil
}

func compareSPKI(a, b SPKI) int { return bytes.Compare(a[:], b[:]) }

// Refuse lets keys count no more under these roots, for whoever shares them, from now on. It reports whether that is news:
// a list with a smaller sequence, or the same, changes nothing. Whoever wants it to last stores what was signed.
func (r *Roots) Refuse(keys RefusedKeys) (news bool) {
	for {
		old := r.refused.Load()
		if old != nil && keys.Sequence <= old.Sequence {
			return false
		}
		if r.refused.CompareAndSwap(old, &keys) {
			return true
		}
	}
}

// RefusedSequence is that of the list that counts; ok is false while there is none.
func (r *Roots) RefusedSequence() (sequence uint64, ok bool) {
	if r == nil {
		return 0, false
	}
	if keys := r.refused.Load(); keys != nil {
		return keys.Sequence, true
	}
	return 0, false
}

// Refuses reports whether a certificate of a chain has a key that counts no more. Whose own chain it is renews it.
func (r *Roots) Refuses(chain []*x509.Certificate) bool {
	if r == nil {
		return false
	}
	keys := r.refused.Load()
	return keys != nil && slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		_, found := slices.BinarySearchFunc(keys.Keys, CertSPKI(c), compareSPKI)
		return found
	})
}
