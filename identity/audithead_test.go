package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

// auditor is an Access Server that signs audit heads.
type auditor struct {
	infra
	key  crypto.Signer
	cert *x509.Certificate
}

func newAuditor(tb testing.TB) auditor {
	tb.Helper()
	in, key := newInfra(tb, testNow), newKey(tb)
	return auditor{in, key, must(in.root.CertifyGrantKey(AccessName("a"), key.Public(), testNow))(tb)}
}

// someHead has a different value in every field.
var someHead = AuditHead{Node: "a", Seq: 0x0102030405060708, Hash: [32]byte{3, 31: 4}, Time: testNow.Add(123456789 * time.Nanosecond)}

func TestAuditHeadRoundTrips(t *testing.T) {
	s := newAuditor(t)
	for _, want := range []AuditHead{someHead, {Node: "a", Seq: 1, Time: testNow}} {
		got, err := VerifyAuditHead(must(want.Sign(s.key, s.cert))(t), s.roots)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestAuditHeadLayout(t *testing.T) {
	s := newAuditor(t)
	b := must(someHead.Sign(s.key, s.cert))(t)
	want := slices.Concat([]byte("hawser audit head v1\x00"), []byte{1, 2, 3, 4, 5, 6, 7, 8}, someHead.Hash[:],
		[]byte{0x18, 0x98, 0xb5, 0xd9, 0xbb, 0x32, 0x4d, 0x15}) // 1772366400123456789
	if len(want) != 69 || !bytes.Equal(b[:69], want) {
		t.Errorf("got  %x\nwant %x", b[:69], want)
	}
	if !bytes.Equal(b[69+64:], s.cert.Raw) {
		t.Error("no certificate after the signature")
	}
}

func TestVerifyAuditHeadRefuses(t *testing.T) {
	s, strange := newAuditor(t), newAuditor(t)
	good := must(someHead.Sign(s.key, s.cert))(t)
	at := func(when time.Time) []byte {
		h := someHead
		h.Time = when
		return must(h.Sign(s.key, s.cert))(t)
	}
	resigned := func(change func(b []byte)) []byte { // the server signs whatever it is
		b := slices.Clone(good)
		change(b)
		copy(b[auditMessageBytes:], must(s.key.Sign(nil, b[:auditMessageBytes], crypto.Hash(0)))(t))
		return b
	}
	timeCert := must(s.root.CertifyTimeKey(AccessName("a"), s.key.Public(), testNow))(t)
	leaf := must(s.issuing.Issue(Request{AccessName("a"), s.key.Public(), testNow, testNow.Add(day)}))(t)[0]
	p256 := must(s.issuing.Issue(Request{AccessName("a"), newP256(t).Public(), testNow, testNow.Add(day)}))(t)[0]
	for what, c := range map[string]struct {
		b     []byte
		roots *Roots
		want  Fault
	}{
		"as it should be":         {good, s.roots, ""},
		"nothing":                 {nil, s.roots, FaultMalformed},
		"no certificate":          {good[:auditFixedBytes], s.roots, FaultMalformed},
		"byte missing":            {good[:len(good)-1], s.roots, FaultMalformed},
		"too long":                {slices.Concat(good, make([]byte, maxServerKeyBytes)), s.roots, FaultMalformed},
		"other context, signed":   {resigned(func(b []byte) { b[19] = '2' }), s.roots, FaultMalformed},
		"record 0, signed":        {resigned(func(b []byte) { clear(b[21:29]) }), s.roots, FaultMalformed},
		"negative record, signed": {resigned(func(b []byte) { b[21] = 0x80 }), s.roots, FaultMalformed},
		"before 1970, signed":     {resigned(func(b []byte) { b[61] = 0x80 }), s.roots, FaultMalformed},
		"flipped":                 {slices.Concat(good[:30], []byte{good[30] ^ 1}, good[31:]), s.roots, FaultBadSignature},
		"key of another kind":     {slices.Concat(good[:auditFixedBytes], p256.Raw), s.roots, FaultWrongKey},
		"before the key's life":   {at(s.cert.NotBefore.Add(-1)), s.roots, FaultNotYetValid},
		"after the key's life":    {at(s.cert.NotAfter.Add(1)), s.roots, FaultExpired},
		"time key":                {must(someHead.Sign(s.key, timeCert))(t), s.roots, FaultWrongKind},
		"TLS leaf":                {must(someHead.Sign(s.key, leaf))(t), s.roots, FaultWrongRoot}, // a grant key is the root's own
		"other root":              {good, strange.roots, FaultWrongRoot},
		"no root":                 {good, nil, FaultWrongRoot},
	} {
		got, err := VerifyAuditHead(c.b, c.roots)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		if err != nil && got != (AuditHead{}) {
			t.Errorf("%s: refused, and yet it says %v", what, got)
		}
	}
}

func TestAnAuditHeadIsSignedByItsKeyAlone(t *testing.T) {
	s := newAuditor(t)
	_, err := someHead.Sign(newKey(t), s.cert)
	wantFault(t, err, FaultWrongKey)
	_, err = AuditHead{Time: testNow}.Sign(s.key, s.cert)
	wantFault(t, err, FaultMalformed)
	for _, when := range []time.Time{{}, time.Unix(-1, 0), time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := (AuditHead{Seq: 1, Time: when}).Sign(s.key, s.cert); err == nil {
			t.Errorf("signed %v", when)
		}
	}
}
