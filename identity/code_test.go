package identity

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
)

func TestCodesRoundTrip(t *testing.T) {
	for range 1000 {
		c := NewCode()
		s := c.String()
		if len(s) != 8*4+7+1 || strings.ContainsAny(s, shellSymbols) || !strings.HasPrefix(strings.ReplaceAll(s, "-", ""), c.LookupID()) {
			t.Fatalf("got %s", s)
		}
		if back, err := ParseCode(s); err != nil || back != c {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestCodesAreTypedAsPeopleType(t *testing.T) {
	code := must(ParseCode(withCheck("0011ABCDEFGHJKMNPQRSTVWXYZ023456")))(t)
	s := code.String()
	for what, typed := range map[string]string{
		"lower case": strings.ToLower(s),
		"no dashes":  strings.ReplaceAll(s, "-", ""),
		"spaces":     "  " + strings.ReplaceAll(s, "-", " \t") + "\r\n",
		"O for 0":    strings.ReplaceAll(s, "0", "O"),
		"o for 0":    strings.ReplaceAll(s, "0", "o"),
		"I for 1":    strings.ReplaceAll(s, "1", "I"),
		"l for 1":    strings.ReplaceAll(s, "1", "l"),
	} {
		if got, err := ParseCode(typed); err != nil || got != code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// withCheck appends the check character, computed with big numbers instead of digit by digit.
func withCheck(chars string) string {
	n := new(big.Int)
	for _, c := range chars {
		n.Lsh(n, 5).Add(n, big.NewInt(int64(strings.IndexRune(codeAlphabet, c))))
	}
	return chars + string("0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U"[n.Mod(n, big.NewInt(37)).Int64()])
}

func TestEverySingleTypoIsNoticed(t *testing.T) {
	good := strings.ReplaceAll(NewCode().String(), "-", "")
	if good != withCheck(good[:32]) {
		t.Fatal("two ways to compute the check character differ")
	}
	for i := range good {
		for _, c := range checkSymbols {
			typo := good[:i] + string(c) + good[i+1:]
			if _, err := ParseCode(typo); typo != good && FaultOf(err) != FaultBadCode {
				t.Errorf("%s for %s: %v", typo, good, err)
			}
		}
		if i > 0 && good[i-1] != good[i] {
			swapped := good[:i-1] + good[i:i+1] + good[i-1:i] + good[i+1:]
			if _, err := ParseCode(swapped); FaultOf(err) != FaultBadCode {
				t.Errorf("%s for %s: %v", swapped, good, err)
			}
		}
	}
}

func TestParseCodeRefuses(t *testing.T) {
	good := NewCode().String()
	for _, bad := range []string{
		"", "-", good[1:], good + "0", good + good, good[:20] + "\x00" + good[21:], good[:20] + "é" + good[22:], strings.Repeat(" ", 128) + good,
		strings.Repeat("U", 33), strings.Repeat("\xff", 33), strings.Repeat("０", 33), good[:4] + "\u2011" + good[5:],
	} {
		_, err := ParseCode(bad)
		wantFault(t, err, FaultBadCode)
		if err != nil && len(bad) > 20 && strings.Contains(err.Error(), bad[:10]) {
			t.Errorf("the error tells the code: %v", err)
		}
	}
}

func TestHashIsOfTheSecretAlone(t *testing.T) {
	secret := "ABCDEFGHJKMNPQRSTVWXYZ0123"
	a, b := must(ParseCode(withCheck("000000"+secret)))(t), must(ParseCode(withCheck("ZZZZZZ"+secret)))(t)
	if a.LookupID() != "000000" || b.LookupID() != "ZZZZZZ" || a.Hash() != b.Hash() {
		t.Error("lookup id and secret overlap")
	}
	if a.Hash() != sha256.Sum256([]byte("hawser code v1\x00"+secret)) {
		t.Error("not the hash of the spec")
	}
	if one, other := NewCode(), NewCode(); one.Hash() == other.Hash() {
		t.Error("two codes with one hash")
	}
}

func TestCodesStayOutOfLogs(t *testing.T) {
	code := NewCode()
	var text, json bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&json, nil))} {
		log.Info("activation", "code", code)
		log.Info("activation", "code", &code)
	}
	for _, out := range []string{text.String(), json.String()} {
		if strings.Contains(out, code.String()) || strings.Contains(out, code.chars) || strings.Count(out, "redacted") != 2 {
			t.Errorf("got %s", out)
		}
	}
	if fmt.Sprint(code) != code.String() {
		t.Error("who prints a code on purpose does not get it")
	}
}

func TestTheZeroCodeIsNone(t *testing.T) {
	var c Code
	if c.String() != "" || c.LookupID() != "" {
		t.Errorf("got %q, %q", c, c.LookupID())
	}
	if c.Hash() == NewCode().Hash() {
		t.Error("a code has the hash of none")
	}
}
