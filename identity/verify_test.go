package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVerifyNamesTheLeaf(t *testing.T) {
	in := newInfra(t, testNow)
	for _, name := range []Name{DeviceName("plant", NewUID()), UserName("plant", "ada"), RelayName("r"), AccessName("a")} {
		chain := in.leaf(t, name)
		for _, presented := range [][]*x509.Certificate{chain, chain[:2]} {
			for _, want := range [][]Kind{nil, {name.Kind}, {"root", name.Kind}} {
				peer, err := Verify(presented, in.roots, testNow, want...)
				if err != nil || peer.Name != name || peer.Leaf != chain[0] || peer.SPKI != CertSPKI(chain[0]) {
					t.Errorf("%s: got %v, %v", name, peer.Name, err)
				}
			}
		}
		for _, kind := range []Kind{KindDevice, KindUser, KindRelay, KindAccess} {
			if kind != name.Kind {
				_, err := Verify(chain, in.roots, testNow, kind)
				wantFault(t, err, FaultWrongKind)
			}
		}
	}
}

// chainCase is a chain that must be refused, and what is wrong with it.
type chainCase struct {
	chain []*x509.Certificate
	want  Fault
}

// badChains is the matrix of identity §5, steps 1 to 4 and 6 to 7: who vouches for whom.
func badChains(tb testing.TB, in infra) map[string]chainCase {
	tb.Helper()
	good, other := in.leaf(tb, RelayName("r")), in.leaf(tb, RelayName("other"))
	leaf, issuing, root := good[0], good[1], good[2]
	strange := newInfra(tb, testNow) // another infrastructure, or an intercepting proxy
	evil := strange.leaf(tb, RelayName("r"))
	second := must(in.root.NewIssuing(newKey(tb), testNow))(tb)
	stolen := &Authority{Cert: issuing, Key: newKey(tb)} // claims to be the issuing CA without its key
	stolen.Cert = stolen.forgedSelf(tb)
	fromDevice := &Authority{Cert: leaf, Key: newKey(tb)}
	sub := in.issuing.forge(tb, caTemplate("sub", SPKI{}, 0, testNow, testNow.Add(day)), fromDevice.Key.Public())
	critical := template(tb, RelayName("r"))
	critical.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(tb)

	certs := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	return map[string]chainCase{
		"sound":                     {good, ""},
		"no-certificate":            {nil, FaultBadChain},
		"nine-certificates":         {slices.Repeat(certs(leaf), 9), FaultBadChain},
		"leaf-alone":                {certs(leaf), FaultWrongRoot},
		"leaf-root":                 {certs(leaf, root), FaultWrongRoot},
		"wrong-order":               {certs(leaf, root, issuing), FaultBadChain},
		"reversed":                  {certs(root, issuing, leaf), FaultBadChain},
		"issuing-first":             {certs(issuing, leaf), FaultBadChain},
		"filler-after-leaf":         {certs(leaf, other[0], issuing, root), FaultBadChain},
		"filler-at-end":             {certs(leaf, issuing, other[0]), FaultBadChain},
		"filler-after-root":         {certs(leaf, issuing, root, other[0]), FaultBadChain},
		"filler-foreign":            {certs(leaf, issuing, evil[0]), FaultBadChain},
		"filler-second-issuing":     {certs(leaf, second.Cert, issuing, root), FaultBadChain},
		"issuing-twice":             {certs(leaf, issuing, issuing), FaultBadChain},
		"root-twice":                {certs(leaf, issuing, root, root), FaultBadChain},
		"untrusted-leaf-filler":     {certs(evil[0], issuing, root), FaultBadChain},
		"untrusted-leaf-all-filler": {certs(evil[0], leaf, issuing, root), FaultBadChain},
		"untrusted-chain-filler":    {certs(evil[0], evil[1], issuing, root), FaultBadChain},
		"untrusted-chain":           {evil, FaultWrongRoot},
		"untrusted-no-root":         {evil[:2], FaultWrongRoot},
		"untrusted-self-signed":     {certs(evil[2]), FaultWrongRoot},
		"untrusted-rsa-issuer":      {certs(evil[0], strange.root.forge(tb, caTemplate("x", SPKI{}, 0, testNow, testNow.Add(day)), rsaKey.Public())), FaultWrongRoot},
		"issuing-name-without-key":  {certs(stolen.forge(tb, template(tb, RelayName("r")), newKey(tb).Public()), issuing, root), FaultBadSignature},
		"signed-by-a-device":        {certs(fromDevice.forgeUnder(tb, leaf), leaf, issuing, root), FaultBadChain},
		"leaf-is-issuing-ca":        {certs(issuing, root), FaultBadChain},
		"leaf-is-root":              {certs(root), FaultBadChain},
		"leaf-is-named-ca":          {certs(in.issuing.forge(tb, namedCA(tb), newKey(tb).Public()), issuing, root), FaultBadChain},
		"ca-below-path-length":      {certs((&Authority{Cert: sub, Key: fromDevice.Key}).forge(tb, template(tb, RelayName("r")), newKey(tb).Public()), sub, issuing, root), FaultBadChain},
		"critical-extension":        {certs(in.issuing.forge(tb, critical, newKey(tb).Public()), issuing, root), FaultBadChain},
		"rsa-leaf":                  {certs(in.issuing.forge(tb, template(tb, RelayName("r")), rsaKey.Public()), issuing, root), FaultWrongKey},
	}
}

