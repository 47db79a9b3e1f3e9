package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

// timeServer is an Access Server that signs time.
type timeServer struct {
	infra
	key  crypto.Signer
	cert *x509.Certificate
}

func newTimeServer(tb testing.TB) timeServer {
	tb.Helper()
	in, key := newInfra(tb, testNow), newKey(tb)
	return timeServer{in, key, must(in.root.CertifyTimeKey(AccessName("a"), key.Public(), testNow))(tb)}
}

// asPeer is the Access Server named a with a TLS key of that hash.
func asPeer(spki SPKI) Peer { return Peer{Name: AccessName("a"), SPKI: spki} }

// someTime has a different value in every field.
var someTime = SignedTime{
	Nonce: [32]byte{1, 31: 2}, Time: testNow.Add(123456789 * time.Nanosecond), Server: SPKI{3, 31: 4}, UID: UID{5, 15: 6},
	Sequence: 0x0102030405060708,
}

func TestSignedTimeRoundTrips(t *testing.T) {
	s := newTimeServer(t)
	for _, want := range []SignedTime{someTime, {Time: testNow}} {
		b := must(want.Sign(s.key, s.cert))(t)
		got, err := VerifySignedTime(b, s.roots, want.Nonce, asPeer(want.Server), want.UID)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestSignedTimeLayout(t *testing.T) {
	s := newTimeServer(t)
	b := must(someTime.Sign(s.key, s.cert))(t)
	want := slices.Concat([]byte("hawser signed time v1\x00"), someTime.Nonce[:],
		[]byte{0x18, 0x98, 0xb5, 0xd9, 0xbb, 0x32, 0x4d, 0x15}, // 1772366400123456789
		someTime.Server[:], someTime.UID[:], []byte{1, 2, 3, 4, 5, 6, 7, 8})
	if len(want) != 118 || !bytes.Equal(b[:118], want) {
		t.Errorf("got  %x\nwant %x", b[:118], want)
	}
	if !bytes.Equal(b[118+64:], s.cert.Raw) {
		t.Error("no certificate after the signature")
	}
}

func TestVerifySignedTimeRefuses(t *testing.T) {
	s, strange := newTimeServer(t), newTimeServer(t)
	sign := func(m SignedTime, key crypto.Signer, cert *x509.Certificate) []byte {
		return must(m.Sign(key, cert))(t)
	}
	at := func(when time.Time) []byte {
		m := someTime
		m.Time = when
		return sign(m, s.key, s.cert)
	}
	good := sign(someTime, s.key, s.cert)
	long := slices.Concat(good, make([]byte, maxServerKeyBytes))
	context := slices.Clone(good)
	context[20] = '2' // "v2"
	negative := slices.Clone(good)
	negative[22+32] = 0x80
	p256 := must(leafTemplate(AccessName("a"), usageTime, testNow, testNow.Add(day)))(t)
	accessLeaf := must(s.issuing.Issue(Request{AccessName("a"), s.key.Public(), testNow, testNow.Add(day)}))(t)[0]
	grant := must(s.root.CertifyGrantKey(AccessName("a"), s.key.Public(), testNow))(t)
	neighbour := must(s.root.CertifyTimeKey(AccessName("b"), s.key.Public(), testNow))(t)
	for what, c := range map[string]struct {
		b    []byte
		want Fault
	}{
		"nothing":          {nil, FaultMalformed},
		"no certificate":   {good[:timeFixedBytes], FaultMalformed},
		"cut certificate":  {good[:len(good)-1], FaultMalformed},
		"byte after it":    {append(slices.Clone(good), 0), FaultMalformed},
		"too long":         {long, FaultMalformed},
		"other context":    {context, FaultMalformed},
		"before 1970":      {negative, FaultMalformed},
		"P-256 time key":   {slices.Concat(good[:timeFixedBytes], s.root.forge(t, p256, newP256(t).Public()).Raw), FaultWrongKey},
		"other signer":     {slices.Concat(good[:timeFixedBytes], strange.cert.Raw), FaultBadSignature},
		"other root":       {sign(someTime, strange.key, strange.cert), FaultWrongRoot},
		"grant key":        {sign(someTime, s.key, grant), FaultWrongKind},
		"other server's":   {sign(someTime, s.key, neighbour), FaultWrongServer},
		"TLS key":          {sign(someTime, s.key, accessLeaf), FaultWrongRoot},
		"before its key":   {at(s.cert.NotBefore.Add(-1)), FaultNotYetValid},
		"at its beginning": {at(s.cert.NotBefore), ""},
		"at its end":       {at(s.cert.NotAfter), ""},
		"after its key":    {at(s.cert.NotAfter.Add(1)), FaultExpired},
		"end of int64":     {at(time.Unix(0, 1<<63-1)), FaultExpired},
		"as it should be":  {good, ""},
	} {
		_, err := VerifySignedTime(c.b, s.roots, someTime.Nonce, asPeer(someTime.Server), someTime.UID)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1 << (i % 8)
		if _, err := VerifySignedTime(b, s.roots, someTime.Nonce, asPeer(someTime.Server), someTime.UID); FaultOf(err) == "" {
			t.Fatalf("byte %d flipped: got %v", i, err)
		}
	}
}

func TestSignedTimeAnswersOneQuestion(t *testing.T) {
	s := newTimeServer(t)
	b := must(someTime.Sign(s.key, s.cert))(t)
	for want, q := range map[Fault]SignedTime{
		FaultWrongNonce:  {Nonce: [32]byte{9}, Server: someTime.Server, UID: someTime.UID},
		FaultWrongServer: {Nonce: someTime.Nonce, Server: SPKI{9}, UID: someTime.UID},
		FaultWrongUID:    {Nonce: someTime.Nonce, Server: someTime.Server},
	} {
		got, err := VerifySignedTime(b, s.roots, q.Nonce, asPeer(q.Server), q.UID)
		wantFault(t, err, want)
		if got != (SignedTime{}) {
			t.Error("refused, but still tells a time")
		}
	}
}

func TestSignRefuses(t *testing.T) {
	s := newTimeServer(t)
	_, err := someTime.Sign(newKey(t), s.cert)
	wantFault(t, err, FaultWrongKey)
	_, err = someTime.Sign(newP256(t), s.cert)
	wantFault(t, err, FaultWrongKey)
	for _, when := range []time.Time{{}, time.Unix(-1, 0), time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2600, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := (SignedTime{Time: when}).Sign(s.key, s.cert); err == nil {
			t.Errorf("signed %v", when)
		}
	}
	fat := must(leafTemplate(AccessName("a"), usageTime, testNow, testNow.Add(day)))(t)
	for range 100 {
		fat.DNSNames = append(fat.DNSNames, "a-rather-long-name.example")
	}
	_, err = someTime.Sign(s.key, s.root.forge(t, fat, s.key.Public()))
	wantFault(t, err, FaultMalformed)
}
