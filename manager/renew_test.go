package manager

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
)

// 12 h of life: quiet for 8 h, then the next request renews first.
func TestCertificateIsRenewedInItsLastThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		for _, step := range []struct {
			at       time.Duration
			renewals int
		}{
			{0, 0},
			{8*time.Hour - time.Minute, 0},
			{8*time.Hour + time.Minute, 1},
			{9 * time.Hour, 1},
			{30 * time.Hour, 2}, // the certificate has been over for hours: renew takes it all the same
		} {
			time.Sleep(step.at - time.Since(a.born()))
			if _, err := a.Devices(t.Context()); err != nil {
				t.Fatalf("after %v: %v", step.at, err)
			}
			if got := f.called("POST /renew"); got != step.renewals {
				t.Errorf("after %v: %d renewals, want %d", step.at, got, step.renewals)
			}
		}
		if again := must(a.m.Open()); again.Info() != a.Info() {
			t.Errorf("on disk %+v, in use %+v", again.Info(), a.Info())
		}
	})
}

// born is the beginning of the bubble, in which the fake's first certificate begins.
func (a *Account) born() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

// Two processes share a home: what one renewed the other takes, and none of them breaks the other's account.
func TestRenewalIsSharedBetweenProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		one := f.loggedIn(m)
		two := must(m.Open())
		time.Sleep(9 * time.Hour)
		for _, a := range []*Account{one, two} {
			if _, err := a.Devices(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if f.called("POST /renew") != 1 || one.Info() != two.Info() {
			t.Errorf("%d renewals, %+v and %+v", f.called("POST /renew"), one.Info(), two.Info())
		}
	})
}

// A renewal that began before another login ended must not leave its certificate beside the new key.
func TestRenewalNeverOverwritesANewerLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		time.Sleep(9 * time.Hour)
		renew := f.answers["POST /renew"]
		var login error
		f.answer("POST /renew", func(w http.ResponseWriter, r *http.Request) {
			old := f.user
			_, login = m.Login(r.Context(), f.founder())
			f.user = old
			renew(w, r)
		})
		if _, err := a.Devices(t.Context()); err != nil {
			t.Errorf("the older certificate is valid for hours, and yet: %v", err)
		}
		if now, err := m.Open(); err != nil || login != nil || now.Info().SPKI == a.Info().SPKI {
			t.Errorf("the newer login is damaged: %v, %v", err, login)
		}
	})
}

func TestRenewalThatFailsMattersOnlyWhenItMust(t *testing.T) {
	down := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	for _, tt := range []struct {
		name   string
		at     time.Duration
		answer http.HandlerFunc
		want   transport.Reason
	}{
		{"still valid, server in trouble", 9 * time.Hour, problemAnswer(503, "busy", "later"), ""},
		{"still valid, no answer", 9 * time.Hour, down, ""},
		{"still valid, revoked", 9 * time.Hour, problemAnswer(403, "revoked", "no"), transport.Revoked},
		{"over, server in trouble", 13 * time.Hour, problemAnswer(503, "busy", "later"), transport.Busy},
		{"over, login too old", 13 * time.Hour, problemAnswer(401, "not-logged-in", "log in"), api.NotLoggedIn},
		{"over, nonsense", 13 * time.Hour, jsonAnswer(map[string]string{"chain": "x"}), transport.BadCertificate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				a := f.loggedIn(f.manager())
				f.answer("POST /renew", tt.answer)
				time.Sleep(tt.at)
				_, err := a.Devices(t.Context())
				if got := transport.ReasonOf(err); got != tt.want {
					t.Errorf("reason %q (%v), want %q", got, err, tt.want)
				}
			})
		})
	}
}

// The address that worked is kept, and written only when it is news.
func TestGoodAddressesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		file := filepath.Join(m.Home, configFile)
		before := must(os.Stat(file)).ModTime()
		if _, err := a.Devices(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if after := must(os.Stat(file)).ModTime(); !after.Equal(before) {
			t.Error("config.json was written though nothing was new")
		}
		if got := a.good.of(accessAddr.String(), time.Now()); len(got) != 1 || got[0].Port() != 443 {
			t.Errorf("remembered %v", got)
		}
		if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if again := must(m.Open()); len(again.good.of(relayAddr.String(), time.Now())) != 1 || again.good.onlySmall(time.Now()) {
			t.Errorf("the relay's address was not kept: %+v", again.state.config)
		}
		a.good.add(transport.Candidate{Host: relayAddr.String(), Addr: a.good.of(relayAddr.String(), time.Now())[0].Addr, Small: true}, time.Now())
		a.Close()
		again := must(m.Open())
		got := again.good.of(relayAddr.String(), time.Now())
		if len(got) != 1 || !got[0].Small || !again.good.onlySmall(time.Now()) || again.good.onlySmall(time.Now().Add(24*time.Hour)) {
			t.Errorf("that only the small form passes was not kept for a day: %+v", got)
		}
	})
}

// The key that issued this user's certificate was stolen: the server says that it is over, and the renewal tells why, brings a
// chain of the new key, and is remembered. Who has the stolen key is a stranger from then on.
func TestARefusedIssuingKeyIsLeftBehind(t *testing.T) {
	t.Attr("id", "T-rotate")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		fresh := f.pki.Issuing // of the server, as it is after the rotation
		stolen := must(f.pki.Root.NewIssuing(identitytest.NewKey(), time.Now()))
		f.pki.Issuing = stolen
		a := f.loggedIn(f.manager())
		f.pki.Issuing = fresh
		list := must(identity.RefusedKeys{Keys: []identity.SPKI{identity.CertSPKI(stolen.Cert)}, Sequence: 1}.Sign(f.pki.Root))
		devices := f.api()["GET /devices"]
		f.answer("GET /devices", func(w http.ResponseWriter, r *http.Request) {
			chain := apitest.Conn(r).ConnectionState().PeerCertificates
			if identity.CertSPKI(chain[1]) == identity.CertSPKI(stolen.Cert) {
				problemAnswer(401, "expired", "client certificate")(w, r)
				return
			}
			devices(w, r)
		})
		f.answer("POST /renew", func(w http.ResponseWriter, r *http.Request) {
			var in api.RenewRequest
			json.NewDecoder(r.Body).Decode(&in)
			jsonAnswer(api.RenewAnswer{Chain: f.certify(in.CSR), RefusedKeys: list})(w, r)
		})
		if _, err := a.Devices(t.Context()); err != nil || f.called("POST /renew") != 1 {
			t.Fatalf("%v, %d renewals", err, f.called("POST /renew"))
		}
		again := must(a.m.Open())
		defer again.Close()
		if _, err := again.Devices(t.Context()); err != nil || f.called("POST /renew") != 1 {
			t.Errorf("opened again: %v, %d renewals", err, f.called("POST /renew"))
		}
		if n, ok := again.state.roots.RefusedSequence(); !ok || n != 1 {
			t.Errorf("kept %d, %v", n, ok)
		}
		f.pki.Issuing = stolen
		impostor := f.pki.Chain(identitytest.NewKey().Public(), identity.AccessName("a1"), -time.Hour, time.Hour)
		if _, err := identity.Verify(impostor, again.state.roots, time.Now()); identity.FaultOf(err) != identity.FaultRefusedKey {
			t.Errorf("the thief's server: %v", err)
		}
	})
}
