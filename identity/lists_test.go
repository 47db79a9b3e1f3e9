package identity

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/internal/soak"
)

// list signs one with a serial and an iat that are so many seconds after testNow.
func (p plant) list(second int, by string, entries ...Entry) Signed {
	p.tb.Helper()
	s := ListStatement{"plant", uint64(serialNow + 1000*int64(second)), int64(secondNow + second), SortEntries(slices.Clone(entries))}
	return must(Sign(s, keyOf(by)))(p.tb)
}

func (p plant) admin(name string) []Signed {
	p.tb.Helper()
	return []Signed{must(ParseStatement(p.key(name, name+"-pc", 1, "domain")))(p.tb), must(ParseStatement(p.user(name, RoleAdmin, 1, "domain")))(p.tb)}
}

// strikeKey is an entry about a user's key.
func strikeKey(tb testing.TB, name string) Entry {
	return Entry{SPKI: pubOf(tb, name).SPKI(), Until: secondNow + 396*dayS}
}

// many are n entries about users.
func many(n, from int) (entries []Entry) {
	for i := range n {
		entries = append(entries, Entry{Subject: Subject{User: fmt.Sprintf("u%d", from+i)}, All: 1, Until: secondNow})
	}
	return entries
}

// given adds lists, each of the signer that it names, and stores the union after each.
type given struct {
	tb    testing.TB
	p     plant
	lists *Lists
	pin   Pinned
	hold  Holder
}

func newGiven(tb testing.TB) *given {
	return &given{tb: tb, p: plant{tb}, pin: Pinned{"plant", pubOf(tb, "domain")}}
}

func (g *given) add(list Signed, want Fault) {
	g.tb.Helper()
	next, err := g.lists.Add(list, slices.Concat(g.p.admin("ann"), g.p.admin("abe")), g.pin, g.hold, testNow)
	wantFault(g.tb, err, want)
	if err != nil && next != g.lists {
		g.tb.Error("refused, and yet the union changed")
	}
	g.lists = must(ParseLists(next.Bytes()))(g.tb)
	if g.lists.Newest(g.pin.Key) != next.Newest(g.pin.Key) || !g.lists.Time().Equal(next.Time()) || !slices.Equal(g.lists.Entries(), next.Entries()) {
		g.tb.Error("the stored union is another one")
	}
}

func (g *given) has(e Entry) bool { return slices.Contains(g.lists.Entries(), e) }

