package access

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestEnrolGivesTheIdentityOfTheCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		peer, err := identity.Verify(device.chain, w.roots, time.Now(), identity.KindDevice)
		if err != nil {
			t.Fatal(err)
		}
		if peer.Name != identity.DeviceName("plant", device.id.UID) || peer.SPKI != device.spki() || device.id.Name != "press 1" {
			t.Errorf("%v %v", peer, device.id)
		}
		if life := time.Until(peer.Leaf.NotAfter); life != memberLife {
			t.Errorf("life %v", life)
		}
		relay := w.enrolRelay()
		peer, err = identity.Verify(relay.chain, w.roots, time.Now(), identity.KindRelay)
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
func TestEnrolRefusesCSRThatAsksForAName(t *testing.T) {
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
		w := newWorld(t, NewMemory())
		defer w.stop()
		who := newSomeone()
		send := func(csr []byte) error {
			_, err := w.ask(w.connect(nil), wire.TypeEnrol, wire.Enrol{Code: w.relay.String(), CSR: csr})
			return err
		}
		for name, change := range cases {
			wantReason(t, name, send(csrFor(who.key, change)), transport.BadCSR)
		}
		wantReason(t, "no CSR", send(nil), transport.BadCSR)
		wantReason(t, "without the fault", send(who.csr()), "")
	})
}

func TestEnrolSameKeyGetsTheSameIdentityForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		r := w.enrolRelay()
		first := r.id.Chain
		time.Sleep(23 * time.Hour)
		wantReason(t, "after 23 h", w.enrol(w.relay.String(), r), "")
		if r.id.Chain != first {
			t.Error("another chain")
		}
		time.Sleep(2 * time.Hour)
		wantReason(t, "after 25 h", w.enrol(w.relay.String(), r), transport.BadCode)
	})
}

func TestEnrolUsedCodeWithAnotherKeyIsRefusedAndRecorded(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", "1")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		w.enrolRelay()
		wantReason(t, "another key", w.enrol(w.relay.String(), newSomeone()), transport.BadCode)
		if got := w.actions(1); got[0] != "enrol-refused bad-code" {
			t.Errorf("audit: %v", got)
		}
	})
}

func TestEnrolBadCodesLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		unknown := identity.NewCode()
		// Right lookup id, wrong secret: the code of this record was another one.
		guessed := identity.NewCode()
		wrong := codeRecord{Kind: identity.KindRelay, Key: "r1", Expires: time.Now().Add(time.Hour)}
		if err := save(t.Context(), w.cfg.Store, bucketCodes, guessed.LookupID(), wrong, 0); err != nil {
			t.Fatal(err)
		}
		errs := []error{
			w.enrol(unknown.String(), newSomeone()),
			w.enrol(guessed.String(), newSomeone()),
			w.enrol("not a code", newSomeone()),
			w.enrol("", newSomeone()),
			w.enrol(w.admin.String(), newSomeone()), // a user's login code
		}
		for i, err := range errs {
			wantReason(t, fmt.Sprint(i), err, transport.BadCode)
			if err.Error() != errs[0].Error() {
				t.Errorf("%d: %v is not %v", i, err, errs[0])
			}
		}
		time.Sleep(codeLife + time.Second)
		wantReason(t, "expired", w.enrol(w.relay.String(), newSomeone()), transport.BadCode)
	})
}

