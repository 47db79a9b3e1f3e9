package identity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// plant signs statements of one domain. Keys are named; "domain" is the domain key. Serials count in milliseconds from
// serialNow.
type plant struct{ tb testing.TB }

func (p plant) sign(s Statement, by string) string {
	p.tb.Helper()
	return must(Sign(s, keyOf(by)))(p.tb).JWS
}

func (p plant) user(name string, role Role, serial int64, by string) string {
	u := UserStatement{"plant", name, role, nil, secondNow + 300*dayS, uint64(serialNow + serial), 0}
	if role != RoleAdmin {
		u.Scope = &Scope{[]string{"*"}, []string{"*"}}
	}
	return p.sign(u, by)
}

func (p plant) device(serial int64, by string) string {
	return p.sign(DeviceStatement{"plant", plantUID, "press 1", "north", uint64(serialNow + serial), 0, false}, by)
}

// key states a key of somebody: a user's name, or "" for the device. -1 is the serial 0, of an invite.
func (p plant) key(of, key string, serial int64, by string) string {
	s := KeyStatement{"plant", subjectOf(of), pubOf(p.tb, key), "", uint64(serialNow + serial)}
	if serial < 0 {
		s.Serial = 0
	}
	return p.sign(s, by)
}

func (p plant) invite(of, key string, serial int64, by string) string {
	exp := int64(secondNow + 3*dayS)
	if of == "" {
		exp = secondNow + 30*dayS
	}
	return p.sign(InviteStatement{"plant", subjectOf(of), 0, pubOf(p.tb, key), exp, uint64(serialNow + serial)}, by)
}

var plantUID = UID{1, 2, 3}

func subjectOf(name string) Subject {
	if name == "" {
		return Subject{UID: plantUID}
	}
	return Subject{User: name}
}

func (p plant) peer(of, key string) Peer {
	return Peer{Name: subjectOf(of).name("plant"), SPKI: pubOf(p.tb, key).SPKI()}
}

func (p plant) verifier(entries ...Entry) Verifier {
	v := Verifier{Pinned: Pinned{"plant", pubOf(p.tb, "domain")}}
	if entries != nil {
		v.Lists = must(v.Lists.Add(must(Sign(ListStatement{"plant", serialNow + 50, secondNow, SortEntries(entries)}, keyOf("domain")))(p.tb), nil, v.Pinned, Holder{}, testNow))(p.tb)
	}
	return v
}

// sound are chains that must pass, with the peer that each is for.
func (p plant) sound() (chains map[string][]string, peers map[string]Peer) {
	ann := []string{p.user("ann", RoleAdmin, 1, "domain"), p.key("ann", "ann-pc", 1, "domain")}
	abe := []string{p.user("abe", RoleAdmin, 2, "domain"), p.key("abe", "abe-pc", 2, "domain")}
	bob := p.user("bob", RoleOperator, 3, "ann-pc")
	chains = map[string][]string{
		"admin":               ann,
		"admin invited":       {ann[0], p.key("ann", "ann-2", -1, "invite"), p.invite("ann", "invite", 4, "domain")},
		"admin's second PC":   {ann[0], p.key("ann", "ann-2", -1, "invite"), p.invite("ann", "invite", 4, "ann-pc"), ann[1]},
		"by the domain key":   {p.user("bob", RoleViewer, 3, "domain"), p.key("bob", "bob-pc", 3, "domain")},
		"by an admin":         slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "ann-pc")}, ann),
		"by one and key key":  slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "domain")}, ann),
		"by two admins":       slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "abe-pc")}, ann, abe),
		"invited":             slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "invite"), p.invite("bob", "invite", 3, "ann-pc")}, ann),
		"invited by another":  slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "invite"), p.invite("bob", "invite", 3, "abe-pc")}, ann, abe),
		"second PC":           slices.Concat([]string{bob, p.key("bob", "bob-2", -1, "invite"), p.invite("bob", "invite", 4, "bob-pc"), p.key("bob", "bob-pc", 3, "ann-pc")}, ann),
		"second PC, eight":    slices.Concat([]string{bob, p.key("bob", "bob-2", -1, "invite"), p.invite("bob", "invite", 4, "bob-pc"), p.key("bob", "bob-pc", 3, "abe-pc")}, ann, abe),
		"one admin, two keys": {bob, p.key("bob", "bob-pc", 3, "ann-2"), ann[0], ann[1], p.key("ann", "ann-2", 5, "domain")},
		"device":              slices.Concat([]string{p.device(3, "ann-pc"), p.key("", "press", 4, "ann-pc")}, ann),
		"device invited":      slices.Concat([]string{p.device(3, "ann-pc"), p.key("", "press", -1, "invite"), p.invite("", "invite", 3, "ann-pc")}, ann),
	}
	peers = map[string]Peer{}
	for what := range chains {
		switch {
		case what == "admin":
			peers[what] = p.peer("ann", "ann-pc")
		case strings.HasPrefix(what, "admin"):
			peers[what] = p.peer("ann", "ann-2")
		case strings.HasPrefix(what, "device"):
			peers[what] = p.peer("", "press")
		case strings.HasPrefix(what, "second"):
			peers[what] = p.peer("bob", "bob-2")
		default:
			peers[what] = p.peer("bob", "bob-pc")
		}
	}
	return chains, peers
}