func TestWhoMaySignAList(t *testing.T) {
	p := plant{t}
	pin := Pinned{"plant", pubOf(t, "domain")}
	signed := func(texts ...string) (all []Signed) {
		for _, s := range texts {
			all = append(all, must(ParseStatement(s))(t))
		}
		return all
	}
	ann := p.admin("ann")
	struck := must((*Lists)(nil).Add(p.list(0, "domain", strikeKey(t, "ann-pc")), nil, pin, Holder{}, testNow))(t)
	lowered := must((*Lists)(nil).Add(p.list(0, "domain", Entry{Subject: subjectOf("ann"), Statements: MaxSerial, Until: secondNow + 9}), nil, pin, Holder{}, testNow))(t)
	mill := must(Sign(ListStatement{"mill", serialNow, secondNow, []Entry{}}, keyOf("domain")))(t)
	for what, c := range map[string]struct {
		known *Lists
		list  Signed
		admin []Signed
		now   time.Time
		want  Fault
	}{
		"the domain key":              {nil, p.list(1, "domain"), nil, testNow, ""},
		"the domain key, after years": {nil, p.list(1, "domain"), nil, testNow.Add(9999 * day), ""},
		"an admin":                    {nil, p.list(1, "ann-pc"), ann, testNow, ""},
		"an admin with more":          {nil, p.list(1, "ann-pc"), slices.Concat(p.admin("abe"), ann), testNow, ""},
		"an admin without statements": {nil, p.list(1, "ann-pc"), nil, testNow, FaultNotStated},
		"without the user's":          {nil, p.list(1, "ann-pc"), ann[:1], testNow, FaultNotStated},
		"without the key's":           {nil, p.list(1, "ann-pc"), ann[1:], testNow, FaultNotStated},
		"of another admin":            {nil, p.list(1, "ann-pc"), p.admin("abe"), testNow, FaultNotStated},
		"a stranger":                  {nil, p.list(1, "thief"), ann, testNow, FaultNotStated},
		"an admin of himself":         {nil, p.list(1, "thief"), signed(p.user("eve", RoleAdmin, 1, "thief"), p.key("eve", "thief", 1, "thief")), testNow, FaultNotStated},
		"an admin of an admin":        {nil, p.list(1, "eve-pc"), slices.Concat(ann, signed(p.user("eve", RoleAdmin, 1, "ann-pc"), p.key("eve", "eve-pc", 1, "ann-pc"))), testNow, FaultNotStated},
		"an operator":                 {nil, p.list(1, "bob-pc"), signed(p.user("bob", RoleOperator, 1, "domain"), p.key("bob", "bob-pc", 1, "domain")), testNow, FaultNotStated},
		"a key that is not confirmed": {nil, p.list(1, "ann-2"), slices.Concat(ann, signed(p.key("ann", "ann-2", -1, "invite"))), testNow, FaultNotStated},
		"an admin who has ended":      {nil, p.list(1, "ann-pc"), ann, testNow.Add(301 * day), FaultExpired},
		"an admin's key that is over": {nil, p.list(1, "ann-pc"), ann, testNow.Add(400 * day), FaultExpired},
		"an admin who is struck":      {struck, p.list(1, "ann-pc"), ann, testNow, FaultRevoked},
		"an admin whose role went":    {lowered, p.list(1, "ann-pc"), ann, testNow, FaultRevoked},
		"another domain":              {nil, mill, nil, testNow, FaultNotStated},
		"another statement":           {nil, ann[0], nil, testNow, FaultMalformed},
	} {
		got, err := c.known.Add(c.list, c.admin, pin, Holder{}, c.now)
		if FaultOf(err) != c.want || err != nil && got != c.known {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestNoListGoesBack(t *testing.T) {
	a, b, c := strikeKey(t, "a"), strikeKey(t, "b"), strikeKey(t, "c")
	g := newGiven(t)
	g.add(g.p.list(1, "ann-pc", a), "")
	g.add(g.p.list(5, "ann-pc", b), "") // a smaller one: what was said stays said
	g.add(g.p.list(3, "abe-pc", c), "")
	if !g.has(a) || !g.has(b) || !g.has(c) || g.lists.Newest(g.pin.Key) != serialNow+5000 {
		t.Errorf("%v", g.lists.Entries())
	}
	before := g.lists
	g.add(g.p.list(1, "ann-pc", a), "")
	if string(g.lists.Bytes()) != string(before.Bytes()) {
		t.Error("an old list changed something")
	}
	g.add(g.p.list(4, "domain", c), "") // a came in a list of serial 1 only
	if g.has(a) || !g.has(b) || !g.has(c) {
		t.Errorf("%v", g.lists.Entries())
	}
	g.add(g.p.list(3, "ann-pc", a), FaultStale)
	g.add(g.p.list(3, "domain", a), FaultStale) // held back, delivered late
	g.add(g.p.list(4, "ann-pc", a), "")
	if !g.has(a) {
		t.Error("a list with the same serial as that of the domain key does not count")
	}
}

func TestTheDomainKeyUndoesAThief(t *testing.T) {
	g := newGiven(t)
	mine, his := strikeKey(t, "lost"), strikeKey(t, "honest")
	g.add(g.p.list(1, "abe-pc", mine), "")
	future := must(Sign(ListStatement{"plant", MaxSerial, maxSeconds, SortEntries([]Entry{his, mine})}, keyOf("ann-pc")))(t)
	g.add(future, "")
	if g.lists.Time().Before(testNow.Add(9999 * day)) {
		t.Error("E did not follow a list that counts")
	}
	if _, err := g.lists.Next(g.pin, nil, testNow); FaultOf(err) != FaultRefused {
		t.Errorf("a serial beyond the greatest: %v", err)
	}
	next := must(g.lists.Next(g.pin, []Entry{strikeKey(t, "ann-pc")}, testNow.Add(time.Minute)))(t)
	next.Entries = slices.DeleteFunc(next.Entries, func(e Entry) bool { return e == his }) // the owner knows better
	g.add(must(Sign(next, keyOf("domain")))(t), "")
	if g.has(his) || !g.has(mine) || !g.lists.Time().Equal(testNow.Add(time.Minute)) || g.lists.Newest(g.pin.Key) != next.Serial {
		t.Errorf("%v, E %v", g.lists.Entries(), g.lists.Time())
	}
	g.add(future, FaultRevoked)
}

func TestEMovesBackByTheDomainKeyAlone(t *testing.T) {
	g := newGiven(t)
	at := func(second int) {
		t.Helper()
		if want := testNow.Add(time.Duration(second) * time.Second); !g.lists.Time().Equal(want) {
			t.Errorf("E is %v, want %v", g.lists.Time(), want)
		}
	}
	if !(*Lists)(nil).Time().Equal(time.Unix(0, 0)) {
		t.Error("E without a list")
	}
	g.add(g.p.list(50, "ann-pc"), "")
	at(50)
	g.add(g.p.list(20, "abe-pc"), "")
	at(50)
	g.add(g.p.list(30, "domain"), "") // ann's list is newer, and counts
	at(50)
	g.add(g.p.list(60, "domain"), "")
	at(60)
	ahead := must(Sign(ListStatement{"plant", serialNow + 90_000, secondNow + 80, []Entry{}}, keyOf("abe-pc")))(t)
	g.add(ahead, "")
	at(80)
	g.add(g.p.list(70, "domain", strikeKey(t, "abe-pc")), "")
	at(70)
}

func TestAnEntryThatIsOverKeepsItsPlace(t *testing.T) {
	g := newGiven(t)
	e := Entry{Subject: subjectOf("bob"), All: MaxSerial, Until: secondNow + 10}
	g.add(g.p.list(1, "domain", e), "")
	user := must(ParseStatement(g.p.user("bob", RoleViewer, 1, "domain")))(t)
	for second, want := range map[int]Fault{0: FaultRevoked, 9: FaultRevoked, 10: "", 99: ""} {
		wantFault(t, g.lists.strike(user, 0, testNow.Add(time.Duration(second)*time.Second)), want)
	}
	g.add(g.p.list(100, "ann-pc"), "")
	if !g.has(e) {
		t.Error("a time that may be false made an entry go")
	}
	if next := must(g.lists.Next(g.pin, nil, testNow.Add(10*time.Second)))(t); len(next.Entries) != 0 {
		t.Errorf("the next list still has %v", next.Entries)
	}
}

func TestAListThatDoesNotFit(t *testing.T) {
	g := newGiven(t)
	for i := range 3 { // 300 entries fit into one list
		g.add(g.p.list(i+1, "ann-pc", many(300, i*300)...), "")
	}
	if g.lists.full(false) || g.lists.count(false) != maxEntries {
		t.Fatalf("%d entries", g.lists.count(false))
	}
	g.add(g.p.list(2, "abe-pc", append(many(5, 0), Entry{SPKI: SPKI{1}})...), "") // nothing new of users, one of a device
	if g.lists.full(true) {
		t.Error("full, and everything fitted")
	}
	g.add(g.p.list(9, "abe-pc", many(2, 899)...), "") // u899 is there, u900 is not
	if !g.lists.full(false) || !g.lists.full(true) || g.has(many(1, 900)[0]) || g.lists.count(false) != maxEntries {
		t.Error("not full")
	}
	if g.lists.Newest(g.pin.Key) != serialNow+3000 || !g.lists.Time().Equal(testNow.Add(9*time.Second)) {
		t.Errorf("newest %d, E %v: a list that is not whole is not there, but its time counts", g.lists.Newest(g.pin.Key), g.lists.Time())
	}
	g.add(g.p.list(8, "domain", strikeKey(t, "a")), "") // makes room, but what did not fit is still missing
	if !g.lists.full(false) || g.lists.count(false) != 2 {
		t.Errorf("full %v, %v", g.lists.full(false), g.lists.Entries())
	}
	g.add(g.p.list(9, "abe-pc", many(2, 899)...), "") // asked for again
	if g.lists.full(true) || g.lists.count(false) != 3 || g.lists.Newest(g.pin.Key) != serialNow+9000 {
		t.Errorf("full %v, %v", g.lists.full(false), g.lists.Entries())
	}
}

func TestTooManySigners(t *testing.T) {
	g := newGiven(t)
	for i := range maxSigners + 1 {
		g.lists = g.lists.clone()
		g.lists.take(listSigner{Domain: g.pin.Key.SPKI(), SPKI: SPKI{byte(i), 1}, User: "ann", Key: 1, Serial: serialNow, Iat: secondNow + int64(i)}, many(1, i), Holder{})
		if g.lists.full(false) != (i == maxSigners) {
			t.Errorf("signer %d: full %v", i, g.lists.full(false))
		}
	}
	if !g.lists.Time().Equal(testNow.Add(maxSigners * time.Second)) {
		t.Errorf("E is %v", g.lists.Time())
	}
	g.add(g.p.list(1, "domain"), "")
	if g.lists.full(false) || len(g.lists.signers) != 1 || len(g.lists.Entries()) != 0 {
		t.Errorf("%+v", g.lists)
	}
}

func TestAGatewayKeepsItsOwnDeviceEntries(t *testing.T) {
	g := newGiven(t)
	g.hold = Holder{UID: plantUID, SPKI: SPKI{7}}
	own, ownKey := Entry{Subject: subjectOf(""), All: 1}, Entry{SPKI: SPKI{7}}
	other, otherKey, user := Entry{Subject: Subject{UID: UID{9}}, All: 1}, Entry{SPKI: SPKI{8}}, strikeKey(t, "a")
	g.add(g.p.list(1, "domain", own, ownKey, other, otherKey, user), "")
	if !g.has(own) || !g.has(ownKey) || g.has(other) || g.has(otherKey) || !g.has(user) || g.lists.full(true) || g.lists.Newest(g.pin.Key) != serialNow+1000 {
		t.Errorf("%v", g.lists.Entries())
	}
}

func TestListsOfAnEarlierDomainKey(t *testing.T) {
	g := newGiven(t)
	old, added := strikeKey(t, "old"), strikeKey(t, "new")
	thief := must(Sign(ListStatement{"plant", MaxSerial, secondNow + 1e9, []Entry{old}}, keyOf("domain")))(t)
	g.add(thief, "")
	g.pin.Key = pubOf(t, "next")
	if !g.has(old) || g.lists.Newest(g.pin.Key) != 0 {
		t.Error("a change of the key alone revived somebody, or a list of the old key counts as the newest")
	}
	g.add(thief, FaultNotStated)
	next := must(g.lists.Next(g.pin, []Entry{added}, testNow))(t)
	if !slices.Contains(next.Entries, old) {
		t.Error("the first list of the new key forgets what the old one said")
	}
	next.Entries = []Entry{added}
	g.add(must(Sign(next, keyOf("next")))(t), "")
	if g.has(old) || !g.has(added) || !g.lists.Time().Equal(testNow) {
		t.Errorf("%v, E %v", g.lists.Entries(), g.lists.Time())
	}
}

func TestTheNextListIsNeverSmaller(t *testing.T) {
	g := newGiven(t)
	device := Entry{Subject: subjectOf(""), All: 5}
	g.add(g.p.list(1, "domain", strikeKey(t, "a"), device, Entry{SPKI: SPKI{1}}), "")
	bob := func(all, statements, until int) Entry {
		return Entry{Subject: subjectOf("bob"), All: uint64(all), Statements: uint64(statements), Until: int64(secondNow + until)}
	}
	next := must(g.lists.Next(g.pin, []Entry{bob(5, 0, 9), bob(0, 5, 9), bob(4, 0, 8), bob(0, 6, 9), bob(0, 4, 99), {SPKI: SPKI{1}, Until: secondNow + 9}, {Subject: subjectOf(""), Statements: 4}}, testNow))(t)
	want := SortEntries([]Entry{strikeKey(t, "a"), device, {SPKI: SPKI{1}}, bob(5, 0, 9), bob(0, 6, 9), bob(0, 4, 99), {SPKI: SPKI{1}, Until: secondNow + 9}})
	if !slices.Equal(next.Entries, want) || next.Serial != serialNow+1001 || next.Iat != secondNow {
		t.Errorf("%+v", next)
	}
	if _, err := Sign(next, keyOf("domain")); err != nil {
		t.Error(err)
	}
	if first := must((*Lists)(nil).Next(g.pin, nil, testNow))(t); first.Serial != serialNow || len(first.Entries) != 0 {
		t.Errorf("the first list: %+v", first)
	}
}

func TestStoredListsAreNotGuessed(t *testing.T) {
	g := newGiven(t)
	g.add(g.p.list(1, "domain", strikeKey(t, "a")), "")
	good := string(g.lists.Bytes())
	for i := range good {
		if _, err := ParseLists([]byte(good[:i])); FaultOf(err) != FaultMalformed {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	for _, bad := range []string{"", "null", "{}", good + " ", strings.Replace(good, `"signer":0`, `"signer":1`, 1), strings.Replace(good, `"signer":0`, `"signer":-1`, 1),
		strings.Replace(good, `"lost"`, `"Lost"`, 1), strings.Replace(good, `{"entry"`, `{"more":1,"entry"`, 1)} {
		_, err := ParseLists([]byte(bad))
		wantFault(t, err, FaultMalformed)
	}
	if empty := (*Lists)(nil).Bytes(); must(ParseLists(empty))(t).Newest(g.pin.Key) != 0 {
		t.Errorf("%s", empty)
	}
}

func TestStatementTime(t *testing.T) {
	g := newGiven(t)
	g.add(g.p.list(100, "domain"), "")
	e := testNow.Add(100 * time.Second)
	for what, c := range map[string]struct {
		clock, majority, signed, want time.Time
	}{
		"a good clock":                      {testNow.Add(time.Hour), time.Time{}, testNow, testNow.Add(time.Hour)},
		"frozen in 1970":                    {time.Unix(0, 0), time.Time{}, time.Time{}, e},
		"a majority that fits":              {testNow.Add(time.Hour), testNow.Add(25 * time.Hour), testNow.Add(time.Hour), testNow.Add(time.Hour)},
		"a server that holds the time back": {testNow.Add(time.Hour), testNow.Add(100 * day), testNow.Add(time.Hour), testNow.Add(100 * day)},
		"a majority in the past":            {testNow.Add(time.Hour), testNow.Add(-100 * day), testNow, testNow.Add(time.Hour)},
		"a majority, nothing signed":        {testNow, testNow.Add(time.Hour), time.Time{}, testNow.Add(time.Hour)},
		"no majority":                       {e.Add(1), time.Time{}, time.Time{}, e.Add(1)},
	} {
		if got := StatementTime(c.clock, g.lists, c.majority, c.signed); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	if got := StatementTime(testNow, nil, time.Time{}, time.Time{}); !got.Equal(testNow) {
		t.Errorf("without lists: %v", got)
	}
}

// TestTheOrderOfListsDoesNotMatter gives the same lists in many orders, some of them twice, to verifiers whose power is
// cut after each, and compares what they have with what the set of lists says (identity §16.2). Nobody is struck by an
// admin here; who is struck by the domain key stays so.
func TestTheOrderOfListsDoesNotMatter(t *testing.T) {
	t.Attr("id", "T-revoke")
	r := rand.New(rand.NewPCG(1, 2))
	p := plant{t}
	refusals, removed := 0, 0
	for round := range soak.Or(40, 3000) {
		var all []Signed
		by := map[string]string{}
		struck := []Entry{}
		for i := range 2 + r.IntN(7) {
			signer := []string{"domain", "ann-pc", "abe-pc"}[r.IntN(3)]
			var entries []Entry
			if signer == "domain" {
				if r.IntN(3) == 0 {
					struck = append(struck, []Entry{strikeKey(t, "ann-pc"), {Subject: subjectOf("abe"), All: serialNow + 2, Until: secondNow + 9999}}[r.IntN(2)])
				}
				entries = slices.Clone(struck)
			}
			for range r.IntN(4) {
				entries = append(entries, []Entry{strikeKey(t, "a"), strikeKey(t, "b"), strikeKey(t, "c"), {SPKI: SPKI{1}}, {Subject: subjectOf("bob"), All: uint64(1 + r.IntN(3)), Until: secondNow + 99}}[r.IntN(5)])
			}
			list := p.list(1+i, signer, entries...) // a later list of the domain key says all that the one before said of admins
			all = append(all, list)
			by[list.JWS] = signer
		}
		wantEntries, wantNewest, wantTime := unionOf(t, all, by)
		for range 6 {
			g := newGiven(t)
			order := slices.Concat(all, all[:r.IntN(len(all))])
			r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, list := range order {
				before := g.lists.Entries()
				next, err := g.lists.Add(list, slices.Concat(p.admin("ann"), p.admin("abe")), g.pin, Holder{}, testNow)
				if err != nil {
					refusals++
					if f := FaultOf(err); f != FaultStale && f != FaultRevoked {
						t.Fatal(err)
					}
				}
				g.lists = must(ParseLists(next.Bytes()))(t)
				for _, e := range before {
					if !g.has(e) {
						if removed++; by[list.JWS] != "domain" {
							t.Fatalf("round %d: a list of an admin removed an entry", round)
						}
					}
				}
			}
			if !slices.Equal(g.lists.Entries(), wantEntries) || g.lists.Newest(g.pin.Key) != wantNewest || g.lists.Time().Unix() != wantTime {
				t.Fatalf("round %d: the order matters:\ngot  %v, %d, %v\nwant %v, %d, %v", round, g.lists.Entries(), g.lists.Newest(g.pin.Key), g.lists.Time().Unix(), wantEntries, wantNewest, wantTime)
			}
		}
	}
	if refusals == 0 || removed == 0 {
		t.Errorf("%d refusals, %d entries removed: this test tries nothing", refusals, removed)
	}
}

// unionOf is identity §16.2 as it is written, for a set of lists.
func unionOf(tb testing.TB, all []Signed, by map[string]string) ([]Entry, uint64, int64) {
	users := map[string]string{"ann-pc": "ann", "abe-pc": "abe"}
	var newestDomain ListStatement
	for _, s := range all {
		if list := s.Statement.(ListStatement); by[s.JWS] == "domain" && list.Serial > newestDomain.Serial {
			newestDomain = list
		}
	}
	union, newest, iat := map[Entry]bool{}, uint64(0), int64(0)
	for _, s := range all {
		list, signer := s.Statement.(ListStatement), by[s.JWS]
		struck := signer != "domain" && slices.ContainsFunc(newestDomain.Entries, func(e Entry) bool {
			return e.SPKI == pubOf(tb, signer).SPKI() || e.User == users[signer] && e.All > serialNow+1
		})
		if list.Serial < newestDomain.Serial || struck {
			continue
		}
		newest, iat = max(newest, list.Serial), max(iat, list.Iat)
		for _, e := range list.Entries {
			union[e] = true
		}
	}
	return SortEntries(slices.Collect(maps.Keys(union))), newest, iat
}
