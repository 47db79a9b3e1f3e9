package identity

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vectorName makes a file name of what a case is called.
func vectorName(what string) string {
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && isASCIILetterOrDigit(r) || r == '-' {
			return r
		}
		return ' '
	}, what)
	return strings.ToLower(strings.Join(strings.Fields(clean), "-"))
}

func writeStatements(tb testing.TB) {
	key := pubOf(tb, "domain")
	write := func(name, jws string, expect Fault, more ...string) {
		writeVector(tb, "statement-"+name, nil, expect, append([]string{"statement", strconv.Quote(jws), "key", key.String()}, more...)...)
	}
	for what, s := range someStatements(tb) {
		signed := must(Sign(s, keyOf("domain")))(tb)
		write("good-"+what, signed.JWS, "", "typ", s.typ(), "payload", strconv.Quote(payloadOf(tb, signed)))
		if what == "admin" {
			write("flipped", signed.JWS[:len(signed.JWS)-3]+"AAA", FaultBadSignature)
			write("by-another", must(Sign(s, keyOf("next")))(tb).JWS, FaultBadSignature)
		}
	}
	bad := spoiled(tb, someStatements(tb)["key"])
	for _, what := range []string{`missing "label"`, `missing "serial"`, `doubled "key"`, `doubled first "serial"`, `case "label"`, `both cases "user"`, `escape "domain"`,
		`null "user"`, `unknown before "label"`, `space at "key"`, `order at "key"`, `number "serial":1772366400000.0`, `number "serial":1772366400000e0`,
		`number "serial":01772366400000`, `number "serial":-1772366400000`, `escaped value of "label"`, "unknown at the end", "line end after", "header space",
		"header order", "none", "case of typ", "typ hawser-user", "line end in part 1", "padding in part 1", "other alphabet in part 2", "bits left over in part 2", "fourth part"} {
		jws, ok := bad[what]
		if !ok && !strings.HasPrefix(what, "other alphabet") { // not every signature has such a character
			tb.Fatalf("no spoiled statement %q", what)
		}
		if ok {
			write("bad-"+vectorName(what), jws, FaultMalformed)
		}
	}
	outside := outOfRange(tb)
	for i, what := range slices.Sorted(maps.Keys(outside)) {
		if !strings.HasPrefix(what, "operator") { // of which there are many of a kind
			write(fmt.Sprintf("range-%03d-%s", i, strings.Fields(what)[0]), outside[what], FaultMalformed)
		}
	}
}

func TestStatementVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "statement", 60, func(t *testing.T, v vector) {
		jws := must(strconv.Unquote(v.get(t, "statement")))(t)
		key := must(ParsePublicKey(v.get(t, "key")))(t)
		s, err := ParseStatement(jws)
		if err == nil && !s.SignedBy(key) {
			err = refuse(FaultBadSignature, "not signed by that key")
		}
		if v.expect(t, err) && (s.Statement.typ() != v.get(t, "typ") || payloadOf(t, s) != must(strconv.Unquote(v.get(t, "payload")))(t)) {
			t.Errorf("got %v", s.Statement)
		}
		typ, _, err := independent(jws)
		raw := must(plainBase64(v.get(t, "key")))(t)
		got := "success"
		if err != nil {
			got = "malformed"
		} else if !independentSigned(jws, ed25519.PublicKey(raw[12:])) {
			got = "bad-signature"
		}
		if got != v.get(t, "expect") || got == "success" && typ != v.get(t, "typ") {
			t.Errorf("the independent verifier says %s (%v)", got, err)
		}
	})
}

