package access

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

func TestEnrollGivesTheIdentityOfTheCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		peer, err := identity.Verify(device.Chain, w.pki.Roots, time.Now(), identity.KindDevice)
		if err != nil {
			t.Fatal(err)
		}
		if peer.Name != identity.DeviceName("plant", device.id.UID) || peer.SPKI != device.spki() || device.id.Name != "press 1" {
			t.Errorf("%v %v", peer, device.id)
		}
		if life := time.Until(peer.Leaf.NotAfter); life != memberLife {
			t.Errorf("life %v", life)
		}
		relay := w.enrollRelay()
		peer, err = identity.Verify(relay.Chain, w.pki.Roots, time.Now(), identity.KindRelay)
		if err != nil || peer.Name != identity.RelayName("r1") {
			t.Errorf("%v, %v", peer, err)
		}
	})
}

// csrFor makes a CSR that asks for more than a key.
func csrFor(key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	var template x509.CertificateRequest
	change(&template)
	return must(x509.CreateCertificateRequest(rand.Reader, &template, key))
}

// A CSR that asks for any name is refused, and the code is still good after it.
func TestEnrollRefusesCSRThatAsksForAName(t *testing.T) {
	uid := identity.NewUID()
	uri := must(url.Parse(identity.DeviceName("plant", uid).String()))
	cases := map[string]func(*x509.CertificateRequest){
		"common name": func(r *x509.CertificateRequest) { r.Subject = pkix.Name{CommonName: uid.String()} },
		"URI":         func(r *x509.CertificateRequest) { r.URIs = []*url.URL{uri} },
		"DNS name":    func(r *x509.CertificateRequest) { r.DNSNames = []string{"a1"} },
		"CA extension": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)+1))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		who := newSomeone()
		send := func(csr []byte) error {
			_, err := w.ask(w.connect(nil), wire.TypeEnroll, wire.Enroll{Code: w.relay.String(), CSR: csr})
			return err
		}
		for name, change := range cases {
			wantReason(t, name, send(csrFor(who.Key, change)), transport.BadCSR)
		}
		wantReason(t, "no CSR", send(nil), transport.BadCSR)
		wantReason(t, "without the fault", send(who.CSR()), "")
	})
}

func TestEnrollSameKeyGetsTheSameIdentityForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		r := w.enrollRelay()
		first := r.id.Chain
		time.Sleep(23 * time.Hour)
		wantReason(t, "after 23 h", w.enroll(w.relay.String(), r), "")
		if r.id.Chain != first {
			t.Error("another chain")
		}
		time.Sleep(2 * time.Hour)
		wantReason(t, "after 25 h", w.enroll(w.relay.String(), r), transport.BadCode)
	})
}

// Who has a code and its key may ask all day, but not fill the audit.
func TestRepeatedEnrollmentsDoNotFillTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		r := w.enrollRelay()
		for range 50 {
			wantReason(t, "again", w.enroll(w.relay.String(), r), "")
		}
		time.Sleep(flapTime)
		synctest.Wait()
		list := w.records(1000)
		last := list[len(list)-1]
		enrolled := slices.DeleteFunc(list, func(r store.Record) bool { return r.Action != actionEnroll })
		if len(enrolled) != 1+flapRecords+1 || !strings.HasPrefix(last.Detail, "enrolled 48 times more in a minute; again, key ") {
			t.Errorf("%d records, the last %+v", len(enrolled), last)
		}
	})
}

func TestEnrollUsedCodeWithAnotherKeyIsRefusedAndRecorded(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", "1")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.enrollRelay()
		wantReason(t, "another key", w.enroll(w.relay.String(), newSomeone()), transport.BadCode)
		if got := w.actions(1); got[0] != "enroll-refused bad-code" {
			t.Errorf("audit: %v", got)
		}
	})
}

func TestEnrollBadCodesLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		unknown := identity.NewCode()
		// Right lookup id, wrong secret: the code of this record was another one.
		guessed := identity.NewCode()
		w.put(&store.Code{Lookup: guessed.LookupID(), Kind: identity.KindRelay, Subject: "r1", Expires: time.Now().Add(time.Hour)})
		errs := []error{
			w.enroll(unknown.String(), newSomeone()),
			w.enroll(guessed.String(), newSomeone()),
			w.enroll("not a code", newSomeone()),
			w.enroll("", newSomeone()),
			w.enroll(w.admin.String(), newSomeone()), // a user's login code
		}
		for i, err := range errs {
			wantReason(t, fmt.Sprint(i), err, transport.BadCode)
			if err.Error() != errs[0].Error() {
				t.Errorf("%d: %v is not %v", i, err, errs[0])
			}
		}
		time.Sleep(codeLife + time.Second)
		wantReason(t, "expired", w.enroll(w.relay.String(), newSomeone()), transport.BadCode)
	})
}

// Of 100 that enroll with one code at once, exactly one gets an identity.
func TestEnrollRaceGivesOneIdentity(t *testing.T) {
	w := newIdleWorld(t)
	w.server = must(New(w.cfg))
	var won, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 100 {
		from := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		csr := newSomeone().CSR()
		wg.Go(func() {
			_, err := w.server.enroll(t.Context(), from, wire.Enroll{Code: w.relay.String(), CSR: csr})
			switch transport.ReasonOf(err) {
			case "":
				won.Add(1)
			case transport.BadCode:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || refused.Load() != 99 {
		t.Errorf("%d identities, %d refused", won.Load(), refused.Load())
	}
	// Two records say that a used code was tried, and one how often beside these; the others are of init and the identity.
	for _, r := range w.server.flaps.due(time.Now().Add(flapTime)) {
		w.server.auditLater(r)
	}
	records := w.records(1000)
	last := records[len(records)-1]
	if err := store.VerifyAudit(records); err != nil || len(records) != 5 || !strings.HasPrefix(last.Detail, "enroll-refused 97 times more") {
		t.Errorf("%d records, the last %+v, %v", len(records), last, err)
	}
}

// While the database is away nobody enrolls, and nothing is half done.
func TestEnrollWithoutAStoreLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		w := newIdleWorld(t)
		w.cfg.Store = w.db.open("a1", false, func() error {
			if away.Load() {
				return store.ErrAway
			}
			return nil
		})
		w.start()
		synctest.Wait()
		who := newSomeone()
		away.Store(true)
		wantReason(t, "away", w.enroll(w.relay.String(), who), transport.Busy)
		away.Store(false)
		relay := store.Member{Kind: identity.KindRelay, ID: "r1"}
		if w.get(&relay); relay.IsEnrolled() {
			t.Error("enrolled")
		}
		wantReason(t, "later", w.enroll(w.relay.String(), who), "")
		w.stop()
		w.start()
		defer w.stop()
		wantReason(t, "thief with the code", w.enroll(w.relay.String(), newSomeone()), transport.BadCode)
		wantReason(t, "the same key", w.enroll(w.relay.String(), who), "")
		if w.get(&relay); who.id.Chain != relay.Chain {
			t.Error("another chain than the one that is stored")
		}
	})
}

// Ten wrong secrets of one code from one source are refused; then it has to wait. Nobody else does, at whatever code.
func TestEnrollFailuresAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		wrong := wrongSecret(t, w.relay)
		for range limitFailures {
			wantReason(t, "wrong code", w.enroll(wrong, newSomeone()), transport.BadCode)
		}
		err := w.enroll(w.relay.String(), newSomeone())
		r, ok := errors.AsType[*wire.Refusal](err)
		if !ok || r.Reason != transport.Busy || r.RetryAfter <= 0 || r.RetryAfter > limitWindow {
			t.Fatalf("%v", err)
		}
		time.Sleep(r.RetryAfter)
		wantReason(t, "after retry_after_s", w.enroll(w.relay.String(), newSomeone()), "")
	})
}

// wrongSecret returns a code with the lookup id of another one.
func wrongSecret(t *testing.T, of identity.Code) string {
	for _, end := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ" {
		for _, check := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U" {
			text := strings.ReplaceAll(of.String(), "-", "")[:31] + string(end) + string(check)
			if c, err := identity.ParseCode(text); err == nil && c != of {
				return text
			}
		}
	}
	t.Fatal("no other code")
	return ""
}

