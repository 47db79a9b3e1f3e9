package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"strings"
)

// The format of identity §7. The check symbols that a shell would expand are never given out: a code is pasted into a
// command line.
const (
	codeAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base32
	checkSymbols = codeAlphabet + "*~$=U"             // one for each remainder modulo 37
	shellSymbols = "*~$="
	codeChars    = 32 // 160 bits
	lookupChars  = 6  // 30 bits; the other 130 are the secret
	codeContext  = "hawser code v1\x00"
	maxCodeInput = 128 // bytes, with all that is ignored
)

// Code is an activation or login code of a server: a lookup id and a secret (identity §7). String shows all of it; logs get only
// the word redacted. The zero Code is none. It is a type of its own: what was parsed once is a code everywhere after
// that.
type Code struct {
	chars string // codeChars characters of codeAlphabet
}

// NewCode returns a random code. Who stores it makes sure that its lookup id is unused.
func NewCode() Code { return newCode(0) }

// newCode draws only the lookup id again: a secret is never thrown away for its check character, which would make it a
// little less random.
func newCode(shift int) Code {
	chars := randomChars()
	for {
		c := Code{randomChars()[:lookupChars] + chars[lookupChars:]}
		if !strings.ContainsRune(shellSymbols, rune(c.check(shift))) {
			return c
		}
	}
}

// ParseCode reads a code as people type it: any case, with or without spaces and dashes, I and L for 1, O for 0.
// The fault is [FaultBadCode]; the error holds nothing of the code.
func ParseCode(s string) (Code, error) {
	if len(s) > maxCodeInput {
		return Code{}, refuse(FaultBadCode, "parse code: too long")
	}
	if IsOwnerCode(s) {
		return Code{}, refuse(FaultBadCode, "parse code: an owner's code, for a device or a user, is of no use here")
	}
	return checkCode(strings.Map(codeChar, s), 0)
}

// checkCode wants the characters of a code and their check character, and nothing else.
func checkCode(typed string, shift int) (Code, error) {
	if len(typed) != codeChars+1 {
		return Code{}, refuse(FaultBadCode, "parse code: not 33 characters, or 34 with the U of an owner's code")
	}
	c := Code{typed[:codeChars]}
	if strings.Trim(c.chars, codeAlphabet) != "" {
		return Code{}, refuse(FaultBadCode, "parse code: a character that codes do not have")
	}
	if typed[codeChars] != c.check(shift) {
		return Code{}, refuse(FaultBadCode, "parse code: mistyped")
	}
	return c, nil
}

// String returns the code as a person reads and types it: XXXX-…-XXXXC.
func (c Code) String() string {
	if c.chars == "" {
		return ""
	}
	return c.text(0)
}

// text groups the characters, and ends with their check character.
func (c Code) text(shift int) string {
	var b strings.Builder
	for i := 0; i < codeChars; i += 4 {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(c.chars[i : i+4])
	}
	b.WriteByte(c.check(shift))
	return b.String()
}

// LogValue keeps the code out of logs.
func (c Code) LogValue() slog.Value { return slog.StringValue("redacted") }

// LookupID returns the first 6 characters, by which a server finds the code. It is no secret.
func (c Code) LookupID() string {
	if c.chars == "" {
		return ""
	}
	return c.chars[:lookupChars]
}

// Hash returns what a server stores instead of the secret. A slow hash would protect nothing: 130 random bits cannot be
// tried.
func (c Code) Hash() [32]byte {
	return sha256.Sum256([]byte(codeContext + c.secret()))
}

// secret is the other 26 characters.
func (c Code) secret() string { return strings.TrimPrefix(c.chars, c.LookupID()) }

// check returns the check character: the number plus shift, modulo 37. It finds each single wrong character and each swap of two
// neighbours, as 37 is a prime: people type codes from paper.
func (c Code) check(shift int) byte {
	rest := 0
	for i := range len(c.chars) {
		rest = (rest*32 + strings.IndexByte(codeAlphabet, c.chars[i])) % len(checkSymbols)
	}
	return checkSymbols[(rest+shift)%len(checkSymbols)]
}

func randomChars() string {
	var b [codeChars * 5 / 8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base32.NewEncoding(codeAlphabet).WithPadding(base32.NoPadding).EncodeToString(b[:])
}

// codeChar maps what is typed to what is meant; a negative answer drops the character.
func codeChar(r rune) rune {
	switch {
	case strings.ContainsRune(" \t\r\n-", r):
		return -1
	case 'a' <= r && r <= 'z':
		r -= 'a' - 'A'
	}
	switch r {
	case 'I', 'L':
		return '1'
	case 'O':
		return '0'
	}
	return r
}
