package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// The form of identity §11.1.
const (
	maxStatementBytes = 4 << 10  // of JWS
	maxListBytes      = 64 << 10 // of JWS
	// MaxSerial is the greatest serial: beyond it a program that reads each JSON number as a double would see another.
	MaxSerial  = 1<<53 - 1
	maxSeconds = 1<<43 - 1 // a thousand times as many are still no more than MaxSerial
)

// The words typ of identity §11.2.
const (
	typUser   = "hawser-user"
	typDevice = "hawser-device"
	typInvite = "hawser-invite"
	typKey    = "hawser-key"
	typList   = "hawser-list"
	typDomain = "hawser-domain"
)

// Statement is what an owner's key can sign: one of [UserStatement], [DeviceStatement], [InviteStatement], [KeyStatement],
// [ListStatement] and [DomainStatement], as values. By itself it proves nothing: see [Signed].
type Statement interface {
	typ() string
	domain() string
	// check tells whether each member is one that may be signed.
	check() error
}

// Signed is a statement with its signature (identity §11.1). Parsing verifies nothing about who signed it. Every byte of a
// JWS counts: two texts that differ are two statements.
type Signed struct {
	Statement Statement
	JWS       string
}

// Sign states s with an Ed25519 key. It signs only what [ParseStatement] takes. Whether that key may state it is judged by
// whoever reads it. The faults are those of ParseStatement, and [FaultWrongKey].
func Sign(s Statement, key crypto.Signer) (Signed, error) {
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return Signed{}, refuse(FaultWrongKey, "sign statement: not an Ed25519 key")
	}
	if err := s.check(); err != nil {
		return Signed{}, err
	}
	payload, err := encodePayload(s)
	if err != nil {
		return Signed{}, err
	}
	message := jwsHeader(s.typ()) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := key.Sign(rand.Reader, []byte(message), crypto.Hash(0)) // Ed25519 hashes by itself
	if err != nil {
		return Signed{}, fmt.Errorf("sign statement: %w", err)
	}
	jws := message + "." + base64.RawURLEncoding.EncodeToString(signature)
	if len(jws) > maxBytesOf(s.typ()) {
		return Signed{}, refuse(FaultMalformed, "sign statement: longer than a statement may be")
	}
	return Signed{s, jws}, nil
}

// ParseStatement reads a statement in its one spelling (identity §11.1, §11.2). The fault is [FaultMalformed]: nobody signs
// what does not parse, so no finer reason would help.
func ParseStatement(jws string) (Signed, error) {
	header, rest, ok := strings.Cut(jws, ".")
	if !ok || len(jws) > maxListBytes {
		return Signed{}, refuse(FaultMalformed, "parse statement: not a compact JWS of at most 64 KiB")
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if b, err := strictBase64(signature); !ok || err != nil || len(b) != ed25519.SignatureSize {
		return Signed{}, refuse(FaultMalformed, "parse statement: the signature is not 64 bytes in strict base64url")
	}
	for _, typ := range []string{typUser, typDevice, typInvite, typKey, typList, typDomain} {
		if header != jwsHeader(typ) {
			continue
		}
		if len(jws) > maxBytesOf(typ) {
			return Signed{}, refuse(FaultMalformed, "parse statement: too long")
		}
		b, err := strictBase64(payload)
		if err != nil {
			return Signed{}, refuse(FaultMalformed, "parse statement: the payload is not strict base64url")
		}
		s, err := decodePayload(typ, b)
		if err != nil {
			return Signed{}, err
		}
		return Signed{s, jws}, nil
	}
	return Signed{}, refuse(FaultMalformed, "parse statement: not a header of a statement")
}

// SignedBy tells whether key has signed it. A key that is not Ed25519 signs no statement.
func (s Signed) SignedBy(key PublicKey) bool {
	pub, ok := key.ed25519()
	i := strings.LastIndexByte(s.JWS, '.')
	if !ok || i < 0 {
		return false
	}
	signature, err := strictBase64(s.JWS[i+1:])
	return err == nil && ed25519.Verify(pub, []byte(s.JWS[:i]), signature)
}

func jwsHeader(typ string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"` + typ + `"}`))
}

func maxBytesOf(typ string) int {
	if typ == typList {
		return maxListBytes
	}
	return maxStatementBytes
}

// decodePayload lets encoding/json read whatever it likes, which is a good deal, and then wants to see the same bytes
// again.
func decodePayload(typ string, b []byte) (Statement, error) {
	switch typ {
	case typUser:
		return decodeAs[UserStatement](b)
	case typDevice:
		return decodeAs[DeviceStatement](b)
	case typInvite:
		return decodeAs[InviteStatement](b)
	case typKey:
		return decodeAs[KeyStatement](b)
	case typList:
		return decodeAs[ListStatement](b)
	default:
		return decodeAs[DomainStatement](b)
	}
}

func decodeAs[S Statement](b []byte) (Statement, error) {
	var s S
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, refuse(FaultMalformed, "parse statement: the payload is not what a "+s.typ()+" says")
	}
	if err := s.check(); err != nil {
		return nil, refuse(FaultMalformed, "parse statement: "+s.typ()+": "+err.Error())
	}
	again, err := encodePayload(s)
	if err != nil || !bytes.Equal(again, b) {
		return nil, refuse(FaultMalformed, "parse statement: the payload of the "+s.typ()+" is not in its one spelling")
	}
	return s, nil
}

func encodePayload(s Statement) ([]byte, error) {
	b, err := json.Marshal(s) // no text that passes check holds a character that it would escape
	if err != nil {
		return nil, refuse(FaultMalformed, "encode statement: "+err.Error())
	}
	return b, nil
}

// strictBase64 also refuses the line ends that the decoder of the standard library skips.
func strictBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, refuse(FaultMalformed, "decode base64url: a line end")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
