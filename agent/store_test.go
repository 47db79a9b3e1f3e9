package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/durable"
	"hawser/transport"
)

func stateDir(t testing.TB) string { return filepath.Join(t.TempDir(), "state") }

// enrolledDir is a state directory with an identity, and with an owner.
func enrolledDir(t testing.TB, pki *identitytest.PKI) (string, *store) {
	t.Helper()
	dir := stateDir(t)
	s := must(openStore(dir, nil))(t)
	key := must(s.key())(t)
	chain := pki.Chain(key.Public(), testName, -time.Hour, 30*day)
	own(t, s, identity.MarshalChain(chain), pki.Roots, identitytest.NewOwner("plant"))
	return dir, s
}

func TestTheKeyIsMadeOnceAndKept(t *testing.T) {
	dir := stateDir(t)
	spki := func() identity.SPKI {
		key := must(must(openStore(dir, nil))(t).key())(t)
		return must(identity.SPKIOf(key.Public()))(t)
	}
	if first, second := spki(), spki(); first != second {
		t.Error("another key the second time")
	}
	if info := must(os.Stat(filepath.Join(dir, keyFile)))(t); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestADamagedKeyIsNotReplaced(t *testing.T) {
	dir := stateDir(t)
	s := must(openStore(dir, nil))(t)
	write(t, filepath.Join(dir, keyFile), "not a key", 0o600)
	if _, err := s.key(); err == nil {
		t.Error("a damaged key was replaced")
	}
	if b := must(os.ReadFile(filepath.Join(dir, keyFile)))(t); string(b) != "not a key" {
		t.Errorf("it is now %q", b)
	}
}

func TestWhatOthersCanReadIsRefused(t *testing.T) {
	pki := identitytest.New(time.Now())
	for _, f := range []string{keyFile, identityFile, rootFile} {
		dir, s := enrolledDir(t, pki)
		if err := os.Chmod(filepath.Join(dir, f), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := s.self(); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("%s: %v", f, err)
		}
		if _, err := ShowIdentity(dir); !errors.Is(err, durable.ErrExposed) {
			t.Errorf("%s: ShowIdentity = %v", f, err)
		}
	}
	dir, _ := enrolledDir(t, pki)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, nil); !errors.Is(err, durable.ErrExposed) {
		t.Errorf("directory: %v", err)
	}
}

