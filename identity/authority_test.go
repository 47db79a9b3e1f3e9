package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProfilesAreThoseOfTheSpec(t *testing.T) {
	in := newInfra(t, testNow)
	chain := in.leaf(t, RelayName("r1"))
	leaf, issuing, root := chain[0], chain[1], chain[2]
	if len(chain) != 3 || root != in.root.Cert || issuing != in.issuing.Cert {
		t.Fatal("not leaf, issuing CA, root")
	}
	for _, ca := range []struct {
		cert    *x509.Certificate
		pathLen int
		life    time.Duration
	}{{root, 1, 30 * year}, {issuing, 0, 15 * year}} {
		c := ca.cert
		if !c.IsCA || c.MaxPathLen != ca.pathLen || c.MaxPathLenZero != (ca.pathLen == 0) ||
			c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 ||
			!c.NotBefore.Equal(testNow.Add(-day)) || !c.NotAfter.Equal(testNow.Add(ca.life)) ||
			!strings.HasSuffix(c.Subject.CommonName, CertSPKI(c).String()[:8]) {
			t.Errorf("%s: not its profile", c.Subject)
		}
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !leaf.BasicConstraintsValid ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) ||
		len(leaf.UnknownExtKeyUsage) != 1 || !leaf.UnknownExtKeyUsage[0].Equal(asn1.ObjectIdentifier{2, 25, 261407892, 3}) ||
		len(leaf.URIs) != 1 || leaf.URIs[0].String() != "hawser:///relay/r1" {
		t.Error("leaf: not its profile")
	}
}

// Parsers of others read an arc of four bytes at most, and refuse every extension of a certificate that has a longer one.
func TestUsagesCanBeReadByOthers(t *testing.T) {
	for u := usageDevice; u <= usageGrant; u++ {
		for _, arc := range u.oid() {
			if arc >= 1<<28 {
				t.Errorf("%v: arc %d needs more than four bytes", u.oid(), arc)
			}
		}
	}
}

func TestSerialNumbersAreRandom(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		n := newSerial()
		if n.Sign() <= 0 || n.BitLen() > 128 || seen[n.String()] {
			t.Fatal("zero, long or repeated")
		}
		seen[n.String()] = true
	}
}

func TestServerKeysCannotSpeakTLS(t *testing.T) {
	in := newInfra(t, testNow)
	access := AccessName("a")
	for _, certify := range []func(Name, any) (*x509.Certificate, error){
		func(n Name, pub any) (*x509.Certificate, error) { return in.root.CertifyTimeKey(n, pub, testNow) },
		func(n Name, pub any) (*x509.Certificate, error) { return in.root.CertifyGrantKey(n, pub, testNow) },
	} {
		cert := must(certify(access, newKey(t).Public()))(t)
		if len(cert.ExtKeyUsage) > 0 || cert.IsCA || !cert.NotAfter.Equal(testNow.Add(5*year)) {
			t.Error("not its profile")
		}
		_, err := Verify([]*x509.Certificate{cert, in.root.Cert}, in.roots, testNow)
		wantFault(t, err, FaultWrongKind)
		_, err = certify(access, newP256(t).Public())
		wantFault(t, err, FaultWrongKey)
		_, err = certify(RelayName("a"), newKey(t).Public())
		wantFault(t, err, FaultWrongKind)
		_, err = certify(AccessName("A"), newKey(t).Public())
		wantFault(t, err, FaultBadName)
	}
}

func TestAuthoritiesSignOnlyTheirOwn(t *testing.T) {
	in := newInfra(t, testNow)
	pub := newKey(t).Public()
	_, err := in.root.Issue(Request{RelayName("r"), pub, testNow, testNow.Add(day)})
	wantFault(t, err, FaultRefused)
	_, err = in.issuing.NewIssuing(newKey(t), testNow)
	wantFault(t, err, FaultRefused)
	_, err = in.issuing.CertifyTimeKey(AccessName("a"), pub, testNow)
	wantFault(t, err, FaultRefused)
	_, err = in.issuing.CertifyGrantKey(AccessName("a"), pub, testNow)
	wantFault(t, err, FaultRefused)
	for _, bad := range []Name{{}, {KindDevice, "plant", "x"}, {KindUser, "", "ada"}, {KindRelay, "plant", "r"}, {"root", "", "r"}} {
		_, err = in.issuing.Issue(Request{bad, pub, testNow, testNow.Add(day)})
		wantFault(t, err, FaultBadName)
	}
	_, err = in.issuing.Issue(Request{RelayName("r"), nil, testNow, testNow.Add(day)})
	wantFault(t, err, FaultWrongKey)
}

