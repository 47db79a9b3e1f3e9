package identity

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// someJoin has a different value in every field.
var someJoin = JoinState{Node: "a", UID: UID{1, 15: 2}, SPKI: SPKI{3, 31: 4}, Counter: 0x0102030405060708, Random: [16]byte{5, 15: 6},
	Time: testNow.Add(123456789 * time.Nanosecond)}

func TestJoinStateRoundTrips(t *testing.T) {
	s := newAuditor(t)
	for _, want := range []JoinState{someJoin, {Node: "a", UID: UID{1}, Counter: 1, Time: testNow}} {
		b := must(want.Sign(s.key, s.cert))(t)
		got, err := VerifyJoinState(b, s.roots)
		if err != nil || got != want || len(b) > MaxJoinStateBytes {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestJoinStateLayout(t *testing.T) {
	s := newAuditor(t)
	b := must(someJoin.Sign(s.key, s.cert))(t)
	want := slices.Concat([]byte("hawser join state v1\x00"), someJoin.UID[:], someJoin.SPKI[:], []byte{1, 2, 3, 4, 5, 6, 7, 8}, someJoin.Random[:],
		[]byte{0x18, 0x98, 0xb5, 0xd9, 0xbb, 0x32, 0x4d, 0x15}) // 1772366400123456789
	if len(want) != 101 || !bytes.Equal(b[:101], want) {
		t.Errorf("got  %x\nwant %x", b[:101], want)
	}
	if !bytes.Equal(b[101+64:], s.cert.Raw) {
		t.Error("no certificate after the signature")
	}
}

func TestVerifyJoinStateRefuses(t *testing.T) {
	s, strange := newAuditor(t), newAuditor(t)
	good := must(someJoin.Sign(s.key, s.cert))(t)
	resigned := func(change func(b []byte)) []byte { // the server signs whatever it is
		b := slices.Clone(good)
		change(b)
		copy(b[joinMessageBytes:], must(s.key.Sign(nil, b[:joinMessageBytes], crypto.Hash(0)))(t))
		return b
	}
	head := must(someHead.Sign(s.key, s.cert))(t)
	for what, c := range map[string]struct {
		b     []byte
		roots *Roots
		want  Fault
	}{
		"as it should be":     {good, s.roots, ""},
		"nothing":             {nil, s.roots, FaultMalformed},
		"no certificate":      {good[:joinMessageBytes+64], s.roots, FaultMalformed},
		"byte missing":        {good[:len(good)-1], s.roots, FaultMalformed},
		"too long":            {slices.Concat(good, make([]byte, maxServerKeyBytes)), s.roots, FaultMalformed},
		"an audit head":       {head, s.roots, FaultMalformed},
		"counter 0, signed":   {resigned(func(b []byte) { clear(b[69:77]) }), s.roots, FaultMalformed},
		"no UID, signed":      {resigned(func(b []byte) { clear(b[21:37]) }), s.roots, FaultMalformed},
		"before 1970, signed": {resigned(func(b []byte) { b[93] = 0x80 }), s.roots, FaultMalformed},
		"flipped":             {slices.Concat(good[:80], []byte{good[80] ^ 1}, good[81:]), s.roots, FaultBadSignature},
		"other root":          {good, strange.roots, FaultWrongRoot},
	} {
		got, err := VerifyJoinState(c.b, c.roots)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") || err != nil && got != (JoinState{}) {
			t.Errorf("%s: got %v, %v, want %q", what, got, err, c.want)
		}
	}
	for _, bad := range []JoinState{{UID: UID{1}, Time: testNow}, {Counter: 1, Time: testNow}} {
		_, err := bad.Sign(s.key, s.cert)
		wantFault(t, err, FaultMalformed)
	}
}

func TestJoinStateVectors(t *testing.T) {
	eachVector(t, "join", 4, func(t *testing.T, v vector) {
		got, err := VerifyJoinState(v.hex(t, "state"), v.roots(t))
		if v.expect(t, err) && (got.Node != v.get(t, "node") || got.UID != UID(v.hex(t, "uid")) || got.SPKI != SPKI(v.hex(t, "spki")) ||
			fmt.Sprint(got.Counter) != v.get(t, "counter") || got.Random != [16]byte(v.hex(t, "random")) || got.Time.Format(time.RFC3339Nano) != v.get(t, "time")) {
			t.Errorf("got %v", got)
		}
	})
}

func TestWordsVectors(t *testing.T) {
	eachVector(t, "words", 2, func(t *testing.T, v vector) {
		got, err := Words(UID(v.hex(t, "uid")), SPKI(v.hex(t, "spki")))
		if v.expect(t, err) && got != v.get(t, "words") {
			t.Errorf("got %q, want %q", got, v.get(t, "words"))
		}
	})
}

// Each word is five letters for 16 bits, and no two numbers have one word.
func TestWordsArePronounceableAndDiffer(t *testing.T) {
	for n, want := range map[uint16]string{0: "babab", 0xffff: "zuzuz", 0x1234: "damuh", 0x7f00: "lusab", 0xc0a8: "safom"} {
		if got := word(n); got != want {
			t.Errorf("%#04x: %q, want %q", n, got, want)
		}
	}
	seen := map[string]bool{}
	for n := range 1 << 16 {
		seen[word(uint16(n))] = true
	}
	if len(seen) != 1<<16 {
		t.Errorf("%d words", len(seen))
	}
	one := must(Words(UID{1}, SPKI{1}))(t)
	for _, typed := range []string{one, strings.ToUpper(one), strings.ReplaceAll(one, " ", "-"), "  " + strings.ReplaceAll(one, " ", "\t ") + "\r\n"} {
		if NormalWords(typed) != one {
			t.Errorf("%q is read as %q", typed, NormalWords(typed))
		}
	}
	if one == must(Words(UID{2}, SPKI{1}))(t) || one == must(Words(UID{1}, SPKI{2}))(t) || NormalWords("") != "" {
		t.Error("the same words for another device, or another key")
	}
}
