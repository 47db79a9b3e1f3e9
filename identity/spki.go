package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// SPKI is the SHA-256 of a SubjectPublicKeyInfo: it names a key (identity §2). The zero SPKI stands for none.
type SPKI [sha256.Size]byte

// SPKIOf hashes a public key. The fault is [FaultWrongKey] for a key that is neither Ed25519 nor P-256.
func SPKIOf(pub crypto.PublicKey) (SPKI, error) {
	key, err := NewPublicKey(pub)
	return key.SPKI(), err
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

// maxPinBytes bounds a pin that somebody types: 64 digits, with a colon and a space at each.
const maxPinBytes = 256

// ParsePin reads an SPKI hash as a person types or pastes it: in either case, with colons, hyphens, spaces and line ends
// between the digits, which other programs print there (identity §2). Peers get no such leniency: see [ParseSPKI]. The
// fault is [FaultBadName].
func ParsePin(s string) (SPKI, error) {
	if len(s) > maxPinBytes {
		return SPKI{}, refuse(FaultBadName, "parse pin: too long")
	}
	digits := strings.ToLower(strings.NewReplacer(":", "", "-", "", " ", "", "\t", "", "\r", "", "\n", "").Replace(s))
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return SPKI{}, refuse(FaultBadName, "parse pin: want 64 hex digits, and there is something else in it")
	}
	if want := hex.EncodedLen(len(SPKI{})); len(digits) != want {
		return SPKI{}, refuse(FaultBadName, fmt.Sprintf("parse pin: want %d hex digits, got %d", want, len(digits)))
	}
	return ParseSPKI(digits)
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
