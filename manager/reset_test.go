package manager

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

// resetBox is a mailbox whose server also has a domain reset.
func (f *fake) resetBox() (kept *[]string, reset *[]byte) {
	kept, _ = f.mailbox()
	reset = new([]byte)
	f.answer("GET /statements", func(w http.ResponseWriter, r *http.Request) {
		jsonAnswer(api.Statements{Statements: *kept, DomainReset: *reset})(w, r)
	})
	return kept, reset
}

// A domain key that the root alone names counts at a Manager when a person has compared it, and no sooner.
func TestAManagerTakesTheRootsWordFromAPersonOnly(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		var said []string
		a := f.loggedIn(m)
		m.Notice = func(text string) { said = append(said, text) }
		kept, reset := f.resetBox()
		was := a.state.owner.Pinned().Key
		next, other := identitytest.NewOwner("default"), identitytest.NewOwner("default")
		sign := func(by *identity.Authority, domain string, sequence uint64) []byte {
			return must(identity.DomainReset{Domain: domain, Key: next.Key, Sequence: sequence}.Sign(by))
		}
		accept := func(fingerprint identity.SPKI) error {
			_, err := must(m.Open()).AcceptDomain(t.Context(), Same(fingerprint.String()))
			return err
		}
		if err := accept(next.Key.SPKI()); transport.ReasonOf(err) != transport.Stale {
			t.Errorf("there is none: %v", err)
		}
		for name, raw := range map[string][]byte{
			"another root":   sign(identitytest.New(time.Now()).Root, "default", 5),
			"another domain": sign(f.pki.Root, "mill", 5),
			"cut":            sign(f.pki.Root, "default", 5)[:90],
		} {
			*reset = raw
			if err := accept(next.Key.SPKI()); err == nil {
				t.Errorf("%s: accepted", name)
			}
			must(must(m.Open()).read(t.Context()))
			if len(said) != 0 {
				t.Errorf("%s: %q", name, said)
			}
		}
		*reset = sign(f.pki.Root, "default", 5)
		must(must(m.Open()).read(t.Context()))
		if len(said) != 1 || !strings.Contains(said[0], "domain accept --fingerprint "+next.Key.SPKI().String()) {
			t.Errorf("said: %q", said)
		}
		if err := accept(other.Key.SPKI()); ExitCode(err) != answer.ExitRefused {
			t.Errorf("another fingerprint: %v", err)
		}
		if err := accept(identity.SPKI{}); err == nil {
			t.Error("a fingerprint of nothing")
		}
		if got := must(m.Open()).state.owner.Pinned().Key; got != was {
			t.Fatal("the key is another one before anybody has said so")
		}
		if err := accept(next.Key.SPKI()); err != nil || must(m.Open()).state.owner.Pinned().Key != next.Key {
			t.Errorf("compared: %v", err)
		}
		if err := accept(next.Key.SPKI()); transport.ReasonOf(err) != transport.Stale {
			t.Errorf("again: %v", err)
		}
		// A newer one that leads to the key that is pinned, by a change of its own, needs nobody.
		third := identitytest.NewOwner("default")
		*kept = append(*kept, third.Sign(identity.DomainStatement{Domain: "default", Old: third.Key, New: next.Key, Serial: third.Serial()}).JWS)
		*reset = must(identity.DomainReset{Domain: "default", Key: third.Key, Sequence: 6}.Sign(f.pki.Root))
		must(must(m.Open()).read(t.Context()))
		o := must(m.Open()).state.owner
		if o.Pinned().Key != next.Key || len(said) != 1 || string(o.Reset(was.SPKI())) != string(*reset) {
			t.Errorf("one that leads to the pinned key: %q", said)
		}
	})
	t.Attr("cases", "9")
}

