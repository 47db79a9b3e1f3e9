package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"slices"
	"testing"
)

func TestCSRProvesTheKey(t *testing.T) {
	for _, key := range []crypto.Signer{newKey(t), newP256(t)} {
		pub := must(ParseCSR(must(NewCSR(key))(t)))(t)
		if must(SPKIOf(pub))(t) != must(SPKIOf(key.Public()))(t) {
			t.Error("another key came back")
		}
	}
}

func TestParseCSRRefuses(t *testing.T) {
	good := must(NewCSR(newKey(t)))(t)
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	stranger := slices.Clone(good)
	stranger[len(stranger)-1] ^= 1 // the last byte of the signature
	for what, c := range map[string]struct {
		der  []byte
		want Fault
	}{
		"nothing":            {nil, FaultMalformed},
		"bytes after it":     {append(slices.Clone(good), 0), FaultMalformed},
		"too long":           {append(slices.Clone(good), make([]byte, maxCSRBytes)...), FaultMalformed},
		"truncated":          {good[:len(good)-1], FaultMalformed},
		"other curve":        {request(t, p384, x509.CertificateRequest{}), FaultWrongKey},
		"other signer":       {stranger, FaultBadSignature},
		"common name":        {request(t, newKey(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}), FaultCSRName},
		"alternative name":   {request(t, newKey(t), x509.CertificateRequest{DNSNames: []string{"x"}}), FaultCSRName},
		"CA extension":       {request(t, newKey(t), x509.CertificateRequest{ExtraExtensions: []pkix.Extension{caExtension}}), FaultCSRName},
		"challenge password": {withAttribute(t), FaultCSRName},
	} {
		pub, err := ParseCSR(c.der)
		if FaultOf(err) != c.want || pub != nil {
			t.Errorf("%s: got %v, %v, want %s", what, pub, err, c.want)
		}
	}
}

// caExtension asks to become a CA: basicConstraints{cA TRUE}.
var caExtension = pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}

func request(tb testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	tb.Helper()
	return must(x509.CreateCertificateRequest(rand.Reader, &template, key))(tb)
}

// withAttribute is a signed request with a challengePassword, which Go's parser skips.
func withAttribute(tb testing.TB) []byte {
	tb.Helper()
	key := newKey(tb)
	spki := must(x509.MarshalPKIXPublicKey(key.Public()))(tb)
	attribute := must(asn1.Marshal(struct {
		ID     asn1.ObjectIdentifier
		Values []string `asn1:"set"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []string{"secret"}}))(tb)
	tbs := bytes.Replace(emptyRequest(spki), []byte{0xa0, 0}, append([]byte{0xa0, byte(len(attribute))}, attribute...), 1)
	tbs[1] += byte(len(attribute))
	signature := must(key.Sign(rand.Reader, tbs, crypto.Hash(0)))(tb)
	return must(asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}}))(tb)
}

// Whatever a device asks for, a server that does what identity §3 says gives it the server's name and nothing else.
func TestNoRequestChoosesItsName(t *testing.T) {
	in := newInfra(t, testNow)
	key := newKey(t)
	mine := DeviceName("plant", NewUID())
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	issued, refused := 0, 0
	requests := 10_000
	if testing.Short() {
		requests = 300
	}
	for range requests {
		pub, err := ParseCSR(request(t, key, randomRequest(rng)))
		if err != nil {
			wantFault(t, err, FaultCSRName)
			refused++
			continue
		}
		issued++
		chain := must(in.issuing.Issue(Request{mine, pub, testNow, testNow.Add(day)}))(t)
		peer := must(Verify(chain, in.roots, testNow))(t)
		if leaf := chain[0]; peer.Name != mine || leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
			t.Fatalf("got %v", peer.Name)
		}
	}
	if issued == 0 || refused < requests/2 {
		t.Errorf("%d issued, %d refused: the requests are not what they should be", issued, refused)
	}
	t.Logf("%d requests issued, %d refused", issued, refused)
}

// randomRequest asks for each thing with a chance of a third, so that now and then one asks for nothing.
func randomRequest(rng *mathrand.Rand) x509.CertificateRequest {
	other := &url.URL{Scheme: "hawser", Host: "plant", Path: "/device/" + NewUID().String()}
	var r x509.CertificateRequest
	for _, ask := range []func(){
		func() { r.Subject.CommonName = other.String() },
		func() { r.Subject.Organization = []string{"Hawser"} },
		func() { r.URIs = append(r.URIs, other) },
		func() { r.DNSNames = []string{"access.example"} },
		func() { r.IPAddresses = []net.IP{{10, 0, 0, byte(rng.Uint32())}} },
		func() { r.EmailAddresses = []string{"a@b.example"} },
		func() { r.ExtraExtensions = append(r.ExtraExtensions, caExtension) },
	} {
		if rng.IntN(3) == 0 {
			ask()
		}
	}
	return r
}
