package owner

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

type gateway struct {
	t     *testing.T
	dir   string
	owner *identitytest.Owner
	peer  identity.Peer
	*Owner
}

func newGateway(t *testing.T) gateway {
	t.Helper()
	g := gateway{t: t, dir: t.TempDir(), owner: identitytest.NewOwner("plant")}
	if err := os.Chmod(g.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	uid, key := identity.NewUID(), identitytest.NewKey()
	spki, err := identity.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	g.peer = identity.Peer{Name: identity.DeviceName("plant", uid), SPKI: spki}
	if g.Owner, err = Create(g.dir, g.peer, g.owner.Key); err != nil {
		t.Fatal(err)
	}
	g.take(g.owner.DeviceChain(uid, "press 4", key.Public())...)
	return g
}

func (g *gateway) take(statements ...string) (listed bool) {
	g.t.Helper()
	listed, err := g.Take(statements, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	return listed
}

// reopen is what comes after a power cut.
func (g *gateway) reopen() {
	g.t.Helper()
	var err error
	if g.Owner, err = Open(g.dir, g.peer); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) user(chain []string, name string, spki identity.SPKI) identity.Fault {
	g.t.Helper()
	_, err := g.Judge(chain, identity.Peer{Name: identity.UserName("plant", name), SPKI: spki}, 0, time.Now())
	return identity.FaultOf(err)
}

func TestARevocationOutlivesAPowerCut(t *testing.T) {
	g := newGateway(t)
	key := identitytest.NewKey()
	spki, _ := identity.SPKIOf(key.Public())
	chain := g.owner.UserChain("ann", identity.RoleOperator, nil, key.Public())
	if fault := g.user(chain, "ann", spki); fault != "" {
		t.Fatalf("a user who is stated is refused: %s", fault)
	}
	list := g.owner.Lists(identity.Entry{Subject: identity.Subject{User: "ann"}, All: identity.MaxSerial, Until: time.Now().Add(time.Hour).Unix()})
	if !g.take(list.JWS) || g.take(list.JWS) {
		t.Error("a list is news once")
	}
	for range 2 {
		if fault := g.user(chain, "ann", spki); fault != identity.FaultRevoked {
			t.Errorf("a revoked user: %q", fault)
		}
		if serial, device := g.Serials(); serial != g.owner.List || device == 0 {
			t.Errorf("list %d of %d, statement %d", serial, g.owner.List, device)
		}
		g.reopen()
	}
}

func TestWhoIsBehindIsBroughtUp(t *testing.T) {
	ahead, behind := newGateway(t), newGateway(t)
	behind.owner = ahead.owner
	var err error
	if behind.Owner, err = Create(behind.dir, behind.peer, ahead.owner.Key); err != nil {
		t.Fatal(err)
	}
	ahead.take(ahead.owner.Lists().JWS)
	ahead.reopen() // what was signed is kept too
	list, _ := behind.Serials()
	news := ahead.News(identity.SPKI{}, list, identity.MaxSerial)
	if !behind.take(news...) {
		t.Error("nothing was learnt")
	}
	if list, _ = behind.Serials(); list != ahead.owner.List || len(ahead.News(identity.SPKI{}, list, identity.MaxSerial)) != 0 {
		t.Errorf("list %d, want %d and no news any more", list, ahead.owner.List)
	}
	if news := ahead.News(identity.SPKI{}, list, 0); len(news) != 2 {
		t.Errorf("%d statements about the device itself, want its chain", len(news))
	}
}

// An admin's list counts by his statements, which travel with it.
func TestAListOfAnAdminIsPassedOnWithHisStatements(t *testing.T) {
	g := newGateway(t)
	key := identitytest.NewKey()
	admin := g.owner.UserChain("ada", identity.RoleAdmin, nil, key.Public())
	serial := g.owner.Serial()
	list, err := identity.Sign(identity.ListStatement{Domain: "plant", Serial: serial, Iat: int64(serial / 1000),
		Entries: []identity.Entry{}}, key)
	if err != nil {
		t.Fatal(err)
	}
	if g.take(list.JWS) {
		t.Error("an admin's list counts without him")
	}
	if !g.take(admin[1], list.JWS, admin[0], "nothing that parses") {
		t.Error("an admin's list does not count")
	}
	if news := g.News(identity.SPKI{}, 0, identity.MaxSerial); len(news) != 3 {
		t.Errorf("%d statements are passed on, want the list and two about the admin", len(news))
	}
}

func TestWhatIsNotWholeIsNotBegunAnew(t *testing.T) {
	g := newGateway(t)
	g.take(g.owner.Lists().JWS)
	for _, slot := range []string{"owner.0", "owner.1"} {
		name := filepath.Join(g.dir, slot)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(g.dir, g.peer); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened with %v", err)
	}
	if _, err := Open(t.TempDir(), g.peer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	other := newGateway(t)
	if _, err := Open(other.dir, g.peer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("somebody else's: %v", err)
	}
}

// A device that enrolls after somebody was revoked has no list yet, and its statement says that there is one.
func TestAChainThatWaitsForAListIsKept(t *testing.T) {
	g := newGateway(t)
	list := g.owner.Lists()
	uid, key := identity.NewUID(), identitytest.NewKey()
	spki, _ := identity.SPKIOf(key.Public())
	g.peer = identity.Peer{Name: identity.DeviceName("plant", uid), SPKI: spki}
	var err error
	if g.Owner, err = Create(g.dir, g.peer, g.owner.Key); err != nil {
		t.Fatal(err)
	}
	chain := g.owner.DeviceChain(uid, "press 5", key.Public())
	g.take(chain...)
	if g.Chain() == nil {
		t.Error("the chain is lost")
	}
	if !g.take(list.JWS) {
		t.Error("the list does not count")
	}
	if s, err := g.Statement(); err != nil || s.JWS != chain[0] {
		t.Errorf("%v, %v", s, err)
	}
}

// Who was away while the key changed twice is led from the one that he pinned to the one that counts.
func TestTheDomainKeyIsFollowed(t *testing.T) {
	g := newGateway(t)
	was, second, third := g.owner, identitytest.NewOwner("plant"), identitytest.NewOwner("plant")
	change := func(from, to *identitytest.Owner) string {
		return from.Sign(identity.DomainStatement{Domain: "plant", Old: from.Key, New: to.Key, Serial: from.Serial()}).JWS
	}
	uid, err := identity.ParseUID(g.peer.Name.ID)
	if err != nil {
		t.Fatal(err)
	}
	key := identitytest.NewKey()
	spki, _ := identity.SPKIOf(key.Public())
	ann := third.UserChain("ann", identity.RoleOperator, nil, key.Public())
	if fault := g.user(ann, "ann", spki); fault != identity.FaultNotStated {
		t.Errorf("before: %s", fault)
	}
	ahead := newGateway(t)
	if ahead.Owner, err = Create(ahead.dir, ahead.peer, was.Key); err != nil {
		t.Fatal(err)
	}
	ahead.take(change(second, third), change(was, second)) // in any order
	ahead.reopen()
	g.take(ahead.News(was.Key.SPKI(), 0, identity.MaxSerial)...)
	g.reopen()
	if g.Pinned().Key != third.Key || len(g.News(third.Key.SPKI(), 0, identity.MaxSerial)) != 0 {
		t.Errorf("the pinned key is %v", g.Pinned().Key.SPKI())
	}
	if fault := g.user(ann, "ann", spki); fault != "" {
		t.Errorf("after: %s", fault)
	}
	// A thief of the first key comes too late, and one of another domain has nothing to say.
	thief := identitytest.NewOwner("plant")
	g.take(change(was, thief), thief.Sign(identity.DomainStatement{Domain: "plant", Old: third.Key, New: thief.Key, Serial: 1}).JWS,
		third.Sign(identity.DomainStatement{Domain: "other", Old: third.Key, New: thief.Key, Serial: 1}).JWS)
	if g.Pinned().Key != third.Key {
		t.Error("a thief has taken the domain over")
	}
	if g.take(third.DeviceChain(uid, "press 4", identitytest.NewKey().Public())...) {
		t.Error("statements about another key are a list?")
	}
}

// A new key of the same holder, or of another one, does not make a revocation be forgotten.
func TestListsOutliveTheKeyOfWhoKeepsThem(t *testing.T) {
	g := newGateway(t)
	g.take(g.owner.Lists().JWS)
	spki, _ := identity.SPKIOf(identitytest.NewKey().Public())
	again := identity.Peer{Name: g.peer.Name, SPKI: spki}
	o, err := Create(g.dir, again, g.owner.Key)
	if err != nil {
		t.Fatal(err)
	}
	if list, device := o.Serials(); list != g.owner.List || device != 0 || o.Chain() != nil {
		t.Errorf("list %d of %d, statement %d", list, g.owner.List, device)
	}
	if o, err = Create(g.dir, again, identitytest.NewOwner("plant").Key); err != nil {
		t.Fatal(err)
	}
	if list, _ := o.Serials(); list != 0 || len(o.News(identity.SPKI{}, 0, 0)) != 0 {
		t.Error("another domain key has the lists of the one before")
	}
}

// Whoever had a domain key can sign the way back. A verifier that followed it would go round for ever.
func TestADomainKeyThatWasReplacedDoesNotComeBack(t *testing.T) {
	g := newGateway(t)
	next := identitytest.NewOwner("plant")
	there := g.owner.Sign(identity.DomainStatement{Domain: "plant", Old: g.owner.Key, New: next.Key, Serial: 1})
	back := next.Sign(identity.DomainStatement{Domain: "plant", Old: next.Key, New: g.owner.Key, Serial: 2})
	for _, statements := range [][]string{{there.JWS, back.JWS}, {back.JWS}, {back.JWS, there.JWS}} {
		if g.take(statements...); g.Pinned().Key != next.Key {
			t.Fatal("the key is not the one that the first named")
		}
	}
	// Nor by an old code.
	if _, err := Create(g.dir, g.peer, g.owner.Key); identity.FaultOf(err) != identity.FaultNotStated {
		t.Errorf("pinned again: %v", err)
	}
	if g.reopen(); g.Pinned().Key != next.Key {
		t.Error("the key is another one after an old code")
	}
}

// What comes beside a list is kept for others only as far as it proves the list: else a peer fills their room with rubbish.
func TestOnlyWhatProvesAListIsKeptForOthers(t *testing.T) {
	g := newGateway(t)
	thief, ada := identitytest.NewOwner("plant"), identitytest.NewKey()
	statements := g.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	serial := g.owner.Serial()
	list, err := identity.Sign(identity.ListStatement{Domain: "plant", Serial: serial, Iat: int64(serial / 1000), Entries: []identity.Entry{}}, ada)
	if err != nil {
		t.Fatal(err)
	}
	var rubbish []string
	for range 50 {
		rubbish = append(rubbish, thief.UserChain("ada", identity.RoleAdmin, nil, ada.Public())...)
	}
	if !g.take(append(append(rubbish, list.JWS), statements...)...) {
		t.Fatal("the list does not count")
	}
	if news := g.News(identity.SPKI{}, 0, identity.MaxSerial); len(news) != 3 {
		t.Errorf("%d statements are kept of a list and two statements about its signer", len(news))
	}
}

// A peer sends what it likes before anybody has judged it: what nobody signed who may is not tried with everything else.
func TestOnlyWhatTheOwnerSignedIsPutTogether(t *testing.T) {
	g := newGateway(t)
	thief, uid := identitytest.NewOwner("plant"), must(identity.ParseUID(g.peer.Name.ID))
	genuine := g.owner.Device(uid, "press 5")
	pool := []string{genuine.JWS, genuine.JWS}
	for range 20 {
		_, said := thief.Invite(thief.Device(uid, "x"))
		pool = append(pool, said.Subject.JWS, said.Invite.JWS, thief.DeviceKey(uid, identitytest.NewKey().Public()).JWS)
	}
	k := g.now()
	if about := k.about(g.peer, parse(pool), k.admins(parse(pool))); len(about) != 1 || about[0].JWS != genuine.JWS {
		t.Errorf("%d statements of %d are tried", len(about), len(pool))
	}
}

// Whoever has an admin's key can give a gateway a list with the greatest serial. It must still hear that he is shut out.
func TestTheGreatestSerialHidesNoRevocation(t *testing.T) {
	g, technician := newGateway(t), newGateway(t)
	technician.owner, technician.peer = g.owner, identity.Peer{Name: identity.UserName("plant", "tech")}
	technician.Owner = must(Create(t.TempDir(), technician.peer, g.owner.Key))
	ada := identitytest.NewKey()
	admin := g.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	last := must(identity.Sign(identity.ListStatement{Domain: "plant", Serial: identity.MaxSerial, Iat: time.Now().Unix(), Entries: []identity.Entry{}}, ada))
	bob := identitytest.NewKey()
	other := g.owner.UserChain("bob", identity.RoleAdmin, nil, bob.Public())
	serial := g.owner.Serial()
	end := must(identity.Sign(identity.ListStatement{Domain: "plant", Serial: serial, Iat: int64(serial / 1000), Entries: []identity.Entry{
		{Subject: identity.Subject{User: "ada"}, All: serial, Until: time.Now().Add(time.Hour).Unix()}}}, bob))
	g.take(append(admin, last.JWS)...)
	for _, known := range [][]string{append(admin, last.JWS), append(other, end.JWS)} {
		if _, err := technician.Take(known, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	list, _ := g.Serials()
	if !g.take(technician.News(identity.SPKI{}, list, identity.MaxSerial)...) {
		t.Fatal("the gateway is not told")
	}
	list, _ = g.Serials()
	if fault := g.user(admin, "ada", must(identity.SPKIOf(ada.Public()))); fault != identity.FaultRevoked || list != serial {
		t.Errorf("ada: %q; the newest list is %d, want %d", fault, list, serial)
	}
	if news := technician.News(identity.SPKI{}, list, identity.MaxSerial); len(news) != 0 {
		t.Errorf("it is told again: %d", len(news))
	}
}

// As many entries as are kept, each in the lists of several admins: what cannot be stored takes no revocation either.
func TestFullListsAreStored(t *testing.T) {
	o, until := identitytest.NewOwner("plant"), time.Now().Add(300*24*time.Hour).Unix()
	m := must(Create(t.TempDir(), identity.Peer{Name: identity.UserName("plant", "ann")}, o.Key))
	for range 4 {
		key, admin := identitytest.NewKey(), "admin-"+strings.Repeat("x", 40)
		proof := o.UserChain(admin, identity.RoleAdmin, nil, key.Public())
		for part := range 6 {
			var entries []identity.Entry
			for i := range 300 {
				e := identity.Entry{Subject: identity.Subject{User: fmt.Sprintf("%s-%05d", strings.Repeat("u", 50), part*300+i)}, All: identity.MaxSerial, Until: until}
				if part >= 3 {
					e = identity.Entry{Subject: identity.Subject{UID: identity.UID{1, byte(part), byte(i >> 8), byte(i)}}, All: identity.MaxSerial}
				}
				entries = append(entries, e)
			}
			serial := o.Serial()
			list := identity.ListStatement{Domain: "plant", Serial: serial, Iat: int64(serial / 1000), Entries: identity.SortEntries(entries)}
			if _, err := m.Take(append(proof, must(identity.Sign(list, key)).JWS), time.Now()); err != nil {
				t.Fatalf("%d entries: %v", len(m.Lists().Entries()), err)
			}
		}
	}
	if n := len(m.Lists().Entries()); n != 1800 {
		t.Errorf("%d entries", n)
	}
}

// An admin has moved the gateway, and his own statement has ended. Whoever may connect to where it was before brings the older
// statement: it stays where it is, unless the admin was shut out.
func TestAGatewayStaysWhereItWasMoved(t *testing.T) {
	g := newGateway(t)
	uid, ada, before := must(identity.ParseUID(g.peer.Name.ID)), identitytest.NewKey(), g.Chain()
	admin := g.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	serial := g.owner.Serial()
	moved := must(identity.Sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "press 4", Folder: "vault", Serial: serial}, ada))
	g.take(append(admin, moved.JWS)...)
	folder := func() string { return must(g.Statement()).Statement.(identity.DeviceStatement).Folder }
	for _, after := range []time.Duration{0, 400 * 24 * time.Hour} {
		if _, err := g.Take(before, time.Now().Add(after)); err != nil || folder() != "vault" {
			t.Errorf("after %v it is in %q, %v", after, folder(), err)
		}
	}
	g.take(g.owner.Lists(identity.Entry{Subject: identity.Subject{User: "ada"}, All: g.owner.Serial(), Until: time.Now().Add(time.Hour).Unix()}).JWS)
	if g.take(before...); folder() != "" {
		t.Errorf("what a thief has said of it stands: %q", folder())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Whatever is brought late: the newest statement of the owner is what the gateway is called.
func TestAnOlderStatementTakesNothingBack(t *testing.T) {
	g := newGateway(t)
	uid, _ := identity.ParseUID(g.peer.Name.ID)
	place := func(name, folder string) string {
		return g.owner.Sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: name, Folder: folder, Serial: g.owner.Serial()}).JWS
	}
	late, renamed := place("press 7", ""), place("press 9", "north/hall")
	thief := identitytest.NewOwner("plant")
	thief.Serial()
	forged := thief.Sign(identity.DeviceStatement{Domain: "plant", UID: uid, Name: "press 8", Serial: identity.MaxSerial}).JWS
	for _, news := range [][]string{{renamed}, {late}, {forged}, {forged, late}} {
		g.take(news...)
		s, err := g.Statement()
		if d, _ := s.Statement.(identity.DeviceStatement); err != nil || d.Name != "press 9" || d.Folder != "north/hall" {
			t.Fatalf("after %d statements: %+v, %v", len(news), d, err)
		}
		g.reopen()
	}
}

// Nobody but the owner lets a gateway go, by a statement about this one that counts now.
func TestOnlyTheOwnersWordReleases(t *testing.T) {
	g := newGateway(t)
	uid, _ := identity.ParseUID(g.peer.Name.ID)
	stated := func(uid identity.UID, serial uint64, released bool) identity.DeviceStatement {
		return identity.DeviceStatement{Domain: "plant", UID: uid, Name: "press 4", Serial: serial, Released: released}
	}
	sign := func(s identity.Statement, key crypto.Signer) string {
		t.Helper()
		signed, err := identity.Sign(s, key)
		if err != nil {
			t.Fatal(err)
		}
		return signed.JWS
	}
	ada, bob, thief := identitytest.NewKey(), identitytest.NewKey(), identitytest.NewOwner("plant")
	admin := g.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	operator := g.owner.UserChain("bob", identity.RoleOperator, nil, bob.Public())
	selfMade := thief.UserChain("ada", identity.RoleAdmin, nil, bob.Public())
	next := g.owner.Serial()
	unknown := stated(uid, next, true)
	unknown.Seen = identity.MaxSerial
	for what, news := range map[string][]string{
		"nothing":                    nil,
		"a statement that keeps it":  {sign(stated(uid, next, false), g.owner.DomainKey)},
		"another domain key's":       {sign(stated(uid, next, true), thief.DomainKey)},
		"an operator's":              append(operator, sign(stated(uid, next, true), bob)),
		"an admin's without proof":   {sign(stated(uid, next, true), ada)},
		"one whom a thief has made":  append(selfMade, sign(stated(uid, next, true), bob)),
		"that of another device":     {sign(stated(identity.NewUID(), next, true), g.owner.DomainKey)},
		"an older one, of before":    {sign(stated(uid, 1, true), g.owner.DomainKey)},
		"with a list that is lacked": {sign(unknown, g.owner.DomainKey)},
		"what does not parse":        {"a.b.c"},
	} {
		if g.Released(news, time.Now()) {
			t.Errorf("%s lets it go", what)
		}
	}
	for what, news := range map[string][]string{
		"the domain key": {sign(stated(uid, next, true), g.owner.DomainKey)},
		"an admin":       append(admin, sign(stated(uid, next, true), ada)),
	} {
		if !g.Released(news, time.Now()) {
			t.Errorf("%s does not", what)
		}
	}
	// Its list comes with it, and leaves it standing; an admin who is listed lets nobody go.
	list := g.owner.Lists(identity.Entry{Subject: identity.Subject{UID: uid}, All: next},
		identity.Entry{Subject: identity.Subject{User: "ada"}, All: identity.MaxSerial, Until: time.Now().Add(time.Hour).Unix()})
	g.take(list.JWS)
	if !g.Released([]string{sign(stated(uid, next, true), g.owner.DomainKey)}, time.Now()) {
		t.Error("the list of the release is in its way")
	}
	if g.Released(append(admin, sign(stated(uid, next, true), ada)), time.Now()) {
		t.Error("a listed admin lets it go")
	}
}

// The longest list that there can be is kept for others with what proves its signer, and a line carries both (session §6),
// with the chain of who tells it.
func TestTheLongestListIsTold(t *testing.T) {
	g, ada := newGateway(t), identitytest.NewKey()
	list := identity.ListStatement{Domain: "plant", Serial: g.owner.Serial(), Iat: time.Now().Unix() - 1}
	var longest identity.Signed
	for {
		list.Entries = identity.SortEntries(append(list.Entries, identity.Entry{All: list.Serial, Until: list.Iat + 1000,
			Subject: identity.Subject{User: fmt.Sprintf("user-%d", len(list.Entries))}}))
		signed, err := identity.Sign(list, ada)
		if err != nil {
			break
		}
		longest = signed
	}
	signers := g.owner.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	if !g.take(append(signers, longest.JWS)...) {
		t.Fatal("it is not taken")
	}
	g.reopen()
	news := g.News(identity.SPKI{}, 0, 0)
	for _, jws := range append(append(signers, longest.JWS), g.Chain()...) {
		if !slices.Contains(news, jws) {
			t.Errorf("it does not tell %.80s", jws)
		}
	}
	if size(news) > 95<<10 {
		t.Errorf("%d bytes, more than a line carries", size(news))
	}
}
