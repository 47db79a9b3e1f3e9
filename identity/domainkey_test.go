package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"
)

func someDomainReset(tb testing.TB) DomainReset {
	return DomainReset{"plant", pubOf(tb, "next"), 0x0102030405060708}
}

func TestDomainResetLayout(t *testing.T) {
	t.Attr("id", "T-vectors")
	in := newInfra(t, testNow)
	b := must(someDomainReset(t).Sign(in.root))(t)
	label := sha256.Sum256([]byte("plant"))
	want := slices.Concat([]byte("hawser domain reset v1\x00"), label[:], keyOf("next").Public().(ed25519.PublicKey), []byte{1, 2, 3, 4, 5, 6, 7, 8})
	if len(want) != 95 || len(b) != 159 || DomainResetBytes != 159 || !bytes.Equal(b[:95], want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	if !ed25519.Verify(in.root.Cert.PublicKey.(ed25519.PublicKey), want, b[95:]) {
		t.Error("not signed by the root")
	}
}

func TestVerifyDomainResetRefuses(t *testing.T) {
	t.Attr("id", "T-vectors")
	in, strange := newInfra(t, testNow), newInfra(t, testNow)
	some := someDomainReset(t)
	good := must(some.Sign(in.root))(t)
	spoil := func(change func(b []byte)) []byte {
		b := slices.Clone(good)
		change(b)
		return b
	}
	sign := func(b []byte) []byte { // the root signs whatever it is
		return append(b[:95:95], must(in.root.Key.Sign(nil, b[:95], crypto.Hash(0)))(t)...)
	}
	for what, c := range map[string]struct {
		b      []byte
		roots  *Roots
		domain string
		last   uint64
		want   Fault
	}{
		"as it should be":        {good, in.roots, "plant", some.Sequence - 1, ""},
		"first":                  {good, must(NewRoots(strange.root.Cert, in.root.Cert))(t), "plant", 0, ""},
		"taken already":          {good, in.roots, "plant", some.Sequence, FaultStale},
		"older":                  {good, in.roots, "plant", some.Sequence + 1, FaultStale},
		"another domain":         {good, in.roots, "plant2", 0, FaultNotStated},
		"another root":           {good, strange.roots, "plant", 0, FaultBadSignature},
		"no root":                {good, nil, "plant", 0, FaultBadSignature},
		"issuing CA":             {must(some.Sign(in.issuing))(t), in.roots, "plant", 0, FaultBadSignature},
		"no sequence, signed":    {sign(spoil(func(b []byte) { clear(b[87:95]) })), in.roots, "plant", 0, FaultMalformed},
		"another context":        {sign(spoil(func(b []byte) { b[21] = '2' })), in.roots, "plant", 0, FaultMalformed},
		"byte missing":           {good[:158], in.roots, "plant", 0, FaultMalformed},
		"byte after it":          {append(slices.Clone(good), 0), in.roots, "plant", 0, FaultMalformed},
		"nothing":                {nil, in.roots, "plant", 0, FaultMalformed},
		"another key, not again": {spoil(func(b []byte) { b[60] ^= 1 }), in.roots, "plant", 0, FaultBadSignature},
	} {
		got, err := VerifyDomainReset(c.b, c.roots, c.domain, c.last)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") || err == nil && got != some || err != nil && got != (DomainReset{}) {
			t.Errorf("%s: %v, %v, want %q", what, got, err, c.want)
		}
	}
	for i := range 8 * len(good) {
		if _, err := VerifyDomainReset(spoil(func(b []byte) { b[i/8] ^= 1 << (i % 8) }), in.roots, "plant", 0); FaultOf(err) == "" {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
	}
}

func TestDomainResetIsSignedByTheRootAlone(t *testing.T) {
	in := newInfra(t, testNow)
	some := someDomainReset(t)
	for what, c := range map[string]struct {
		reset DomainReset
		by    *Authority
		want  Fault
	}{
		"P-256 root":    {some, must(NewRoot(newP256(t), testNow))(t), FaultWrongKey},
		"another's key": {some, &Authority{Cert: in.root.Cert, Key: newKey(t)}, FaultWrongKey},
		"no key":        {DomainReset{"plant", PublicKey{}, 1}, in.root, FaultWrongKey},
		"P-256 key":     {DomainReset{"plant", must(NewPublicKey(newP256(t).Public()))(t), 1}, in.root, FaultWrongKey},
		"no domain":     {DomainReset{"", some.Key, 1}, in.root, FaultBadName},
		"no sequence":   {DomainReset{"plant", some.Key, 0}, in.root, FaultMalformed},
	} {
		_, err := c.reset.Sign(c.by)
		if FaultOf(err) != c.want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTheDomainKeyNamesItsSuccessor(t *testing.T) {
	pinned, next := pubOf(t, "domain"), pubOf(t, "next")
	change := DomainStatement{"plant", pinned, next, serialNow}
	sign := func(s Statement, by string) Signed { return must(Sign(s, keyOf(by)))(t) }
	for what, c := range map[string]struct {
		change Signed
		pinned PublicKey
		want   Fault
	}{
		"as it should be":    {sign(change, "domain"), pinned, ""},
		"by the new key":     {sign(change, "next"), pinned, FaultBadSignature},
		"by a stranger":      {sign(change, "thief"), pinned, FaultBadSignature},
		"of another old key": {sign(DomainStatement{"plant", pubOf(t, "thief"), next, 1}, "domain"), pinned, FaultBadSignature},
		"done already":       {sign(change, "domain"), next, FaultBadSignature},
		"of another domain":  {sign(DomainStatement{"mill", pinned, next, 1}, "domain"), pinned, FaultNotStated},
		"another statement":  {sign(someStatements(t)["admin"], "domain"), pinned, FaultMalformed},
		"no pinned key":      {sign(change, "domain"), PublicKey{}, FaultBadSignature},
	} {
		got, err := Successor(c.change, "plant", c.pinned)
		if FaultOf(err) != c.want || (err == nil) != (got == next) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}
