package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// The layout of identity §19.1: context, UID, SPKI, counter, random, time; signature; certificate.
const (
	joinContext      = "hawser join state v1\x00"
	joinMessageBytes = len(joinContext) + 16 + 32 + 8 + 16 + 8
	// MaxJoinStateBytes is the most that one is long.
	MaxJoinStateBytes = joinMessageBytes + ed25519.SignatureSize + maxServerKeyBytes
)

// JoinState is what an Access Server gives a device to show the next time (identity §19.1). A copy of the device's key and
// state that is used beside it shows one that the server has replaced.
type JoinState struct {
	Node    string // the server's label; its grant key's certificate says it
	UID     UID
	SPKI    SPKI   // of the device's key: another key begins anew
	Counter uint64 // 1 or more
	Random  [16]byte
	Time    time.Time // of the signature: nanoseconds, 1970 to 2262
}

// Sign encodes j, but not its Node, and signs it with the grant key that cert certifies.
func (j JoinState) Sign(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	const op = "sign join-state"
	if j.Counter < 1 || j.UID.IsZero() {
		return nil, refuse(FaultMalformed, op+": no counter, or no device")
	}
	b := append([]byte(joinContext), j.UID[:]...)
	b = append(b, j.SPKI[:]...)
	b = binary.BigEndian.AppendUint64(b, j.Counter)
	return signByGrant(op, append(b, j.Random[:]...), j.Time, key, cert)
}

// VerifyJoinState reads a join-state that the grant key of some Access Server under roots has signed. The error is an
// [*Error].
func VerifyJoinState(b []byte, roots *Roots) (JoinState, error) {
	const op = "verify join-state"
	fields, at, node, err := verifyByGrant(op, b, joinContext, joinMessageBytes, roots)
	if err != nil {
		return JoinState{}, err
	}
	j := JoinState{Node: node, UID: UID(fields), SPKI: SPKI(fields[16:]), Counter: binary.BigEndian.Uint64(fields[48:]), Random: [16]byte(fields[56:]), Time: at}
	if j.Counter < 1 || j.UID.IsZero() {
		return JoinState{}, refuse(FaultMalformed, op+": no counter, or no device")
	}
	return j, nil
}

// wordRounds makes each try to find a key with the same words dear (identity §19.2).
const wordRounds = 1 << 15

// Words are four words for a key of a device, by which a person tells it from another one: 64 bits of a slow hash, each word
// 16 of them (identity §19.2).
func Words(uid UID, key SPKI) (string, error) {
	sum, err := pbkdf2.Key(sha256.New, string(key[:]), append([]byte("hawser key words v1\x00"), uid[:]...), wordRounds, 8)
	if err != nil {
		return "", fmt.Errorf("words of a key: %w", err)
	}
	var words []string
	for ; len(sum) > 0; sum = sum[2:] {
		words = append(words, word(binary.BigEndian.Uint16(sum)))
	}
	return strings.Join(words, " "), nil
}

// word spells 16 bits as consonant, vowel, consonant, vowel, consonant: no two sound alike, and there is no list to carry.
func word(n uint16) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aiou"
	return string([]byte{consonants[n>>12], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15]})
}

// NormalWords is how [Words] spells what a person has typed: in small letters, with one space between two words. What he
// puts between them may also be a hyphen.
func NormalWords(typed string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(strings.ToLower(typed), "-", " ")), " ")
}
