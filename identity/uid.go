package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// UID names a device and never changes: 128 random bits (identity §1). The zero UID stands for none.
type UID [16]byte

// NewUID returns a new random UID.
func NewUID() UID {
	var u UID
	rand.Read(u[:]) // never fails: crypto/rand ends the process instead
	return u
}

// ParseUID reads 32 lower-case hex digits, not all zero. The fault is [FaultBadName].
func ParseUID(s string) (UID, error) {
	var u UID
	if err := parseHex(u[:], s); err != nil {
		return UID{}, refuse(FaultBadName, "parse UID: "+err.Error())
	}
	if u.IsZero() {
		return UID{}, refuse(FaultBadName, "parse UID: zero is no UID")
	}
	return u, nil
}

// String returns 32 lower-case hex digits.
func (u UID) String() string { return hex.EncodeToString(u[:]) }

// IsZero reports whether u is none.
func (u UID) IsZero() bool { return u == UID{} }

// MarshalText is String, but empty for the zero UID, so that "none" survives JSON.
func (u UID) MarshalText() ([]byte, error) {
	if u.IsZero() {
		return nil, nil
	}
	return []byte(u.String()), nil
}

// UnmarshalText is [ParseUID], but takes the empty text for the zero UID.
func (u *UID) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*u = UID{}
		return nil
	}
	*u, err = ParseUID(string(b))
	return err
}

// parseHex fills dst from exactly as many lower-case digits: upper case would give a value two spellings.
func parseHex(dst []byte, s string) error {
	if len(s) != hex.EncodedLen(len(dst)) {
		return errors.New("wrong length")
	}
	for i := range len(s) {
		if !('0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f') {
			return errors.New("not lower-case hex digits")
		}
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}