// What an earlier domain key had stated is stated again as far as nobody has struck it, without the lost PC of the founder.
func TestADomainIsAdopted(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		before := identitytest.NewOwner("default")
		ann, bob, cat, ada, uid := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey(), identitytest.NewKey(), identity.NewUID()
		*kept = append(*kept, before.UserChain("ann", identity.RoleOperator, nil, ann.Public())...)
		*kept = append(*kept, before.UserChain("bob", identity.RoleOperator, nil, bob.Public())...)
		*kept = append(*kept, before.UserChain("cat", identity.RoleViewer, nil, cat.Public())...)
		*kept = append(*kept, before.UserChain("ada", identity.RoleAdmin, nil, ada.Public())...)
		*kept = append(*kept, before.UserChain("admin", identity.RoleAdmin, nil, identitytest.NewKey().Public())...)
		*kept = append(*kept, before.Lists(identity.Entry{Subject: identity.Subject{User: "bob"}, All: before.Serial(), Until: time.Now().Add(identity.EntryLifetime - time.Hour).Unix()}).JWS)
		// A gateway that ada has added and nobody has confirmed.
		device := must(identity.Sign(identity.DeviceStatement{Domain: "default", UID: uid, Name: "press 9", Serial: before.Serial()}, ada))
		invited, serial := identity.NewOwnerCode().InviteKey(0), before.Serial()
		invite := must(identity.Sign(identity.InviteStatement{Domain: "default", Subject: identity.Subject{UID: uid}, Key: must(identity.NewPublicKey(invited.Public())),
			Exp: int64(serial/1000) + 3600, Serial: serial}, ada))
		gateway := identitytest.NewKey()
		own := must(identity.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{UID: uid}, Key: must(identity.NewPublicKey(gateway.Public()))}, invited))
		*kept = append(*kept, device.JWS, invite.JWS, own.JWS)
		// Whom a thief with her key has stated as an admin's PC.
		*kept = append(*kept, must(identity.Sign(identity.KeyStatement{Domain: "default", Subject: identity.Subject{User: "admin2"},
			Key: must(identity.NewPublicKey(bob.Public())), Serial: before.Serial()}, ada)).JWS)
		*kept = append(*kept, before.UserChain("admin2", identity.RoleAdmin, nil, cat.Public())...)
		// What the server makes up is by another key.
		*kept = append(*kept, identitytest.NewOwner("default").UserChain("eve", identity.RoleAdmin, nil, bob.Public())...)

		if _, err := a.AdoptDomain(t.Context(), Adoption{From: a.state.owner.Pinned().Key}); ExitCode(err) != answer.ExitUsage {
			t.Errorf("from itself: %v", err)
		}
		n := len(*kept)
		found, err := a.AdoptDomain(t.Context(), Adoption{From: before.Key, Without: []string{"cat"}})
		if err != nil || len(*kept) != n {
			t.Fatalf("%v, and %d statements more", err, len(*kept)-n)
		}
		var names []string
		for _, one := range found {
			names = append(names, one.User+one.Name)
			if len(one.Keys) != 1 {
				t.Errorf("%+v", one)
			}
		}
		if slices.Sort(names); strings.Join(names, ",") != "ada,admin2,ann,press 9" {
			t.Errorf("found %q", names)
		}
		if _, err := a.AdoptDomain(t.Context(), Adoption{From: before.Key, Without: []string{"cat"}, Sign: true}); err != nil {
			t.Fatal(err)
		}
		a = must(m.Open())
		pool := must(a.read(t.Context()))
		v := identity.Verifier{Pinned: a.state.owner.Pinned(), Lists: a.state.owner.Lists()}
		for name, want := range map[identity.Name]struct {
			key any
			in  bool
		}{
			identity.UserName("default", "ann"):   {ann.Public(), true},
			identity.UserName("default", "ada"):   {ada.Public(), true},
			identity.DeviceName("default", uid):   {gateway.Public(), true},
			identity.UserName("default", "bob"):   {bob.Public(), false},
			identity.UserName("default", "cat"):   {cat.Public(), false},
			identity.UserName("default", "eve"):   {bob.Public(), false},
			identity.UserName("default", "admin"): {a.state.Key.Public(), true},
		} {
			_, err := v.Assemble(pool, identity.Peer{Name: name, SPKI: must(identity.SPKIOf(want.key))}, time.Now())
			if (err == nil) != want.in {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !slices.ContainsFunc(v.Lists.Entries(), func(e identity.Entry) bool { return e.User == "bob" }) {
			t.Error("who was struck is struck no more")
		}
	})
	t.Attr("cases", "7")
}
