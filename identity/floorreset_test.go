package identity

import (
	"bytes"
	"crypto"
	"slices"
	"testing"
	"testing/quick"
	"time"
)

// someReset has a different value in every field.
var someReset = FloorReset{UID: UID{5, 15: 6}, To: testNow.Add(123456789 * time.Nanosecond), Sequence: 0x0102030405060708}

func TestFloorResetRoundTrips(t *testing.T) {
	in := newInfra(t, testNow)
	err := quick.Check(func(uid UID, ns int64, sequence uint64) bool {
		uid[0] |= 1 // not zero
		want := FloorReset{uid, time.Unix(0, ns&(1<<63-1)).UTC(), sequence}
		got, err := VerifyFloorReset(must(want.Sign(in.root))(t), in.roots, uid)
		return err == nil && got == want
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestFloorResetLayout(t *testing.T) {
	in := newInfra(t, testNow)
	b := must(someReset.Sign(in.root))(t)
	want := slices.Concat([]byte("hawser floor reset v1\x00"), someReset.UID[:],
		[]byte{0x18, 0x98, 0xb5, 0xd9, 0xbb, 0x32, 0x4d, 0x15}, // 1772366400123456789
		[]byte{1, 2, 3, 4, 5, 6, 7, 8})
	if len(want) != 54 || len(b) != 118 || FloorResetBytes != 118 || !bytes.Equal(b[:54], want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
}

func TestVerifyFloorResetRefuses(t *testing.T) {
	in, strange := newInfra(t, testNow), newInfra(t, testNow)
	good := must(someReset.Sign(in.root))(t)
	spoil := func(change func(b []byte)) []byte {
		b := slices.Clone(good)
		change(b)
		return b
	}
	sign := func(b []byte) []byte { // the root signs whatever it is
		return append(b[:resetMessageBytes:resetMessageBytes], must(in.root.Key.Sign(nil, b[:resetMessageBytes], crypto.Hash(0)))(t)...)
	}
	server := newTimeServer(t)
	signedTime := must(someTime.Sign(server.key, server.cert))(t)
	both := must(NewRoots(strange.root.Cert, in.root.Cert))(t)
	for what, c := range map[string]struct {
		b     []byte
		roots *Roots
		uid   UID
		want  Fault
	}{
		"as it should be":           {good, in.roots, someReset.UID, ""},
		"second of two roots":       {good, both, someReset.UID, ""},
		"nothing":                   {nil, in.roots, someReset.UID, FaultMalformed},
		"byte missing":              {good[:117], in.roots, someReset.UID, FaultMalformed},
		"byte after it":             {append(slices.Clone(good), 0), in.roots, someReset.UID, FaultMalformed},
		"other context, signed":     {sign(spoil(func(b []byte) { b[20] = '2' })), in.roots, someReset.UID, FaultMalformed},
		"before 1970, signed":       {sign(spoil(func(b []byte) { b[38] = 0x80 })), in.roots, someReset.UID, FaultMalformed},
		"signed time cut to length": {signedTime[:FloorResetBytes], server.roots, someReset.UID, FaultMalformed},
		"other root":                {good, strange.roots, someReset.UID, FaultBadSignature},
		"no root":                   {good, nil, someReset.UID, FaultBadSignature},
		"issuing CA's signature":    {must(someReset.Sign(in.issuing))(t), in.roots, someReset.UID, FaultBadSignature},
		"no signature":              {spoil(func(b []byte) { clear(b[resetMessageBytes:]) }), in.roots, someReset.UID, FaultBadSignature},
		"other device":              {good, in.roots, UID{1}, FaultWrongUID},
		"asker without a UID":       {good, in.roots, UID{}, FaultWrongUID},
		"for nobody, signed":        {sign(spoil(func(b []byte) { clear(b[22:38]) })), in.roots, UID{}, FaultWrongUID},
	} {
		got, err := VerifyFloorReset(c.b, c.roots, c.uid)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		if err != nil && got != (FloorReset{}) {
			t.Errorf("%s: refused, and yet it says %v", what, got)
		}
	}
}

func TestAnyBitFlippedInAFloorResetIsNoticed(t *testing.T) {
	in := newInfra(t, testNow)
	good := must(someReset.Sign(in.root))(t)
	for i := range 8 * len(good) {
		b := slices.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, err := VerifyFloorReset(b, in.roots, someReset.UID); FaultOf(err) == "" {
			t.Fatalf("bit %d flipped: got %v", i, err)
		}
	}
}

func TestFloorResetIsSignedByTheRootAlone(t *testing.T) {
	in := newInfra(t, testNow)
	for what, c := range map[string]struct {
		reset FloorReset
		by    *Authority
		want  Fault
	}{
		"P-256 root":    {someReset, must(NewRoot(newP256(t), testNow))(t), FaultWrongKey},
		"another's key": {someReset, &Authority{Cert: in.root.Cert, Key: newKey(t)}, FaultWrongKey},
		"no device":     {FloorReset{To: testNow}, in.root, FaultWrongUID},
	} {
		_, err := c.reset.Sign(c.by)
		if FaultOf(err) != c.want {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for _, when := range []time.Time{{}, time.Unix(-1, 0), time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := (FloorReset{UID: someReset.UID, To: when}).Sign(in.root); err == nil {
			t.Errorf("signed %v", when)
		}
	}
}