func TestDamagedSlotsStartEmpty(t *testing.T) {
	for name, damage := range map[string]string{"no slot": "garbage", "empty": ""} {
		dir := stateDir(t)
		s := must(openStore(dir, nil))(t)
		if err := s.save(build, 0); err != nil {
			t.Fatal(err)
		}
		for _, slot := range []string{"state.0", "state.1"} {
			write(t, filepath.Join(dir, slot), damage, 0o600)
		}
		s, err := openStore(dir, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !s.saved.Anchor.IsZero() {
			t.Errorf("%s: anchor %v", name, s.saved.Anchor)
		}
		s.good(transport.Candidate{Host: "a", Addr: netip.MustParseAddrPort("192.0.2.1:443")}, build)
		if err := s.save(build, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if again := must(openStore(dir, nil))(t); !again.saved.Anchor.Equal(build) || len(again.lastGood("a", build)) != 1 {
			t.Errorf("%s: read %+v", name, again.saved)
		}
	}
	dir := stateDir(t) // a whole slot of another program
	must(openStore(dir, nil))(t)
	slots := must(durable.OpenSlots(dir, stateSlots))(t)
	if err := slots.Save([]byte(`{"anchor": 7}`)); err != nil {
		t.Fatal(err)
	}
	if s := must(openStore(dir, nil))(t); !s.saved.Anchor.IsZero() || s.saved.Good == nil {
		t.Errorf("read %+v", s.saved)
	}
}

// A power cut leaves any prefix of the writes. Without identity.pem the gateway
// is not enrolled, and the same code gives it the same identity.
func TestAPowerCutDuringEnrollmentLeavesNoHalfAnIdentity(t *testing.T) {
	whole, _ := enrolledDir(t, identitytest.New(time.Now()))
	order := []string{keyFile, "owner.0", "owner.1", rootFile, identityFile}
	for n := range len(order) + 1 {
		dir := stateDir(t)
		s := must(openStore(dir, nil))(t)
		for _, f := range order[:n] {
			write(t, filepath.Join(dir, f), string(must(os.ReadFile(filepath.Join(whole, f)))(t)), 0o600)
		}
		_, err := s.self()
		if n < len(order) && !errors.Is(err, ErrNotEnrolled) || n == len(order) && err != nil {
			t.Errorf("after %q: %v", order[:n], err)
		}
		if info, err := ShowIdentity(dir); err != nil || info.Enrolled && info.Owner == nil {
			t.Errorf("after %q: an identity without an owner: %+v, %v", order[:n], info, err)
		}
	}
	dir := stateDir(t) // the writes do come in that order: the last one cannot be done
	s := must(openStore(dir, nil))(t)
	if err := os.Mkdir(filepath.Join(dir, identityFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.saveIdentity(nil, identitytest.New(time.Now()).Roots); err == nil {
		t.Error("an identity was stored over a directory")
	}
	if !slices.Contains(names(t, dir), rootFile) {
		t.Error("root.pem does not come first")
	}
}

func TestResetRemovesTheIdentityAndAllThatBelongsToIt(t *testing.T) {
	dir, s := enrolledDir(t, identitytest.New(time.Now()))
	if err := s.save(build, 0); err != nil {
		t.Fatal(err)
	}
	before, _ := readKey(dir)
	write(t, filepath.Join(dir, "agent.yaml"), "log: info\n", 0o644)
	for range 2 {
		if err := Reset(dir); err != nil {
			t.Fatal(err)
		}
		if left := names(t, dir); !slices.Equal(left, []string{"agent.yaml"}) {
			t.Errorf("left %q", left)
		}
	}
	after := must(must(openStore(dir, nil))(t).key())(t)
	if must(identity.SPKIOf(after.Public()))(t) == must(identity.SPKIOf(before.Public()))(t) {
		t.Error("the key survived")
	}
	if err := Reset(filepath.Join(dir, "missing")); err != nil {
		t.Errorf("missing directory: %v", err)
	}
}

// What cannot be removed stops Reset there: the commit goes first.
func TestResetTakesTheCommitFirst(t *testing.T) {
	dir, _ := enrolledDir(t, identitytest.New(time.Now()))
	id := filepath.Join(dir, identityFile)
	if err := errors.Join(os.Remove(id), os.Mkdir(id, 0o700), os.WriteFile(filepath.Join(id, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Reset(dir); err == nil {
		t.Error("Reset says that it is done")
	}
	if left := names(t, dir); !slices.Contains(left, keyFile) || !slices.Contains(left, rootFile) {
		t.Errorf("left %q", left)
	}
}

func TestShowIdentity(t *testing.T) {
	pki := identitytest.New(time.Now())
	dir, s := enrolledDir(t, pki)
	self := must(s.self())(t)
	info := must(ShowIdentity(dir))(t)
	want := IdentityInfo{testUID.String(), "plant", self.SPKI.String(), self.Cert.Leaf.NotBefore, self.Cert.Leaf.NotAfter, true, nil, info.Owner, "", ""}
	if info != want || info.Owner == nil || info.Owner.Name != "gateway 7" || info.Owner.Fault != "" || info.Owner.Device.IsZero() || !info.Owner.Until.IsZero() {
		t.Errorf("got %+v, want %+v", info, want)
	}
	parent := t.TempDir()
	info, err := ShowIdentity(filepath.Join(parent, "missing"))
	if info != (IdentityInfo{}) || err != nil || len(names(t, parent)) != 0 {
		t.Errorf("of nothing: %+v, %v; made %q", info, err, names(t, parent))
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := ShowIdentity(dir); !errors.Is(err, fs.ErrNotExist) || slices.Contains(names(t, dir), keyFile) {
		t.Errorf("without its key: %v, files %q", err, names(t, dir))
	}
}

func TestAnIdentityOfAnotherKeyRootOrKindIsNotOurs(t *testing.T) {
	pki, other := identitytest.New(time.Now()), identitytest.New(time.Now())
	key := identitytest.NewKey()
	for name, tt := range map[string]struct {
		pki  *identitytest.PKI
		name identity.Name
		mine bool
		good bool
	}{
		"ours":       {pki, testName, true, true},
		"other key":  {pki, testName, false, false},
		"other root": {other, testName, true, false},
		"a relay":    {pki, identity.RelayName("r1"), true, false},
		"a user":     {pki, identity.UserName("plant", "ann"), true, false},
		"access":     {pki, identity.AccessName("a1"), true, false},
	} {
		pub := identitytest.NewKey().Public()
		if tt.mine {
			pub = key.Public()
		}
		_, err := newSelf(identity.MarshalChain(tt.pki.Chain(pub, tt.name, -time.Hour, day)), key, pki.Roots)
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func candidate(host string, n int) transport.Candidate {
	return transport.Candidate{Host: host, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 443)}
}

func TestLastGoodIsNewestFirstAndBounded(t *testing.T) {
	dir := stateDir(t)
	s := must(openStore(dir, []string{"access.example:443"}))(t)
	for _, n := range []int{1, 2, 1, 3, 3} {
		s.good(candidate("access.example", n), build)
	}
	want := []transport.Candidate{candidate("access.example", 3), candidate("access.example", 1), candidate("access.example", 2)}
	if got := s.lastGood("access.example", build); !slices.Equal(got, want) {
		t.Errorf("last good %v, want %v", got, want)
	}
	s.lastGood("access.example", build)[0] = transport.Candidate{}
	if got := s.lastGood("access.example", build); !slices.Equal(got, want) {
		t.Error("the caller's slice is the store's")
	}
	for n := range 10000 {
		s.good(candidate(fmt.Sprintf("relay%d.example", n), n), build)
		s.good(candidate("access.example", n), build)
	}
	if n := len(s.saved.Good); n > maxGoodHosts {
		t.Errorf("%d hosts", n)
	}
	if n := len(s.lastGood("access.example", build)); n != maxGood {
		t.Errorf("%d addresses of the Access Server, want %d: relays must not drop it", n, maxGood)
	}
	if err := s.save(build, 0); err != nil {
		t.Fatal(err)
	}
	if again := must(openStore(dir, nil))(t); !slices.Equal(again.lastGood("access.example", build), s.lastGood("access.example", build)) {
		t.Error("it did not survive a restart")
	}
}

// A link that flaps for a day must not write the flash with each dial.
func TestTheSlotsAreWrittenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := stateDir(t)
		writes := func(what string, want int, dial func(s *store, n int)) {
			s := must(openStore(dir, nil))(t)
			last, n := "", 0
			for minute := range 24 * 60 {
				dial(s, minute)
				if err := s.save(time.Now(), 0); err != nil {
					t.Fatal(err)
				}
				if b := string(must(s.slots.Load())(t)); b != last {
					last = b
					n++
				}
				time.Sleep(time.Minute)
			}
			if n != want {
				t.Errorf("%s: %d writes in a day, want %d", what, n, want)
			}
		}
		writes("the same way each time", 1, func(s *store, _ int) { s.good(candidate("a", 1), build) })
		writes("two ways in turn", 24, func(s *store, n int) { s.good(candidate("a", n%2), build) })
	})
}

// What worked is kept with its way and its form. Slots of older versions have addresses alone.
func TestStoredWaysKeepTheirForm(t *testing.T) {
	dir := stateDir(t)
	must(openStore(dir, nil))(t)
	slots := must(durable.OpenSlots(dir, stateSlots))(t)
	if err := slots.Save([]byte(`{"good":{"a":["192.0.2.1:443","[2001:db8::1]:80"]},"reset":3}`)); err != nil {
		t.Fatal(err)
	}
	s := must(openStore(dir, nil))(t)
	old := []transport.Candidate{candidate("a", 1), {Host: "a", Addr: netip.MustParseAddrPort("[2001:db8::1]:80")}}
	if got := s.lastGood("a", build); !slices.Equal(got, old) || s.saved.Reset != 3 || s.onlySmall(build) {
		t.Errorf("old slot: %v, reset %d", got, s.saved.Reset)
	}
	through := transport.Candidate{Host: "a", Addr: netip.AddrPortFrom(netip.Addr{}, 443), Proxy: "http://proxy.example:3128"}
	small := candidate("b", 2)
	small.Small = true
	s.good(through, build)
	s.good(small, build)
	s.good(small, build.Add(23*time.Hour)) // which does not make it last longer
	if err := s.save(build, 0); err != nil {
		t.Fatal(err)
	}
	again := must(openStore(dir, nil))(t)
	for now, want := range map[time.Time]bool{build: true, build.Add(24*time.Hour - 1): true, build.Add(24 * time.Hour): false} {
		if got := again.lastGood("b", now); len(got) != 1 || got[0].Small != want || again.onlySmall(now) != want {
			t.Errorf("at %v: %+v, only small %v", now, got, again.onlySmall(now))
		}
	}
	if got := again.lastGood("a", build); len(got) != 3 || got[0] != through {
		t.Errorf("got %+v, want %+v first", got, through)
	}
	again.good(candidate("b", 2), build) // the full form passes again
	if again.onlySmall(build) || len(again.lastGood("b", build)) != 1 {
		t.Errorf("still small: %+v", again.saved.Good)
	}
}

// Searches are small for a day from when that was found. What is dialled meanwhile, by necessity in the small form, must
// not begin another day, or a gateway that uses two servers would offer X25519 alone for ever.
func TestSmallFormIsGivenUpAfterADayWhateverIsDialled(t *testing.T) {
	s := must(openStore(stateDir(t), nil))(t)
	for at := time.Duration(0); at < 24*time.Hour; at += time.Hour {
		for _, c := range []transport.Candidate{candidate("a", int(at.Hours())), candidate("b", 0), candidate("b", 1)} {
			c.Small = true
			s.good(c, build.Add(at))
		}
	}
	if !s.onlySmall(build.Add(24*time.Hour-1)) || s.onlySmall(build.Add(24*time.Hour)) {
		t.Errorf("%+v", s.saved.Good)
	}
}

// A small form that was found while the clock was years ahead counts for a day from the next success.
func TestSmallFormOfTheFutureEnds(t *testing.T) {
	s := must(openStore(stateDir(t), nil))(t)
	a, b := candidate("a", 1), candidate("b", 1)
	a.Small, b.Small = true, true
	s.good(a, build.AddDate(5, 0, 0))
	s.good(b, build)
	if !s.onlySmall(build) || s.onlySmall(build.Add(24*time.Hour)) {
		t.Errorf("%+v", s.saved.Good)
	}
}