func TestSoundChainsPass(t *testing.T) {
	t.Attr("id", "T-vectors")
	p := plant{t}
	chains, peers := p.sound()
	for what, chain := range chains {
		got, err := p.verifier().Judge(chain, peers[what], testNow)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got.Confirmed == slices.ContainsFunc(chain, func(s string) bool { return strings.HasPrefix(s, jwsHeader(typInvite)) }) {
			t.Errorf("%s: confirmed %v", what, got.Confirmed)
		}
		if device := peers[what].Name.Kind == KindDevice; (got.Device.UID == plantUID) != device || (got.User.User == "") != device {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

func TestAChainHasOneOrder(t *testing.T) {
	t.Attr("id", "T-vectors")
	p := plant{t}
	chains, peers := p.sound()
	others := map[string]string{}
	for what, chain := range chains {
		for _, s := range chain {
			others[s] = what
		}
	}
	v := p.verifier()
	n := 0
	for what, chain := range chains {
		refuse := func(how string, changed []string) {
			if n++; !slices.Equal(changed, chain) {
				if _, err := v.Judge(changed, peers[what], testNow); FaultOf(err) != FaultMalformed && FaultOf(err) != FaultNotStated {
					t.Errorf("%s, %s: %v", what, how, err)
				}
			}
		}
		if len(chain) < 7 {
			for order := range permutations(len(chain)) {
				var changed []string
				for _, i := range order {
					changed = append(changed, chain[i])
				}
				refuse(fmt.Sprint(order), changed)
			}
		}
		for i := range chain {
			refuse(fmt.Sprint("without ", i), slices.Delete(slices.Clone(chain), i, i+1))
			refuse(fmt.Sprint("doubled ", i), slices.Insert(slices.Clone(chain), i, chain[i]))
		}
		for s, other := range others {
			if !slices.Contains(chain, s) {
				refuse("with one of "+other, slices.Insert(slices.Clone(chain), n%len(chain), s))
				refuse("ending with one of "+other, append(slices.Clone(chain), s))
			}
		}
	}
	if n < 2000 {
		t.Errorf("only %d chains", n)
	}
}

func permutations(n int) func(func([]int) bool) {
	return func(yield func([]int) bool) {
		var next func(have []int) bool
		next = func(have []int) bool {
			if len(have) == n {
				return yield(have)
			}
			for i := range n {
				if !slices.Contains(have, i) && !next(append(slices.Clone(have), i)) {
					return false
				}
			}
			return true
		}
		next(nil)
	}
}

func TestWhoMayNotState(t *testing.T) {
	t.Attr("id", "T-vectors")
	p := plant{t}
	ann := []string{p.user("ann", RoleAdmin, 1, "domain"), p.key("ann", "ann-pc", 1, "domain")}
	bob := p.user("bob", RoleOperator, 3, "ann-pc")
	bobs := p.peer("bob", "bob-pc")
	released := p.sign(DeviceStatement{"plant", plantUID, "press 1", "", serialNow, 0, true}, "domain")
	mill := p.sign(UserStatement{"mill", "bob", RoleViewer, &Scope{[]string{}, []string{}}, secondNow, serialNow, 0}, "domain")
	second := []string{bob, p.key("bob", "bob-2", -1, "invite"), p.invite("bob", "invite", 4, "bob-pc")}
	for what, c := range map[string]struct {
		chain []string
		peer  Peer
		want  Fault
	}{
		"stated by himself":                  {[]string{p.user("bob", RoleOperator, 3, "bob-pc"), p.key("bob", "bob-pc", 3, "domain")}, bobs, FaultNotStated},
		"an admin by himself":                {[]string{p.user("ann", RoleAdmin, 9, "ann-pc"), p.key("ann", "ann-pc", 1, "domain")}, p.peer("ann", "ann-pc"), FaultNotStated},
		"an admin by an admin":               {slices.Concat([]string{p.user("abe", RoleAdmin, 9, "ann-pc"), p.key("abe", "abe-pc", 9, "domain")}, ann), p.peer("abe", "abe-pc"), FaultNotStated},
		"an admin's key by an admin":         {slices.Concat([]string{p.user("abe", RoleAdmin, 9, "domain"), p.key("abe", "abe-pc", 9, "ann-pc")}, ann), p.peer("abe", "abe-pc"), FaultNotStated},
		"an admin's invite by an admin":      {slices.Concat([]string{p.user("abe", RoleAdmin, 9, "domain"), p.key("abe", "abe-pc", -1, "invite"), p.invite("abe", "invite", 9, "ann-pc")}, ann), p.peer("abe", "abe-pc"), FaultNotStated},
		"an admin's next key by himself":     {slices.Concat([]string{ann[0], p.key("ann", "ann-2", 9, "ann-pc")}, ann[1:]), p.peer("ann", "ann-2"), FaultNotStated},
		"by an operator":                     {[]string{p.user("eve", RoleViewer, 3, "bob-pc"), p.key("eve", "eve-pc", 3, "domain"), p.user("bob", RoleOperator, 3, "domain"), p.key("bob", "bob-pc", 3, "domain")}, p.peer("eve", "eve-pc"), FaultNotStated},
		"by an admin of an admin":            {slices.Concat([]string{p.user("bob", RoleOperator, 3, "abe-pc"), p.key("bob", "bob-pc", 3, "domain"), p.user("abe", RoleAdmin, 1, "ann-pc"), p.key("abe", "abe-pc", 1, "ann-pc")}, ann), bobs, FaultNotStated},
		"by an admin's unconfirmed key":      {[]string{p.user("bob", RoleOperator, 3, "ann-2"), p.key("bob", "bob-pc", 3, "domain"), ann[0], p.key("ann", "ann-2", -1, "invite"), p.invite("ann", "invite", 1, "domain")}, bobs, FaultNotStated},
		"invite of another user":             {slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "invite"), p.invite("eve", "invite", 3, "ann-pc")}, ann), bobs, FaultNotStated},
		"invite of a device":                 {slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "invite"), p.invite("", "invite", 3, "ann-pc")}, ann), bobs, FaultNotStated},
		"invite by a stranger":               {slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "invite"), p.invite("bob", "invite", 3, "thief")}, ann), bobs, FaultNotStated},
		"invite by an unconfirmed key":       {slices.Concat(second, []string{p.key("bob", "bob-pc", -1, "invite-1"), p.invite("bob", "invite-1", 1, "ann-pc")}, ann), p.peer("bob", "bob-2"), FaultNotStated},
		"invite by a key without its own":    {slices.Concat(second, ann), p.peer("bob", "bob-2"), FaultNotStated},
		"a device's invite by its key":       {[]string{p.device(1, "domain"), p.key("", "press-2", -1, "invite"), p.invite("", "invite", 1, "press"), p.key("", "press", 1, "domain")}, p.peer("", "press-2"), FaultNotStated},
		"invited, with a serial":             {slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "invite"), p.invite("bob", "invite", 3, "ann-pc")}, ann), bobs, FaultNotStated},
		"not invited, without a serial":      {slices.Concat([]string{bob, p.key("bob", "bob-pc", -1, "ann-pc")}, ann), bobs, FaultNotStated},
		"admin's key without a serial":       {slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "ann-pc"), ann[0], p.key("ann", "ann-pc", -1, "domain")}), bobs, FaultNotStated},
		"admin's other key by himself":       {[]string{bob, p.key("bob", "bob-pc", 3, "ann-2"), ann[0], ann[1], p.key("ann", "ann-2", 5, "ann-pc")}, bobs, FaultNotStated},
		"admin's other key, without serial":  {[]string{bob, p.key("bob", "bob-pc", 3, "ann-2"), ann[0], ann[1], p.key("ann", "ann-2", -1, "domain")}, bobs, FaultNotStated},
		"admin of another name":              {[]string{bob, p.key("bob", "bob-pc", 3, "ann-pc"), p.user("abe", RoleAdmin, 1, "domain"), ann[1]}, bobs, FaultNotStated},
		"another key than the connection's":  {slices.Concat([]string{bob, p.key("bob", "bob-2", 3, "ann-pc")}, ann), bobs, FaultNotStated},
		"another user than the certificate":  {slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "ann-pc")}, ann), p.peer("eve", "bob-pc"), FaultNotStated},
		"a user where a device should be":    {slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "ann-pc")}, ann), p.peer("", "bob-pc"), FaultNotStated},
		"key of another user":                {slices.Concat([]string{bob, p.key("eve", "bob-pc", 3, "ann-pc")}, ann), bobs, FaultNotStated},
		"another domain":                     {[]string{mill, p.key("bob", "bob-pc", 3, "domain")}, bobs, FaultNotStated},
		"released device":                    {[]string{released, p.key("", "press", 3, "domain")}, p.peer("", "press"), FaultNotStated},
		"the domain key is the user's":       {[]string{p.user("bob", RoleOperator, 3, "domain"), p.key("bob", "domain", 3, "domain")}, p.peer("bob", "domain"), FaultMalformed},
		"the admin's key is the user's":      {slices.Concat([]string{bob, p.key("bob", "ann-pc", 3, "domain")}, ann), p.peer("bob", "ann-pc"), FaultMalformed},
		"the invite's key is the user's":     {[]string{p.user("bob", RoleOperator, 3, "domain"), p.key("bob", "invite", -1, "invite"), p.invite("bob", "invite", 3, "domain")}, p.peer("bob", "invite"), FaultMalformed},
		"nothing":                            {nil, bobs, FaultMalformed},
		"one statement":                      {[]string{bob}, bobs, FaultMalformed},
		"nine":                               {slices.Repeat([]string{bob}, 9), bobs, FaultMalformed},
		"more than 16 KiB":                   {slices.Repeat([]string{strings.Repeat("x", 4096)}, 5), bobs, FaultMalformed},
		"a list in it":                       {[]string{p.sign(someStatements(t)["list"], "domain"), p.key("bob", "bob-pc", 3, "domain")}, bobs, FaultMalformed},
		"one that does not parse at the end": {slices.Concat([]string{bob, p.key("bob", "bob-pc", 3, "ann-pc")}, ann, []string{"x"}), bobs, FaultMalformed},
	} {
		v := p.verifier()
		got, err := v.Judge(c.chain, c.peer, testNow)
		if FaultOf(err) != c.want || got.User.User != "" || got.Confirmed {
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}
	other := p.verifier()
	other.Key = pubOf(t, "next")
	_, err := other.Judge(ann, p.peer("ann", "ann-pc"), testNow)
	wantFault(t, err, FaultNotStated)
}

