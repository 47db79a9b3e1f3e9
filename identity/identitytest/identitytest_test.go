package identitytest

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
)

func TestLeavesAreWhatTheyAreAskedToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20 * 365 * 24 * time.Hour)
		pki := New(time.Now())
		for _, name := range []identity.Name{pki.Access, identity.RelayName("r1"), identity.UserName("plant", "ann"), identity.DeviceName("plant", identity.NewUID())} {
			good := pki.Leaf(name, -time.Hour, time.Hour)
			if peer, err := identity.Verify(chain(t, good), pki.Roots, time.Now(), name.Kind); err != nil || peer.Name != name {
				t.Errorf("%v: verified as %v, %v", name, peer.Name, err)
			}
			for fault, bad := range map[identity.Fault]tls.Certificate{
				identity.FaultExpired:     pki.Leaf(name, -2*time.Hour, -time.Hour),
				identity.FaultNotYetValid: pki.Leaf(name, time.Hour, 2*time.Hour),
				identity.FaultWrongRoot:   New(time.Now()).Leaf(name, -time.Hour, time.Hour),
			} {
				if _, err := identity.Verify(chain(t, bad), pki.Roots, time.Now()); identity.FaultOf(err) != fault {
					t.Errorf("%v: %v, want %s", name, err, fault)
				}
			}
		}
		if name, err := identity.VerifyGrantKey(pki.Grant.Cert, pki.Roots, time.Now()); err != nil || name != pki.Access {
			t.Errorf("the key for grants is of %v, %v", name, err)
		}
		server := pki.Leaf(pki.Access, -time.Hour, time.Hour)
		told := pki.SignTime(identity.SignedTime{Time: time.Now(), Server: identity.CertSPKI(server.Leaf)})
		peer := identity.Peer{Name: pki.Access, SPKI: identity.CertSPKI(server.Leaf)}
		if _, err := identity.VerifySignedTime(told, pki.Roots, [32]byte{}, peer, identity.UID{}); err != nil {
			t.Error(err)
		}
	})
}

func chain(t *testing.T, c tls.Certificate) (list []*x509.Certificate) {
	t.Helper()
	for _, der := range c.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert)
	}
	return list
}
