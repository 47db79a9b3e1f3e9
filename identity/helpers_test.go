package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"
)

// testNow is when the infrastructure of most tests was made.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// infra is a root with an issuing CA.
type infra struct {
	root, issuing *Authority
	roots         *Roots
}

func newInfra(tb testing.TB, now time.Time) infra {
	tb.Helper()
	root := must(NewRoot(newKey(tb), now))(tb)
	issuing := must(root.NewIssuing(newKey(tb), now))(tb)
	return infra{root, issuing, must(NewRoots(root.Cert))(tb)}
}

// leaf issues a 30-day certificate from testNow to a new key.
func (in infra) leaf(tb testing.TB, name Name) []*x509.Certificate {
	tb.Helper()
	return must(in.issuing.Issue(Request{name, newKey(tb).Public(), testNow, testNow.Add(30 * day)}))(tb)
}

// forge signs whatever template says, as nobody's profile would.
func (a *Authority) forge(tb testing.TB, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	tb.Helper()
	der := must(x509.CreateCertificate(rand.Reader, template, a.Cert, pub, a.Key))(tb)
	return must(x509.ParseCertificate(der))(tb)
}

// template is a valid leaf of name, to be spoiled.
func template(tb testing.TB, name Name) *x509.Certificate {
	tb.Helper()
	return must(leafTemplate(name, usageOf(name.Kind), testNow, testNow.Add(30*day)))(tb)
}

func newKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	return must(NewKey())(tb)
}

func newP256(tb testing.TB) crypto.Signer {
	tb.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(tb)
}

// must lets a fixture be one expression: must(f())(tb).
func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func wantFault(tb testing.TB, err error, want Fault) {
	tb.Helper()
	if got := FaultOf(err); got != want || (err == nil) != (want == "") {
		tb.Errorf("got fault %q (%v), want %q", got, err, want)
	}
}