func TestListsAndTimeOfAChain(t *testing.T) {
	p := plant{t}
	chains, peers := p.sound()
	until := int64(secondNow + 396*dayS)
	spki := func(key string) Entry { return Entry{SPKI: pubOf(t, key).SPKI(), Until: until} }
	all := func(user string, below int64) Entry {
		return Entry{Subject: subjectOf(user), All: uint64(serialNow + below), Until: until}
	}
	statements := func(user string, below int64) Entry {
		return Entry{Subject: subjectOf(user), Statements: uint64(serialNow + below), Until: until}
	}
	deviceAll, deviceStatements := all("", 4), statements("", 4)
	deviceAll.Until, deviceStatements.Until = 0, 0
	over := spki("bob-pc")
	over.Until = secondNow
	day := func(n int) time.Time { return testNow.Add(time.Duration(n) * 24 * time.Hour) }
	for _, c := range []struct {
		chain string
		entry Entry
		now   time.Time
		want  Fault
	}{
		{"by an admin", spki("bob-pc"), testNow, FaultRevoked}, {"by an admin", spki("ann-pc"), testNow, FaultRevoked}, {"by an admin", spki("abe-pc"), testNow, ""},
		{"by an admin", over, testNow, ""}, {"by an admin", over, testNow.Add(-time.Second), FaultRevoked},
		{"by an admin", all("bob", 4), testNow, FaultRevoked}, {"by an admin", all("bob", 3), testNow, ""}, {"by an admin", all("ann", 2), testNow, FaultRevoked},
		{"by an admin", statements("bob", 4), testNow, FaultRevoked}, {"by an admin", statements("bob", 3), testNow, ""},
		{"by an admin", statements("ann", 2), testNow, FaultRevoked}, {"by an admin", all("eve", 9), testNow, ""}, {"by an admin", deviceAll, testNow, ""},
		{"invited", spki("invite"), testNow, FaultRevoked}, {"invited", all("bob", 4), testNow, FaultRevoked}, {"invited", all("bob", 3), testNow, ""},
		{"second PC", spki("bob-pc"), testNow, FaultRevoked}, {"second PC", all("bob", 4), testNow, FaultRevoked},
		{"device", deviceAll, testNow, FaultRevoked}, {"device", deviceStatements, testNow, FaultRevoked}, {"device invited", deviceAll, testNow, FaultRevoked},
		{"device", Entry{SPKI: pubOf(t, "press").SPKI()}, testNow, FaultRevoked}, {"device", Entry{SPKI: pubOf(t, "ann-pc").SPKI()}, testNow, FaultRevoked},

		{"by an admin", spki("x"), day(300), ""}, {"by an admin", spki("x"), day(300).Add(time.Second), FaultExpired}, {"device", spki("x"), day(300).Add(time.Second), FaultExpired},
		{"invited", spki("x"), day(17), ""}, {"invited", spki("x"), day(17).Add(time.Second), FaultNotStated}, {"second PC", spki("x"), day(17).Add(time.Second), FaultNotStated},
		{"device invited", spki("x"), day(120), ""}, {"device invited", spki("x"), day(120).Add(time.Second), FaultNotStated},
		{"by an admin", spki("x"), time.Unix(0, 0), ""},
	} {
		_, err := p.verifier(c.entry).Judge(chains[c.chain], peers[c.chain], c.now)
		if FaultOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s, %s, at %v: %v, want %q", c.chain, c.entry.encode(), c.now, err, c.want)
		}
	}
	// A confirmed key of a user ends by itself, whatever his statement says; one of a device does not.
	for key, want := range map[string]Fault{
		p.key("bob", "bob-pc", -1-366*dayS*1000+serialNow-serialNow, "domain"):                                           FaultNotStated, // -1 and less: the serial 0
		p.sign(KeyStatement{"plant", subjectOf("bob"), pubOf(t, "bob-pc"), "", serialNow - 366*dayS*1000}, "domain"):     "",
		p.sign(KeyStatement{"plant", subjectOf("bob"), pubOf(t, "bob-pc"), "", serialNow - 366*dayS*1000 - 1}, "domain"): FaultExpired,
	} {
		_, err := p.verifier().Judge([]string{p.user("bob", RoleOperator, 3, "domain"), key}, p.peer("bob", "bob-pc"), testNow)
		if FaultOf(err) != want {
			t.Errorf("an old key: %v, want %q", err, want)
		}
	}
	old := p.sign(KeyStatement{"plant", subjectOf(""), pubOf(t, "press"), "", 1}, "domain")
	got, err := p.verifier().Judge([]string{p.device(1, "domain"), old}, p.peer("", "press"), day(20000))
	if err != nil || !got.Until.IsZero() {
		t.Errorf("a device on a shelf: %v, until %v", err, got.Until)
	}
}