// forgedSelf is a self-made certificate with the subject of a.Cert.
func (a *Authority) forgedSelf(tb testing.TB) *x509.Certificate {
	t := *a.Cert
	t.SubjectKeyId, t.PublicKey = nil, nil
	return (&Authority{Cert: &t, Key: a.Key}).forge(tb, &t, a.Key.Public())
}

// forgeUnder is a relay's leaf that names parent, a leaf, as its issuer.
func (a *Authority) forgeUnder(tb testing.TB, parent *x509.Certificate) *x509.Certificate {
	p := *parent
	p.PublicKey = a.Key.Public()
	return (&Authority{Cert: &p, Key: a.Key}).forge(tb, template(tb, RelayName("r")), newKey(tb).Public())
}

func namedCA(tb testing.TB) *x509.Certificate {
	c := template(tb, RelayName("r"))
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	return c
}

func TestVerifyRefusesBadChains(t *testing.T) {
	in := newInfra(t, testNow)
	for what, c := range badChains(t, in) {
		t.Run(what, func(t *testing.T) {
			peer, err := Verify(c.chain, in.roots, testNow, KindRelay)
			wantFault(t, err, c.want)
			if c.want != "" && peer != (Peer{}) {
				t.Error("refused, but still names a peer")
			}
			_, err = VerifyIgnoringDates(c.chain, in.roots, KindRelay)
			wantFault(t, err, c.want)
		})
	}
}

// badLeaves is the matrix of identity §5, steps 8 and 9: certificates of the right issuer with a wrong name or usage.
func badLeaves(tb testing.TB, in infra) map[string]chainCase {
	tb.Helper()
	uri := func(s string) *url.URL { return must(url.Parse(s))(tb) }
	uid := NewUID().String()
	cases := map[string]struct {
		spoil func(*x509.Certificate)
		want  Fault
	}{
		"sound":           {func(*x509.Certificate) {}, ""},
		"no-name":         {func(c *x509.Certificate) { c.URIs = nil }, FaultBadName},
		"two-names":       {func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("hawser:///relay/s")) }, FaultBadName},
		"name-twice":      {func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, FaultBadName},
		"dns-name-too":    {func(c *x509.Certificate) { c.DNSNames = []string{"r"} }, FaultBadName},
		"email-too":       {func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} }, FaultBadName},
		"other-name-too":  {func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{otherNameToo(tb)} }, FaultBadName},
		"name-with-query": {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hawser:///relay/r?x")} }, FaultBadName},
		"name-escaped":    {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hawser:///relay/%72")} }, FaultBadName},
		"name-in-cn-only": {func(c *x509.Certificate) { c.URIs = nil; c.Subject.CommonName = "hawser:///relay/r" }, FaultBadName},
		"another-scheme":  {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https:///relay/r")} }, FaultBadName},
		"device-name":     {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hawser://plant/device/" + uid)} }, FaultWrongKind},
		"no-usage":        {func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }, FaultWrongKind},
		"any-usage": {func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = nil
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}, FaultWrongKind},
		"two-kinds":       {func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, usageAccess.oid()) }, FaultWrongKind},
		"kind-and-time":   {func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, usageTime.oid()) }, FaultWrongKind},
		"kind-twice":      {func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, usageRelay.oid()) }, FaultWrongKind},
		"usage-of-device": {func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = usageDevice.oid() }, FaultWrongKind},
		"usage-of-time":   {func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = usageTime.oid() }, FaultWrongKind},
		"unknown-usage":   {func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = usage(99).oid() }, FaultWrongKind},
		"longer-usage":    {func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = append(usageRelay.oid(), 1) }, FaultWrongKind},
		"foreign-usage-ok": {func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2, 3})
		}, ""},
	}
	out := map[string]chainCase{}
	for _, what := range slices.Sorted(maps.Keys(cases)) { // sorted: vectors are made of them, always in the same way
		c, t := cases[what], template(tb, RelayName("r"))
		c.spoil(t)
		out[what] = chainCase{append([]*x509.Certificate{in.issuing.forge(tb, t, newKey(tb).Public())}, in.issuing.parents()...), c.want}
	}
	return out
}

