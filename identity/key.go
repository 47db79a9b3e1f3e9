package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

const (
	pemKey      = "PRIVATE KEY" // RFC 7468 §10
	maxKeyBytes = 4 << 10       // identity §2
)

// NewKey makes an Ed25519 key (identity §2). Ed25519 has no parameters to get wrong, needs no random number to sign,
// and its keys and signatures are short; P-256 is read for keys in hardware.
func NewKey() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// MarshalKey returns key as PKCS#8 PEM. It is secret. It fails for a key that is not in memory, such as a TPM's.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("marshal key: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ParseKey reads one key in PKCS#8 PEM (identity §2). The faults are [FaultMalformed] and [FaultWrongKey]; neither
// text holds anything of the key.
func ParseKey(b []byte) (crypto.Signer, error) {
	blocks, err := parsePEM(b, pemKey, maxKeyBytes, 1)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, refuse(FaultMalformed, "parse key: not PKCS#8")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, refuse(FaultWrongKey, "parse key: not a signing key")
	}
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

// checkKey accepts the kinds of key of identity §2. RSA is left out for its size on the wire, and because a peer could
// choose a key whose check takes as long as he likes.
func checkKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize {
			return nil
		}
	case *ecdsa.PublicKey:
		if pub != nil && pub.Curve == elliptic.P256() {
			return nil
		}
	}
	return refuse(FaultWrongKey, "check key: neither Ed25519 nor P-256")
}
