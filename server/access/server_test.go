package access

import (
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/server/store"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	good := newIdleWorld(t).cfg
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*Config){
		"a relay's name":    func(c *Config) { c.Name = identity.RelayName("r1") },
		"no roots":          func(c *Config) { c.Roots = nil },
		"no issuing CA":     func(c *Config) { c.Issuing = nil },
		"no time key":       func(c *Config) { c.TimeKey = nil },
		"no grant key":      func(c *Config) { c.Grant = grant.Signer{} },
		"no store":          func(c *Config) { c.Store = nil },
		"heartbeat too low": func(c *Config) { c.Heartbeat = time.Millisecond },
	}
	for name, change := range cases {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCertificateIsWholeAndRenewedAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newIdleWorld(t)
		s := must(New(w.cfg))
		first := must(s.Certificate())
		var chain []*x509.Certificate
		for _, der := range first.Certificate {
			chain = append(chain, must(x509.ParseCertificate(der)))
		}
		if len(chain) != 3 || !chain[2].Equal(w.pki.Root.Cert) {
			t.Errorf("%d certificates", len(chain))
		}
		peer, err := identity.Verify(chain, w.pki.Roots, time.Now(), identity.KindAccess)
		if err != nil || peer.Name != w.cfg.Name || peer.SPKI != must(s.leafSPKI()) {
			t.Errorf("%v, %v", peer, err)
		}
		if life := chain[0].NotAfter.Sub(chain[0].NotBefore); life > 30*24*time.Hour {
			t.Errorf("life %v", life)
		}
		time.Sleep(14 * 24 * time.Hour)
		if must(s.Certificate()) != first {
			t.Error("renewed too early")
		}
		time.Sleep(24 * time.Hour)
		second := must(s.Certificate())
		if second == first || identity.CertSPKI(second.Leaf) == identity.CertSPKI(first.Leaf) {
			t.Error("not renewed, or not with a fresh key")
		}
	})
}

// Run ends everything that it owns, and what could not start says why.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		admin := w.login()
		c := w.control(w.addDevice(admin, "press 1"), hello("01"))
		w.stop()
		refusal(c) // returns when the connection ends; who is fast is told why
		c.Close()
		w.cfg.Store.Close()
		if err := must(New(w.cfg)).Run(t.Context()); err == nil {
			t.Errorf("with a closed store: %v", err)
		}
	})
}

func TestBootstrapOnce(t *testing.T) {
	w := newIdleWorld(t)
	if w.admin == w.relay {
		t.Error("one code for both")
	}
	if _, _, err := Bootstrap(t.Context(), w.cfg.Store, "plant", "admin", "r1", time.Now()); !errors.Is(err, store.ErrExists) {
		t.Errorf("again: %v", err)
	}
	if _, _, err := Bootstrap(t.Context(), w.cfg.Store, "a b", "admin", "r1", time.Now()); identity.FaultOf(err) != identity.FaultBadName {
		t.Errorf("bad domain: %v", err)
	}
	if got := w.actions(10); !slices.Equal(got, []string{"init ok"}) {
		t.Errorf("audit: %v", got)
	}
}