// otherNameToo holds our name and an otherName, which Go's parser skips.
func otherNameToo(tb testing.TB) pkix.Extension {
	names := []asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte("hawser:///relay/r")},
		{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{6, 2, 0x2a, 3, 0xa0, 2, 5, 0}},
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must(asn1.Marshal(names))(tb)}
}

func TestVerifyRefusesBadLeaves(t *testing.T) {
	in := newInfra(t, testNow)
	for what, c := range badLeaves(t, in) {
		t.Run(what, func(t *testing.T) {
			_, err := Verify(c.chain, in.roots, testNow, KindRelay)
			wantFault(t, err, c.want)
			_, err = VerifyIgnoringDates(c.chain, in.roots, KindRelay)
			wantFault(t, err, c.want)
		})
	}
}

// Every byte of a leaf and of an issuing CA counts: no altered chain is accepted.
func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	in := newInfra(t, testNow)
	chain := in.leaf(t, RelayName("r"))
	for which := range 2 {
		for i := range chain[which].Raw {
			raw := slices.Clone(chain[which].Raw)
			raw[i] ^= 1 << (i % 8)
			cert, err := x509.ParseCertificate(raw)
			if err != nil {
				continue
			}
			spoiled := slices.Clone(chain)
			spoiled[which] = cert
			if _, err := Verify(spoiled, in.roots, testNow); FaultOf(err) == "" {
				t.Fatalf("certificate %d, byte %d: got %v", which, i, err)
			}
		}
	}
}

func TestClockMatrix(t *testing.T) {
	in := newInfra(t, testNow)
	chain := in.leaf(t, RelayName("r"))
	from, to := chain[0].NotBefore, chain[0].NotAfter
	for what, c := range map[string]struct {
		now  time.Time
		want Fault
	}{
		"1970":            {time.Unix(0, 0), FaultNotYetValid},
		"zero":            {time.Time{}, FaultNotYetValid},
		"before issuing":  {in.issuing.Cert.NotBefore.Add(-time.Second), FaultNotYetValid},
		"notBefore - 1 s": {from.Add(-time.Second), FaultNotYetValid},
		"notBefore":       {from, ""},
		"notAfter":        {to, ""},
		"notAfter + 1 s":  {to.Add(time.Second), FaultExpired},
		"2038":            {time.Unix(1<<31, 0), FaultExpired},
		"2106":            {time.Unix(1<<32, 0), FaultExpired},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := Verify(chain, in.roots, c.now)
			wantFault(t, err, c.want)
		})
	}
	_, err := VerifyIgnoringDates(chain, in.roots)
	wantFault(t, err, "")
}

// The dates of issuing CA and root count as well, and not for renew.
func TestDatesOfIssuers(t *testing.T) {
	old := newInfra(t, time.Unix(0, 0)) // CAs of 1970: the issuing CA ended in 1985, the root in 1999
	leaf := old.issuing.forge(t, template(t, RelayName("r")), newKey(t).Public())
	chain := append([]*x509.Certificate{leaf}, old.issuing.parents()...)
	for _, presented := range [][]*x509.Certificate{chain, chain[:2]} {
		_, err := Verify(presented, old.roots, testNow)
		wantFault(t, err, FaultExpired)
		peer, err := VerifyIgnoringDates(presented, old.roots, KindRelay)
		if err != nil || peer.Name != RelayName("r") {
			t.Errorf("got %v, %v", peer.Name, err)
		}
		_, err = VerifyIgnoringDates(presented, old.roots, KindDevice)
		wantFault(t, err, FaultWrongKind)
		_, err = VerifyIgnoringDates(presented, newInfra(t, testNow).roots)
		wantFault(t, err, FaultWrongRoot)
	}
	if !chain[0].NotAfter.Equal(testNow.Add(30 * day)) {
		t.Error("the caller's certificates were changed")
	}
}