// Of 100 that enrol with one code at once, exactly one gets an identity.
func TestEnrolRaceGivesOneIdentity(t *testing.T) {
	for _, kind := range storeKinds() {
		t.Run(kind.name, func(t *testing.T) {
			w := newIdleWorld(t, kind.open(t))
			w.server = must(New(w.cfg))
			var won, refused atomic.Int64
			var wg sync.WaitGroup
			for i := range 100 {
				from := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				csr := newSomeone().csr()
				wg.Go(func() {
					_, err := w.server.enrol(t.Context(), from, wire.Enrol{Code: w.relay.String(), CSR: csr})
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
			records := must(readAudit(t.Context(), w.cfg.Store, "", "", 1000))
			if err := VerifyAudit(records); err != nil || len(records) != 101 {
				t.Errorf("%d records, %v", len(records), err)
			}
		})
	}
}

// failing is a Store whose audit can be broken: the commit is made, the answer
// is not given, as when the server dies in between. Exploding, it panics.
type failing struct {
	Store
	broken, explode atomic.Bool
}

func (f *failing) Get(ctx context.Context, bucket, key string) (Entry, error) {
	if f.explode.Load() {
		panic("a bug")
	}
	return f.Store.Get(ctx, bucket, key)
}

func (f *failing) Append(ctx context.Context, node, domain string, record []byte) error {
	if f.broken.Load() {
		return errors.New("disk is gone")
	}
	return f.Store.Append(ctx, node, domain, record)
}

func TestEnrolDeathAfterTheCommitLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failing{Store: NewMemory()}
		w := newWorld(t, store)
		who := newSomeone()
		store.broken.Store(true)
		wantReason(t, "dying server", w.enrol(w.relay.String(), who), transport.Internal)
		committed, _, err := load[memberRecord](t.Context(), store, bucketRelays, "r1")
		if err != nil || committed.Enrolled == nil {
			t.Fatalf("nothing was committed: %v", err)
		}
		w.stop()
		store.broken.Store(false)
		w.start()
		defer w.stop()
		wantReason(t, "thief with the code", w.enrol(w.relay.String(), newSomeone()), transport.BadCode)
		wantReason(t, "the same key", w.enrol(w.relay.String(), who), "")
		if who.id.Chain != committed.Enrolled.Chain {
			t.Error("another chain than the one committed")
		}
	})
}

func TestEnrolFailuresAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		for range limitPerAddress {
			wantReason(t, "wrong code", w.enrol(identity.NewCode().String(), newSomeone()), transport.BadCode)
		}
		err := w.enrol(w.relay.String(), newSomeone())
		r, ok := errors.AsType[*wire.Refusal](err)
		if !ok || r.Reason != transport.Busy || r.RetryAfter <= 0 || r.RetryAfter > limitWindow {
			t.Fatalf("%v", err)
		}
		time.Sleep(r.RetryAfter)
		wantReason(t, "after retry_after_s", w.enrol(w.relay.String(), newSomeone()), "")
	})
}

func TestRenewIgnoresTheDates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		time.Sleep(3 * 365 * 24 * time.Hour)
		if _, err := identity.Verify(device.chain, w.roots, time.Now()); err == nil {
			t.Fatal("not expired")
		}
		id, err := w.ask(w.connect(device), wire.TypeRenew, wire.Renew{CSR: device.csr()})
		if err != nil {
			t.Fatal(err)
		}
		old := device.spki()
		peer, err := identity.Verify(device.take(id).chain, w.roots, time.Now(), identity.KindDevice)
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
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		device := w.addDevice(admin, "press 1")
		now, later := time.Now(), time.Now().Add(time.Hour)
		foreign := newIdleWorld(t, NewMemory())
		sameName := w.certified(identity.DeviceName("plant", device.id.UID), now, later)
		otherDomain := w.certified(identity.DeviceName("other", device.id.UID), now, later)
		otherDomain.key = device.key
		otherDomain.chain = must(w.issuing.Issue(identity.Request{
			Name: identity.DeviceName("other", device.id.UID), Pub: device.key.Public(), NotBefore: now, NotAfter: later}))
		cases := []struct {
			name string
			who  *someone
			csr  []byte
			want transport.Reason
		}{
			{"no certificate", nil, device.csr(), transport.NotEnrolled},
			{"a user's certificate", admin, admin.csr(), transport.WrongKind},
			{"another root", foreign.certified(identity.DeviceName("plant", device.id.UID), now, later), device.csr(), transport.WrongRoot},
			{"not in the registry", w.certified(identity.DeviceName("plant", identity.NewUID()), now, later), nil, transport.NotEnrolled},
			{"another key of the name", sameName, sameName.csr(), transport.WrongKey},
			{"the key in another domain", otherDomain, device.csr(), transport.NotEnrolled},
			{"CSR with another key", device, newSomeone().csr(), transport.WrongKey},
			{"CSR with a name", device, csrFor(device.key, func(r *x509.CertificateRequest) { r.DNSNames = []string{"x"} }), transport.BadCSR},
			{"no fault", device, device.csr(), ""},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)-1))
		for _, c := range cases {
			if c.csr == nil {
				c.csr = c.who.csr()
			}
			_, err := w.ask(w.connect(c.who), wire.TypeRenew, wire.Renew{CSR: c.csr})
			wantReason(t, c.name, err, c.want)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		_, err := w.ask(w.connect(device), wire.TypeRenew, wire.Renew{CSR: device.csr()})
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