func TestWhenAVerdictEnds(t *testing.T) {
	p := plant{t}
	chains, peers := p.sound()
	for what, want := range map[string]time.Time{"by an admin": testNow.Add(300 * day), "invited": testNow.Add(17 * day), "device invited": testNow.Add(120 * day), "device": testNow.Add(300 * day)} {
		if got := must(p.verifier().Judge(chains[what], peers[what], testNow))(t); !got.Until.Equal(want) {
			t.Errorf("%s: until %v, want %v", what, got.Until, want)
		}
	}
}

func TestStaleChains(t *testing.T) {
	p := plant{t}
	u := UserStatement{"plant", "bob", RoleViewer, &Scope{[]string{}, []string{}}, secondNow, serialNow, serialNow + 50}
	chain := []string{p.sign(u, "domain"), p.key("bob", "bob-pc", 3, "domain")}
	_, err := p.verifier().Judge(chain, p.peer("bob", "bob-pc"), testNow)
	wantFault(t, err, FaultStale)
	_, err = p.verifier(Entry{SPKI: SPKI{1}}).Judge(chain, p.peer("bob", "bob-pc"), testNow) // a list of that serial
	wantFault(t, err, "")

	chains, peers := p.sound()
	v := p.verifier()
	v.Device = serialNow + 3
	_, err = v.Judge(chains["device"], peers["device"], testNow)
	wantFault(t, err, "")
	v.Device++
	_, err = v.Judge(chains["device"], peers["device"], testNow)
	wantFault(t, err, FaultStale)
}