func TestDatesAreCutToTheIssuers(t *testing.T) {
	in := newInfra(t, testNow)
	begin, end := in.issuing.Cert.NotBefore, in.issuing.Cert.NotAfter
	for what, c := range map[string]struct{ from, to, wantFrom, wantTo time.Time }{
		"inside":       {testNow, testNow.Add(day), testNow, testNow.Add(day)},
		"fractions":    {testNow.Add(time.Nanosecond), testNow.Add(day - 1), testNow, testNow.Add(day - time.Second)},
		"longer":       {begin.Add(-day), end.Add(day), begin, end},
		"equal":        {testNow, testNow, time.Time{}, time.Time{}},
		"backwards":    {testNow, testNow.Add(-1), time.Time{}, time.Time{}},
		"wholly after": {end.Add(day), end.Add(2 * day), time.Time{}, time.Time{}},
	} {
		chain, err := in.issuing.Issue(Request{RelayName("r"), newKey(t).Public(), c.from, c.to})
		if c.wantTo.IsZero() {
			wantFault(t, err, FaultRefused)
			continue
		}
		if err != nil || !chain[0].NotBefore.Equal(c.wantFrom) || !chain[0].NotAfter.Equal(c.wantTo) {
			t.Errorf("%s: got %v, %v, %v", what, chain[0].NotBefore, chain[0].NotAfter, err)
		}
	}
}

func TestChainsRoundTrip(t *testing.T) {
	chain := newInfra(t, testNow).leaf(t, DeviceName("plant", NewUID()))
	text := MarshalChain(chain)
	back := must(ParseChain(text))(t)
	if !slices.EqualFunc(chain, back, (*x509.Certificate).Equal) {
		t.Error("another chain came back")
	}
	one := MarshalChain(chain[:1])
	for what, bad := range map[string][]byte{
		"empty":    nil,
		"nine":     slices.Repeat(one, 9),
		"text":     slices.Concat([]byte("subject=x\n"), text),
		"tail":     slices.Concat(text, []byte("x")),
		"key":      slices.Concat(text, must(MarshalKey(newKey(t)))(t)),
		"broken":   slices.Concat(one[:len(one)/2], text),
		"too long": slices.Concat(text, slices.Repeat([]byte("\n"), maxChainBytes)),
		"no X.509": []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
	} {
		if _, err := ParseChain(bad); FaultOf(err) != FaultMalformed {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, err := ParseChain(slices.Repeat(one, 8)); err != nil {
		t.Errorf("eight: %v", err)
	}
}

// A second implementation agrees with our profiles and with the format of the identity file.
func TestOpenSSLAcceptsTheIdentityFile(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is not installed: run scripts/setup")
	}
	now := time.Now() // openssl judges by the wall clock
	in := newInfra(t, now)
	dir := t.TempDir()
	root, file := filepath.Join(dir, "root.pem"), filepath.Join(dir, "identity.pem")
	if err := os.WriteFile(root, in.roots.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		pub  any
		name Name
	}{
		"device": {newKey(t).Public(), DeviceName("plant", NewUID())}, "user": {newP256(t).Public(), UserName("plant", "ada")},
		"relay": {newKey(t).Public(), RelayName("r")}, "access": {newKey(t).Public(), AccessName("a")},
	} {
		chain := must(in.issuing.Issue(Request{c.name, c.pub, now, now.Add(day)}))(t)
		for _, chain := range [][]*x509.Certificate{chain[:2], chain} {
			if err := os.WriteFile(file, MarshalChain(chain), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(openssl, "verify", "-x509_strict", "-CAfile", root, "-untrusted", file, file).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", what, err, out)
			}
		}
	}
}
