package owner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

// resets is a gateway, its root, and owners with other keys of the same domain.
type resets struct {
	gateway
	pki         *identitytest.PKI
	next, thief *identitytest.Owner
}

func newResets(t *testing.T) *resets {
	return &resets{newGateway(t), identitytest.New(time.Now()), identitytest.NewOwner("plant"), identitytest.NewOwner("plant")}
}

func (r *resets) sign(by *identity.Authority, domain string, key identity.PublicKey, sequence uint64) []byte {
	r.t.Helper()
	b, err := identity.DomainReset{Domain: domain, Key: key, Sequence: sequence}.Sign(by)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *resets) reset(raw []byte) bool {
	r.t.Helper()
	taken, err := r.TakeReset(raw, r.pki.Roots, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return taken
}

// rotate is the word of one key that another one takes its place.
func rotate(from, to *identitytest.Owner) string {
	return from.Sign(identity.DomainStatement{Domain: from.Domain, Old: from.Key, New: to.Key, Serial: from.Serial()}).JWS
}

func (r *resets) pins(o *identitytest.Owner, when string) {
	r.t.Helper()
	if r.Pinned().Key != o.Key {
		r.t.Errorf("%s: another key is pinned", when)
	}
}

// Whatever the thief of a domain key signs with it, and whenever that comes, the root's word wins, over power cuts too.
func TestTheRootWinsOverAThiefsRotate(t *testing.T) {
	t.Attr("id", "T-lost")
	for name, order := range map[string]string{"rotate, then reset": "tR", "reset, then rotate": "Rt", "rotate twice around it": "tRt", "reset twice": "tRRt"} {
		r := newResets(t)
		stolen, root := rotate(r.owner, r.thief), r.sign(r.pki.Root, "plant", r.next.Key, 5)
		for i, step := range order {
			if step == 't' {
				r.take(stolen)
			} else if taken := r.reset(root); taken != (i == 0 || order[i-1] != 'R') {
				t.Errorf("%s: taken %v", name, taken)
			}
			r.reopen()
		}
		r.pins(r.next, name)
		if len(r.Chain()) != 0 {
			t.Errorf("%s: what the key before has stated still counts", name)
		}
		if raw, news := r.Reset(r.owner.Key.SPKI()), r.News(r.owner.Key.SPKI(), 0, identity.MaxSerial); string(raw) != string(root) || len(news) != 0 {
			t.Errorf("%s: passed on: %d bytes, %d statements", name, len(raw), len(news))
		}
	}
	t.Attr("cases", "4")
}

// A reset is taken once: the new key's own change comes after it and is not undone, by nobody.
func TestADomainResetIsTakenOnce(t *testing.T) {
	t.Attr("id", "T-lost")
	r := newResets(t)
	last := identitytest.NewOwner("plant")
	first := r.sign(r.pki.Root, "plant", r.next.Key, 5)
	if !r.reset(first) {
		t.Fatal("not taken")
	}
	r.take(rotate(r.next, last))
	r.reopen() // as after a power cut
	strange := identitytest.New(time.Now())
	flipped := append([]byte(nil), first...)
	flipped[70] ^= 1
	none := r.sign(r.pki.Root, "plant", r.thief.Key, 9)
	copy(none[87:95], make([]byte, 8)) // sequence 0, which nobody has signed so
	cases := map[string][]byte{
		"replayed":          first,
		"a lower sequence":  r.sign(r.pki.Root, "plant", r.thief.Key, 4),
		"the same sequence": r.sign(r.pki.Root, "plant", r.thief.Key, 5),
		"of another domain": r.sign(r.pki.Root, "mill", r.thief.Key, 9),
		"of another root":   r.sign(strange.Root, "plant", r.thief.Key, 9),
		"of an issuing CA":  r.sign(r.pki.Issuing, "plant", r.thief.Key, 9),
		"sequence 0":        none,
		"a flipped bit":     flipped,
		"cut":               first[:100],
		"nothing":           nil,
	}
	for name, raw := range cases {
		if r.reset(raw) {
			t.Errorf("%s: taken", name)
		}
		r.reopen()
		r.pins(last, name)
	}
	if raw, news := r.Reset(r.owner.Key.SPKI()), r.News(r.owner.Key.SPKI(), 0, identity.MaxSerial); string(raw) != string(first) || len(news) != 1 {
		t.Errorf("passed on: %d bytes and %d statements, want the reset and what followed it", len(raw), len(news))
	}
	if r.Reset(last.Key.SPKI()) != nil || r.Reset(identity.SPKI{}) != nil {
		t.Error("given to whoever lacks nothing, or does not say")
	}
	// Whoever was away takes both, and so does who has the thief's key.
	away := newResets(t)
	away.pki, away.owner = r.pki, r.owner
	away.reset(r.Reset(away.Pinned().Key.SPKI()))
	away.take(r.News(away.owner.Key.SPKI(), 0, identity.MaxSerial)...)
	away.pins(last, "away")
	t.Attr("cases", "10")
}

// Between two resets a power cut that takes the newer half of a file leaves a sequence that was on the medium.
func TestALowerResetAfterAPowerCut(t *testing.T) {
	t.Attr("id", "T-lost")
	r := newResets(t)
	second := r.sign(r.pki.Root, "plant", r.next.Key, 7)
	r.reset(r.sign(r.pki.Root, "plant", r.thief.Key, 5))
	r.reset(second)
	// The write of a third one is cut: the slot that it goes to is the older one, so that the newest stays.
	for _, slot := range []string{"owner.0", "owner.1"} {
		name := filepath.Join(r.dir, slot)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, whole[:len(whole)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		r.reopen()
		if older := r.Pinned().Key == r.thief.Key; older { // the slot with the newest was cut: what was lost comes again
			if r.reset(r.sign(r.pki.Root, "plant", r.owner.Key, 5)) || !r.reset(second) {
				t.Error("a lower one is taken, or the newer one is not")
			}
		} else if r.reset(r.sign(r.pki.Root, "plant", r.owner.Key, 6)) {
			t.Error("a lower one is taken")
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		r.reopen()
	}
	t.Attr("cases", "2")
}

// Who was enrolled under a key that came later than a reset is not led back by it, whoever held it until then.
func TestAResetFromBeforeTheCodeIsOld(t *testing.T) {
	t.Attr("id", "T-lost")
	r := newResets(t)
	uid, err := identity.ParseUID(r.peer.Name.ID)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	_, open := r.owner.Invite(r.owner.Device(uid, "press 4"))
	if err := r.EnrolledBy([]string{open.Subject.JWS, open.Invite.JWS}, now); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if r.reset(r.sign(r.pki.Root, "plant", r.thief.Key, uint64(now.Add(-time.Minute).UnixMilli()))) {
		t.Error("an old one is taken")
	}
	if !r.reset(r.sign(r.pki.Root, "plant", r.next.Key, uint64(now.Add(time.Minute).UnixMilli()))) {
		t.Error("a new one is not taken")
	}
	// Whoever made the code had a clock of 2200, or wanted it to look so.
	ahead := newResets(t)
	then := time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	late, err := identity.Sign(identity.InviteStatement{Domain: "plant", Subject: identity.Subject{UID: uid}, Key: r.next.Key,
		Exp: then.Unix() + 3600, Serial: uint64(then.UnixMilli())}, identitytest.NewKey())
	if err == nil {
		err = ahead.EnrolledBy([]string{late.JWS}, now)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !ahead.reset(ahead.sign(ahead.pki.Root, "plant", ahead.next.Key, uint64(now.Add(time.Minute).UnixMilli()))) {
		t.Error("a code from the future shuts the root out")
	}
	t.Attr("cases", "3")
}
