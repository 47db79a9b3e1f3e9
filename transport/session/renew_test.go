package session

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
)

func parsed(c tls.Certificate) (chain []*x509.Certificate) {
	for _, der := range c.Certificate {
		chain = append(chain, must(x509.ParseCertificate(der)))
	}
	return chain
}

func TestARenewedCertificateMovesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(nil)
		key := s.manager.Certificate.PrivateKey.(crypto.Signer)
		if until := runtime.Until(); !until.Equal(s.manager.Certificate.Leaf.NotAfter) {
			t.Errorf("until %v", until)
		}
		renewed := s.pki.Certify(key, userName, 0, 36*time.Hour)
		if err := manager.Renew(parsed(renewed), []string{"user", "key"}); err != nil {
			t.Fatal(err)
		}
		until, statements, err := runtime.Renewed(t.Context())
		if err != nil || !until.Equal(renewed.Leaf.NotAfter) || !slices.Equal(statements, []string{"user", "key"}) {
			t.Errorf("until %v, %q, %v", until, statements, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := runtime.Renewed(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nothing new: %v", err)
		}
	})
}

// What is not of this very peer, now and under our root, is no renewal.
func TestAChainOfSomebodyElseIsNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		runtime, manager := s.up(nil)
		key := s.manager.Certificate.PrivateKey.(crypto.Signer)
		good := s.pki.Certify(key, userName, 0, time.Hour)
		cases := []struct {
			name  string
			shown tls.Certificate
			want  transport.Reason
		}{
			{"another key", cert(s.pki, userName, time.Hour), transport.WrongPeer},
			{"another user", s.pki.Certify(key, identity.UserName("plant", "bob"), 0, time.Hour), transport.WrongPeer},
			{"another domain", s.pki.Certify(key, identity.UserName("other", "ann"), 0, time.Hour), transport.WrongPeer},
			{"a device", s.pki.Certify(key, identity.DeviceName("plant", identity.UID{1}), 0, time.Hour), transport.WrongPeer},
			{"another root", identitytest.New(time.Now()).Certify(key, userName, 0, time.Hour), transport.WrongPeer},
			{"one that is over", s.pki.Certify(key, userName, -2*time.Hour, -time.Hour), transport.Expired},
			{"the issuer's alone", tls.Certificate{Certificate: good.Certificate[1:]}, transport.WrongPeer},
			{"the leaf alone", tls.Certificate{Certificate: good.Certificate[:1]}, transport.WrongPeer},
		}
		for _, tt := range cases {
			if err := manager.Renew(parsed(tt.shown), nil); err != nil {
				t.Fatal(err)
			}
			_, _, err := runtime.Renewed(t.Context())
			if _, ok := errors.AsType[*NotPeer](err); !ok || transport.ReasonOf(err) != tt.want {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			}
		}
		// By a clock that somebody has stopped each begins later (session §2.3).
		if err := manager.Renew(parsed(s.pki.Certify(key, userName, time.Hour, 2*time.Hour)), nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := runtime.Renewed(t.Context()); err != nil {
			t.Errorf("one that begins later: %v", err)
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)+1))
	})
}
