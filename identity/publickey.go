package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
)

// PublicKey is a public key of identity §2 as statements carry it (identity §11.1). It is comparable. The zero PublicKey is
// none.
type PublicKey struct {
	der string // SubjectPublicKeyInfo, as the standard library spells it
}

// NewPublicKey takes an Ed25519 or P-256 key. The fault is [FaultWrongKey].
func NewPublicKey(pub crypto.PublicKey) (PublicKey, error) {
	if err := checkKey(pub); err != nil {
		return PublicKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return PublicKey{}, refuse(FaultWrongKey, "encode key: no point of the curve")
	}
	return PublicKey{string(der)}, nil
}

// ParsePublicKey reads base64url of DER, strictly. The faults are [FaultMalformed] and [FaultWrongKey].
func ParsePublicKey(s string) (PublicKey, error) {
	der, err := strictBase64(s)
	if err != nil {
		return PublicKey{}, refuse(FaultMalformed, "parse public key: not strict base64url")
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, refuse(FaultMalformed, "parse public key: not a SubjectPublicKeyInfo")
	}
	k, err := NewPublicKey(pub)
	if err == nil && k.der != string(der) { // one key in two spellings would have two hashes
		return PublicKey{}, refuse(FaultMalformed, "parse public key: not as X.509 libraries spell it")
	}
	return k, err
}

// String returns what [ParsePublicKey] reads.
func (k PublicKey) String() string { return base64.RawURLEncoding.EncodeToString([]byte(k.der)) }

// SPKI is the hash that names the key; zero for no key.
func (k PublicKey) SPKI() SPKI {
	if k.IsZero() {
		return SPKI{}
	}
	return sha256.Sum256([]byte(k.der))
}

// IsZero reports whether k is none.
func (k PublicKey) IsZero() bool { return k.der == "" }

// MarshalText is String.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is [ParsePublicKey], but takes the empty text for no key, so that "none" survives JSON.
func (k *PublicKey) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*k = PublicKey{}
		return nil
	}
	*k, err = ParsePublicKey(string(b))
	return err
}

// Public returns the key as the standard library has it; nil for no key.
func (k PublicKey) Public() crypto.PublicKey {
	pub, err := x509.ParsePKIXPublicKey([]byte(k.der))
	if err != nil {
		return nil
	}
	return pub
}

// ed25519 returns the raw key, if it is one of that kind.
func (k PublicKey) ed25519() (ed25519.PublicKey, bool) {
	raw, ok := k.Public().(ed25519.PublicKey)
	return raw, ok
}