func TestAFullListBelievesTheDomainKeyAlone(t *testing.T) {
	p := plant{t}
	chains, peers := p.sound()
	v := p.verifier()
	v.Lists = &Lists{lost: 1}
	for what, chain := range chains {
		want := FaultListFull
		if slices.Contains([]string{"admin", "admin invited", "by the domain key"}, what) {
			want = ""
		}
		if _, err := v.Judge(chain, peers[what], testNow); FaultOf(err) != want {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
}

func TestTwoKeysOfOneInvite(t *testing.T) {
	p := plant{t}
	chain := func(key string) []string {
		return []string{p.user("bob", RoleOperator, 3, "domain"), p.key("bob", key, -1, "invite"), p.invite("bob", "invite", 3, "domain")}
	}
	confirmed := func(key string) []string {
		return []string{p.user("bob", RoleOperator, 3, "domain"), p.key("bob", key, 4, "domain")}
	}
	type step struct {
		chain []string
		key   string
		want  Fault
	}
	for what, steps := range map[string][]step{
		"the first one stays":     {{chain("bob-pc"), "bob-pc", ""}, {chain("thief"), "thief", FaultInviteUsedTwice}, {chain("bob-pc"), "bob-pc", ""}, {chain("thief-2"), "thief-2", FaultInviteUsedTwice}},
		"confirmed beats first":   {{chain("thief"), "thief", ""}, {chain("bob-pc"), "bob-pc", FaultInviteUsedTwice}, {confirmed("bob-pc"), "bob-pc", ""}, {chain("thief"), "thief", FaultInviteUsedTwice}, {chain("bob-pc"), "bob-pc", ""}},
		"a confirmed one settles": {{chain("bob-pc"), "bob-pc", ""}, {confirmed("bob-pc"), "bob-pc", ""}, {chain("thief"), "thief", FaultInviteUsedTwice}, {confirmed("thief"), "thief", ""}, {chain("thief"), "thief", FaultInviteUsedTwice}},
		"the first rival counts":  {{chain("a"), "a", ""}, {chain("b"), "b", FaultInviteUsedTwice}, {chain("c"), "c", FaultInviteUsedTwice}, {confirmed("c"), "c", ""}, {chain("a"), "a", ""}, {confirmed("b"), "b", ""}, {chain("a"), "a", FaultInviteUsedTwice}},
	} {
		v := p.verifier()
		for i, s := range steps {
			got, err := v.Judge(s.chain, p.peer("bob", s.key), testNow)
			if FaultOf(err) != s.want {
				t.Errorf("%s, step %d: %v, want %q", what, i, err, s.want)
			}
			v.Pins = must(ParsePins(got.Pins.Bytes()))(t) // a power cut after each
		}
	}
}

func TestASettledPinStaysWhereItIs(t *testing.T) {
	settled, open, bob, thief := SPKI{1}, SPKI{2}, SPKI{3}, SPKI{4}
	pins := must((*Pins)(nil).see(settled, bob, "", testNow, testNow))(t)
	pins, _ = pins.see(settled, thief, "", testNow, testNow)
	pins = must(pins.confirm(bob).see(open, thief, "", testNow, testNow))(t)
	pins = pins.confirm(thief) // settles the other invite only
	_, err := pins.see(settled, thief, "", testNow, testNow)
	wantFault(t, err, FaultInviteUsedTwice)
	_, err = pins.see(open, thief, "", testNow, testNow)
	wantFault(t, err, "")
}

func TestPinsAreBounded(t *testing.T) {
	var pins *Pins
	at := func(n int) time.Time { return testNow.Add(time.Duration(n) * time.Second) }
	for i := range maxPins {
		pins = must(pins.see(SPKI{byte(i >> 8), byte(i), 1}, SPKI{1}, "", at(i), testNow))(t)
	}
	_, err := pins.see(SPKI{9}, SPKI{1}, "", at(0), at(0))
	wantFault(t, err, FaultNotStated)
	if _, err := pins.see(SPKI{0, 5, 1}, SPKI{1}, "", at(0), at(9999)); err != nil || len(pins.list) != maxPins {
		t.Errorf("a pin was forgotten without need: %v", err)
	}
	more := must(pins.see(SPKI{9}, SPKI{1}, "", at(999), at(1)))(t)
	if len(more.list) != maxPins {
		t.Errorf("%d pins", len(more.list))
	}
	for _, bad := range []string{"", "null", "{}", string(more.Bytes()) + " ", strings.Replace(string(more.Bytes()), "false", "0", 1), "[" + strings.Repeat("{},", 600) + "{}]"} {
		_, err := ParsePins([]byte(bad))
		wantFault(t, err, FaultMalformed)
	}
	if got := (*Pins)(nil).Bytes(); string(got) != "[]" || must(ParsePins(got))(t).list == nil {
		t.Errorf("no pins: %s", got)
	}
}

func TestTheRightDevice(t *testing.T) {
	d := DeviceStatement{UID: plantUID, Name: "press 1", Folder: "north/hall"}
	for typed, want := range map[string]Fault{plantUID.String(): "", "press 1": "", "north/hall/press 1": "", "press": FaultWrongDevice, "hall/press 1": FaultWrongDevice, "": FaultWrongDevice, "north/hall": FaultWrongDevice} {
		wantFault(t, d.Answers(typed), want)
	}
	if (DeviceStatement{Name: "x"}).Answers("/x") == nil {
		t.Error("a folder without a name")
	}
}

func TestWhatADeviceIsToldOfItself(t *testing.T) {
	p := plant{t}
	ann := []string{p.user("ann", RoleAdmin, 1, "domain"), p.key("ann", "ann-pc", 1, "domain")}
	said := DeviceStatement{"plant", plantUID, "press 1", "", serialNow + 5, 0, true}
	released := p.sign(said, "ann-pc")
	later := said
	later.Seen = serialNow + 51
	other := said
	other.UID[0]++
	mill := said
	mill.Domain = "mill"
	struck := p.verifier(Entry{SPKI: pubOf(t, "ann-pc").SPKI(), Until: secondNow + 9})
	newer := p.verifier()
	newer.Device = serialNow + 6
	full := p.verifier()
	full.Lists = &Lists{lost: 1}
	for what, c := range map[string]struct {
		v     Verifier
		chain []string
		want  Fault
	}{
		"released by an admin":       {p.verifier(), append([]string{released}, ann...), ""},
		"released by the domain key": {p.verifier(), []string{p.sign(said, "domain")}, ""},
		"by the domain key, full":    {full, []string{p.sign(said, "domain")}, ""},
		"by an admin, full":          {full, append([]string{released}, ann...), FaultListFull},
		"by a stranger":              {p.verifier(), []string{p.sign(said, "thief")}, FaultNotStated},
		"by himself":                 {p.verifier(), []string{p.sign(said, "press"), p.key("", "press", 1, "domain")}, FaultNotStated},
		"by an operator":             {p.verifier(), []string{p.sign(said, "bob-pc"), p.user("bob", RoleOperator, 1, "domain"), p.key("bob", "bob-pc", 1, "domain")}, FaultNotStated},
		"without the admin":          {p.verifier(), []string{released}, FaultNotStated},
		"admin in another order":     {p.verifier(), []string{released, ann[1], ann[0]}, FaultNotStated},
		"more than it needs":         {p.verifier(), append([]string{p.sign(said, "domain")}, ann...), FaultMalformed},
		"of another device":          {p.verifier(), []string{p.sign(other, "domain")}, FaultNotStated},
		"of another domain":          {p.verifier(), []string{p.sign(mill, "domain")}, FaultNotStated},
		"of a user":                  {p.verifier(), ann[:1], FaultMalformed},
		"nothing":                    {p.verifier(), nil, FaultMalformed},
		"by an admin who is struck":  {struck, append([]string{released}, ann...), FaultRevoked},
		"seen a newer list":          {p.verifier(), []string{p.sign(later, "domain")}, FaultStale},
		"older than what is known":   {newer, append([]string{released}, ann...), FaultStale},
	} {
		got, err := c.v.Stated(c.chain, plantUID, testNow)
		if FaultOf(err) != c.want || (err == nil) != got.Released {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestAssembleFindsEachSoundChain(t *testing.T) {
	p := plant{t}
	chains, peers := p.sound()
	for what, chain := range chains {
		var pool []Signed
		for _, s := range slices.Backward(chain) {
			pool = append(pool, must(ParseStatement(s))(t))
		}
		for _, s := range []string{p.user("eve", RoleViewer, 1, "domain"), p.key("eve", "eve-pc", 1, "domain"), p.sign(someStatements(t)["list"], "domain")} {
			pool = append(pool, must(ParseStatement(s))(t))
		}
		got, err := p.verifier().Assemble(pool, peers[what], testNow)
		if err != nil || !slices.Equal(got, chain) {
			t.Errorf("%s: %v, %d statements", what, err, len(got))
		}
		_, err = p.verifier().Assemble(pool, p.peer("bob", "nobody"), testNow)
		wantFault(t, err, FaultNotStated)
		_, err = p.verifier(Entry{SPKI: peers[what].SPKI}).Assemble(pool, peers[what], testNow)
		wantFault(t, err, FaultRevoked)
	}
}

func TestWhatHangsOnASigner(t *testing.T) {
	p := plant{t}
	chains, _ := p.sound()
	var pool []Signed
	for _, what := range []string{"by two admins", "second PC", "device", "admin"} {
		for _, s := range chains[what] {
			if signed := must(ParseStatement(s))(t); !slices.ContainsFunc(pool, func(o Signed) bool { return o.JWS == s }) {
				pool = append(pool, signed)
			}
		}
	}
	names := func(entries ...Entry) (list []string) {
		for _, peer := range p.verifier().Hanging(pool, entries, nil, testNow, nil) {
			for what, of := range map[string]string{"bob-pc": "bob", "bob-2": "bob", "press": "", "abe-pc": "abe", "ann-pc": "ann"} {
				if peer == p.peer(of, what) {
					list = append(list, what)
				}
			}
		}
		slices.Sort(list)
		return list
	}
	until := int64(secondNow + 99)
	for _, c := range []struct {
		entry Entry
		want  []string
	}{
		{Entry{SPKI: pubOf(t, "ann-pc").SPKI(), Until: until}, []string{"bob-2", "bob-pc", "press"}},
		{Entry{Subject: subjectOf("ann"), All: MaxSerial, Until: until}, []string{"bob-2", "bob-pc", "press"}},
		{Entry{SPKI: pubOf(t, "abe-pc").SPKI(), Until: until}, nil}, // the second PC hangs on ann as well
		{Entry{SPKI: pubOf(t, "bob-pc").SPKI(), Until: until}, []string{"bob-2"}},
		{Entry{SPKI: pubOf(t, "eve-pc").SPKI(), Until: until}, nil},
	} {
		if got := names(c.entry); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.entry.encode(), got, c.want)
		}
	}
}

// Whoever has a key can sign any number of invites of himself. They do not take the room of what admins invite, nor that of
// other users.
func TestPinsOfAUsersOwnInvitesAreFew(t *testing.T) {
	var pins *Pins
	day := func(n int) time.Time { return testNow.Add(time.Duration(n) * 24 * time.Hour) }
	invite := func(user string, i int) SPKI {
		return SPKI{1, byte(i), byte(len(user)), user[len(user)-1], user[len(user)-2]}
	}
	kept := 0
	for u := range 40 {
		user := fmt.Sprintf("user%02d", u)
		for i := range maxPinsOwn + 1 {
			next, err := pins.see(invite(user, i), SPKI{9}, user, day(1), testNow)
			if room := i < maxPinsOwn && kept < maxPinsAll; (err == nil) != room || err != nil && FaultOf(err) != FaultNotStated {
				t.Fatalf("%s, invite %d, %d kept: %v", user, i, kept, err)
			}
			if pins = next; err == nil {
				kept++
			}
		}
	}
	for i := range maxPins - maxPinsAll {
		pins = must(pins.see(SPKI{2, byte(i), byte(i >> 8)}, SPKI{9}, "", day(9), testNow))(t)
	}
	if back := must(ParsePins(pins.Bytes()))(t); !slices.Equal(back.list, pins.list) {
		t.Error("they come back from the medium as others")
	}
	// Those of users give way to a user's when they are over, and no pin of an admin's invite does.
	pins = must(pins.see(invite("user39", 0), SPKI{9}, "user39", day(3), day(2)))(t)
	if len(pins.list) != maxPins-maxPinsAll+1 {
		t.Errorf("%d pins are left", len(pins.list))
	}
}