func TestRenewIgnoresTheDates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		time.Sleep(3 * 365 * 24 * time.Hour)
		if _, err := identity.Verify(device.Chain, w.pki.Roots, time.Now()); err == nil {
			t.Fatal("not expired")
		}
		id, err := w.ask(w.connect(device), wire.TypeRenew, wire.Renew{CSR: device.CSR()})
		if err != nil {
			t.Fatal(err)
		}
		old := device.spki()
		peer, err := identity.Verify(device.take(id).Chain, w.pki.Roots, time.Now(), identity.KindDevice)
		if err != nil || peer.SPKI != old {
			t.Errorf("%v, %v", peer, err)
		}
		if got := w.actions(1); got[0] != "renew ok" {
			t.Errorf("audit: %v", got)
		}
	})
}

func TestRenewRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		device := w.addDevice(admin, "press 1")
		foreign := newIdleWorld(t)
		sameName := w.certified(identity.DeviceName("plant", device.id.UID), 0, time.Hour)
		otherDomain := &someone{Client: &accesstest.Client{Key: device.Key}}
		otherDomain.Chain = w.pki.Chain(device.Key.Public(), identity.DeviceName("other", device.id.UID), 0, time.Hour)
		cases := []struct {
			name string
			who  *someone
			csr  []byte
			want transport.Reason
		}{
			{"no certificate", nil, device.CSR(), transport.NotEnrolled},
			{"a user's certificate", admin, admin.CSR(), transport.WrongKind},
			{"another root", foreign.certified(identity.DeviceName("plant", device.id.UID), 0, time.Hour), device.CSR(), transport.WrongRoot},
			{"not in the registry", w.certified(identity.DeviceName("plant", identity.NewUID()), 0, time.Hour), nil, transport.NotEnrolled},
			{"another key of the name", sameName, sameName.CSR(), transport.WrongKey},
			{"the key in another domain", otherDomain, device.CSR(), transport.NotEnrolled},
			{"CSR with another key", device, newSomeone().CSR(), transport.WrongKey},
			{"CSR with a name", device, csrFor(device.Key, func(r *x509.CertificateRequest) { r.DNSNames = []string{"x"} }), transport.BadCSR},
			{"no fault", device, device.CSR(), ""},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)-1))
		for _, c := range cases {
			if c.csr == nil {
				c.csr = c.who.CSR()
			}
			_, err := w.ask(w.connect(c.who), wire.TypeRenew, wire.Renew{CSR: c.csr})
			wantReason(t, c.name, err, c.want)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		_, err := w.ask(w.connect(device), wire.TypeRenew, wire.Renew{CSR: device.CSR()})
		wantReason(t, "revoked", err, transport.Revoked)
	})
}

func TestHintsAreBoundedAndHarmless(t *testing.T) {
	many := make(map[string]string)
	for i := range 100 {
		many[fmt.Sprint("k", i)] = "v"
	}
	if n := len(cleanHints(many)); n != maxHints {
		t.Errorf("%d hints kept", n)
	}
	bad := map[string]string{"a": "x\n", "b\x1b": "x", "c": strings.Repeat("x", 65), "": "x", "d": "\u202e", "ok": "i.MX6UL"}
	got := cleanHints(bad)
	if len(got) != 1 || got["ok"] != "i.MX6UL" {
		t.Errorf("%v", got)
	}
}

// One device that renews all the time must not push what others did out of the audit.
func TestRenewalsInARowAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		renew := func() string {
			id, err := w.ask(w.connect(device), wire.TypeRenew, wire.Renew{CSR: device.CSR()})
			if err != nil {
				t.Fatal(err)
			}
			return id.Chain
		}
		time.Sleep(renewTime)
		first := renew()
		for range 20 {
			if renew() != first {
				t.Fatal("another certificate")
			}
		}
		if got := w.actions(2); got[0] != "enroll ok" || got[1] != "renew ok" {
			t.Errorf("audit: %v", got)
		}
		time.Sleep(renewTime)
		if renew() == first {
			t.Error("the same certificate, a minute later")
		}
	})
}