func writeDomainResets(tb testing.TB, in infra) {
	some := someDomainReset(tb)
	good := must(some.Sign(in.root))(tb)
	write := func(name string, b []byte, expect Fault, domain string, last uint64) {
		writeVector(tb, "domain-reset-"+name, nil, expect, "roots", "roots.pem", "reset", hex.EncodeToString(b), "domain", domain, "last", fmt.Sprint(last),
			"key", some.Key.String(), "sequence", fmt.Sprint(some.Sequence))
	}
	flipped := slices.Clone(good)
	flipped[60] ^= 1
	write("good", good, "", "plant", 0)
	write("good-newer", good, "", "plant", some.Sequence-1)
	write("again", good, FaultStale, "plant", some.Sequence)
	write("flipped", flipped, FaultBadSignature, "plant", 0)
	write("issuing-ca", must(some.Sign(in.issuing))(tb), FaultBadSignature, "plant", 0)
	write("other-domain", good, FaultNotStated, "mill", 0)
	write("truncated", good[:len(good)-1], FaultMalformed, "plant", 0)
	write("context", append([]byte("H"), good[1:]...), FaultMalformed, "plant", 0)
}

func TestDomainResetVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "domain-reset", 8, func(t *testing.T, v vector) {
		last := must(strconv.ParseUint(v.get(t, "last"), 10, 64))(t)
		got, err := VerifyDomainReset(v.hex(t, "reset"), v.roots(t), v.get(t, "domain"), last)
		if v.expect(t, err) && (got.Key.String() != v.get(t, "key") || fmt.Sprint(got.Sequence) != v.get(t, "sequence")) {
			t.Errorf("got %v", got)
		}
		pinned := must(os.ReadFile(filepath.Join(vectorDir, v.get(t, "roots"))))(t)
		answer, key, sequence := independentReset(v.hex(t, "reset"), pinned, v.get(t, "domain"), last)
		raw := must(plainBase64(v.get(t, "key")))(t)
		if answer != v.get(t, "expect") || err == nil && (key != fmt.Sprintf("%x", raw[12:]) || sequence != got.Sequence) {
			t.Errorf("the independent verifier says %s, key %s, sequence %d", answer, key, sequence)
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	key := pubOf(f, "domain")
	signed := map[string]bool{}
	seeds(f, "statement", func(v vector) {
		jws := must(strconv.Unquote(v.get(f, "statement")))(f)
		f.Add(jws)
		signed[jws] = v.fields["expect"] == "success"
	})
	f.Fuzz(func(t *testing.T, jws string) {
		s, err := ParseStatement(jws)
		if _, _, other := independent(jws); (err == nil) != (other == nil) {
			t.Errorf("we say %v, the independent verifier %v", err, other)
		}
		if refused(t, err) {
			return
		}
		if s.SignedBy(key) && !signed[jws] {
			t.Errorf("took %v, which nobody signed", s.Statement)
		}
		again := must(Sign(s.Statement, keyOf("other")))(t)
		if payloadOf(t, again) != payloadOf(t, s) {
			t.Errorf("%s came back as %s", payloadOf(t, s), payloadOf(t, again))
		}
	})
}

// FuzzStatementPayload signs whatever it is, so that nothing but the payload can be the reason of a refusal.
func FuzzStatementPayload(f *testing.F) {
	typs := []string{typUser, typDevice, typInvite, typKey, typList, typDomain}
	for _, s := range someStatements(f) {
		f.Add(uint8(slices.Index(typs, s.typ())), payloadOf(f, must(Sign(s, keyOf("domain")))(f)))
	}
	f.Fuzz(func(t *testing.T, i uint8, payload string) {
		jws := jwsOf(`{"alg":"EdDSA","typ":"`+typs[int(i)%len(typs)]+`"}`, payload, keyOf("domain"))
		s, err := ParseStatement(jws)
		if _, _, other := independent(jws); (err == nil) != (other == nil) {
			t.Errorf("we say %v, the independent verifier %v", err, other)
		}
		if !refused(t, err) && payloadOf(t, must(Sign(s.Statement, keyOf("domain")))(t)) != payload {
			t.Errorf("%s came back as another payload", payload)
		}
	})
}

func FuzzVerifyDomainReset(f *testing.F) {
	fuzzReset(f, "domain-reset", func(b []byte, roots *Roots) (DomainReset, error) { return VerifyDomainReset(b, roots, "plant", 0) })
}