func TestWrongRootTellsTheIssuer(t *testing.T) {
	proxy := must(NewRoot(newKey(t), testNow))(t)
	self := caTemplate("x", SPKI{}, 1, testNow.Add(-day), testNow.Add(day))
	self.Subject = pkix.Name{CommonName: "Proxy\r\n\x1b[31m<b>\u202e" + strings.Repeat("ü", 200), Organization: []string{"Net & Co"}}
	proxy.Cert = (&Authority{Cert: self, Key: proxy.Key}).forge(t, self, proxy.Key.Public())
	leaf := proxy.forge(t, template(t, AccessName("a")), newKey(t).Public())
	_, err := Verify([]*x509.Certificate{leaf, proxy.Cert}, newInfra(t, testNow).roots, testNow)
	wantFault(t, err, FaultWrongRoot)
	issuer := err.(*Error).Issuer
	if !strings.Contains(issuer, "CN=Proxy") || len(issuer) > 100 || strings.ContainsAny(err.Error(), "\r\n\x1b<&ü\u202e") {
		t.Errorf("got %q", err)
	}
}

func TestPinnedRoot(t *testing.T) {
	in := newInfra(t, testNow)
	chain := in.leaf(t, AccessName("a"))
	roots := must(PinnedRoot(chain, CertSPKI(in.root.Cert)))(t)
	_, err := Verify(chain, roots, testNow, KindAccess)
	wantFault(t, err, "")
	for what, pin := range map[string]SPKI{"leaf": CertSPKI(chain[0]), "issuing": CertSPKI(chain[1]), "other": {1}, "none": {}} {
		if _, err := PinnedRoot(chain, pin); FaultOf(err) != FaultWrongRoot {
			t.Errorf("%s: got %v", what, err)
		}
	}
	_, err = PinnedRoot(nil, SPKI{})
	wantFault(t, err, FaultBadChain)
}

func TestRootsAreSelfSignedCAs(t *testing.T) {
	in, other := newInfra(t, testNow), newInfra(t, testNow)
	both := must(NewRoots(other.root.Cert, in.root.Cert))(t)
	if back := must(ParseRoots(both.PEM()))(t); !slices.EqualFunc(back.Certificates(), both.Certificates(), (*x509.Certificate).Equal) {
		t.Error("other roots came back")
	}
	_, err := Verify(in.leaf(t, RelayName("r")), both, testNow)
	wantFault(t, err, "")
	for what, certs := range map[string][]*x509.Certificate{
		"none": nil, "issuing": {in.issuing.Cert}, "leaf": in.leaf(t, RelayName("r"))[:1], "twice": {in.root.Cert, in.root.Cert},
	} {
		if _, err := NewRoots(certs...); FaultOf(err) != FaultBadChain {
			t.Errorf("%s: got %v", what, err)
		}
	}
	_, err = ParseRoots([]byte("x"))
	wantFault(t, err, FaultMalformed)
	_, err = Verify(in.leaf(t, RelayName("r")), nil, testNow)
	wantFault(t, err, FaultWrongRoot)
}

func TestVerifyGrantKey(t *testing.T) {
	in, other := newInfra(t, testNow), newInfra(t, testNow)
	access := AccessName("a")
	pub := newKey(t).Public()
	good := must(in.root.CertifyGrantKey(access, pub, testNow))(t)
	if name := must(VerifyGrantKey(good, in.roots, testNow))(t); name != access {
		t.Errorf("got %v", name)
	}
	user := must(leafTemplate(UserName("plant", "ada"), usageGrant, testNow, testNow.Add(day)))(t)
	p256 := must(leafTemplate(access, usageGrant, testNow, testNow.Add(day)))(t)
	for what, c := range map[string]struct {
		cert *x509.Certificate
		now  time.Time
		want Fault
	}{
		"early":        {good, testNow.Add(-day - time.Second), FaultNotYetValid},
		"late":         {good, testNow.Add(6 * year), FaultExpired},
		"time key":     {must(in.root.CertifyTimeKey(access, pub, testNow))(t), testNow, FaultWrongKind},
		"other root":   {must(other.root.CertifyGrantKey(access, pub, testNow))(t), testNow, FaultWrongRoot},
		"access leaf":  {in.leaf(t, access)[0], testNow, FaultWrongRoot},
		"from issuing": {in.issuing.forge(t, p256, pub), testNow, FaultWrongRoot},
		"root":         {in.root.Cert, testNow, FaultBadChain},
		"user's":       {in.root.forge(t, user, pub), testNow, FaultWrongKind},
		"P-256":        {in.root.forge(t, p256, newP256(t).Public()), testNow, FaultWrongKey},
	} {
		if _, err := VerifyGrantKey(c.cert, in.roots, c.now); FaultOf(err) != c.want {
			t.Errorf("%s: got %v, want %s", what, err, c.want)
		}
	}
}
