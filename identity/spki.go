package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// SPKI is the SHA-256 of a SubjectPublicKeyInfo: it names a key (identity §2). The zero SPKI stands for none.
type SPKI [sha256.Size]byte

// SPKIOf hashes a public key. The fault is [FaultWrongKey] for a key that is neither Ed25519 nor P-256.
func SPKIOf(pub crypto.PublicKey) (SPKI, error) {
	if err := checkKey(pub); err != nil {
		return SPKI{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return SPKI{}, refuse(FaultWrongKey, "hash key: no point of the curve")
	}
	return sha256.Sum256(der), nil
}

// CertSPKI hashes the public key of a certificate, of whatever kind it is.
func CertSPKI(cert *x509.Certificate) SPKI {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// ParseSPKI reads 64 lower-case hex digits, not all zero. The fault is [FaultBadName].
func ParseSPKI(s string) (SPKI, error) {
	var h SPKI
	if err := parseHex(h[:], s); err != nil {
		return SPKI{}, refuse(FaultBadName, "parse SPKI hash: "+err.Error())
	}
	if h.IsZero() {
		return SPKI{}, refuse(FaultBadName, "parse SPKI hash: zero is none")
	}
	return h, nil
}

// String returns 64 lower-case hex digits.
func (h SPKI) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is none.
func (h SPKI) IsZero() bool { return h == SPKI{} }

// MarshalText is String, but empty for the zero SPKI, so that "none" survives JSON.
func (h SPKI) MarshalText() ([]byte, error) {
	if h.IsZero() {
		return nil, nil
	}
	return []byte(h.String()), nil
}

// UnmarshalText is [ParseSPKI], but takes the empty text for the zero SPKI.
func (h *SPKI) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*h = SPKI{}
		return nil
	}
	*h, err = ParseSPKI(string(b))
	return err
}
