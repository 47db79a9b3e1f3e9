package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// statedCase is a chain with what belongs to it.
type statedCase struct {
	chain []string
	peer  Peer
	list  string // of the domain key, or none
	now   time.Time
	want  Fault
}

func statedCases(tb testing.TB) map[string]statedCase {
	p := plant{tb}
	chains, peers := p.sound()
	cases := map[string]statedCase{}
	for what, chain := range chains {
		cases["good "+what] = statedCase{chain, peers[what], "", testNow, ""}
	}
	change := func(name, of string, change func(*statedCase)) {
		c := statedCase{slices.Clone(chains[of]), peers[of], "", testNow, ""}
		change(&c)
		cases[name] = c
	}
	struck := func(entries ...Entry) string { return p.list(0, "domain", entries...).JWS }
	change("order", "by an admin", func(c *statedCase) {
		c.chain[2], c.chain[3], c.want = c.chain[3], c.chain[2], FaultNotStated
	})
	change("more than it needs", "by the domain key", func(c *statedCase) { c.chain, c.want = append(c.chain, chains["admin"]...), FaultMalformed })
	change("admin missing", "by an admin", func(c *statedCase) { c.chain, c.want = c.chain[:2], FaultNotStated })
	change("another key", "by an admin", func(c *statedCase) { c.peer.SPKI, c.want = SPKI{1}, FaultNotStated })
	change("another user", "by an admin", func(c *statedCase) { c.peer.Name.ID, c.want = "eve", FaultNotStated })
	change("another domain", "by an admin", func(c *statedCase) { c.peer.Name.Domain, c.want = "mill", FaultNotStated })
	change("an admin by an admin", "by an admin", func(c *statedCase) { c.chain[0], c.want = p.user("bob", RoleAdmin, 3, "ann-pc"), FaultNotStated })
	change("key listed", "by an admin", func(c *statedCase) { c.list, c.want = struck(strikeKey(tb, "bob-pc")), FaultRevoked })
	change("admin's key listed", "device", func(c *statedCase) { c.list, c.want = struck(strikeKey(tb, "ann-pc")), FaultRevoked })
	change("another's key listed", "by an admin", func(c *statedCase) { c.list = struck(strikeKey(tb, "abe-pc")) })
	all := Entry{Subject: subjectOf("bob"), All: serialNow + 4, Until: secondNow + 9}
	change("invite listed by its serial", "invited", func(c *statedCase) { c.list, c.want = struck(all), FaultRevoked })
	all.All--
	change("invite of a greater serial", "invited", func(c *statedCase) { c.list = struck(all) })
	change("expired", "by an admin", func(c *statedCase) { c.now, c.want = testNow.Add(300*day+time.Second), FaultExpired })
	change("invite's last day", "invited", func(c *statedCase) { c.now = testNow.Add(17 * day) })
	change("after its last day", "invited", func(c *statedCase) { c.now, c.want = testNow.Add(17*day+time.Second), FaultNotStated })
	u := UserStatement{"plant", "bob", RoleViewer, &Scope{[]string{}, []string{}}, secondNow, serialNow, serialNow}
	change("stale", "by the domain key", func(c *statedCase) { c.chain[0], c.want = p.sign(u, "domain"), FaultStale })
	change("not stale", "by the domain key", func(c *statedCase) { c.chain[0], c.list = p.sign(u, "domain"), struck() })
	return cases
}

func writeStated(tb testing.TB) {
	key := pubOf(tb, "domain")
	for what, c := range statedCases(tb) {
		var more []string
		if c.want == "" {
			v := Verifier{Pinned: Pinned{"plant", key}}
			if c.list != "" {
				v.Lists = must(v.Lists.Add(must(ParseStatement(c.list))(tb), nil, v.Pinned, Holder{}, testNow))(tb)
			}
			verdict := must(v.Judge(c.chain, c.peer, c.now))(tb)
			until := "never"
			if !verdict.Until.IsZero() {
				until = verdict.Until.Format(time.RFC3339)
			}
			more = []string{"confirmed", fmt.Sprint(verdict.Confirmed), "until", until}
		}
		writeVector(tb, "stated-"+vectorName(what), nil, c.want, append([]string{"domain-key", key.String(), "name", c.peer.Name.String(), "spki", c.peer.SPKI.String(),
			"now", c.now.Format(time.RFC3339), "statements", strings.Join(c.chain, " "), "list", c.list}, more...)...)
	}
}

func TestStatedVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "stated", 30, func(t *testing.T, v vector) {
		key := must(ParsePublicKey(v.get(t, "domain-key")))(t)
		now := must(time.Parse(time.RFC3339, v.get(t, "now")))(t)
		peer := Peer{Name: must(ParseName(v.get(t, "name")))(t), SPKI: SPKI(v.hex(t, "spki"))}
		chain := strings.Fields(v.get(t, "statements"))
		verifier := Verifier{Pinned: Pinned{"plant", key}}
		var entries []Entry
		if jws := v.get(t, "list"); jws != "" {
			list := must(ParseStatement(jws))(t)
			verifier.Lists = must(verifier.Lists.Add(list, nil, verifier.Pinned, Holder{}, now))(t)
			entries = list.Statement.(ListStatement).Entries
		}
		got, err := verifier.Judge(chain, peer, now)
		if v.expect(t, err) {
			until := "never"
			if !got.Until.IsZero() {
				until = got.Until.Format(time.RFC3339)
			}
			if fmt.Sprint(got.Confirmed) != v.get(t, "confirmed") || until != v.get(t, "until") {
				t.Errorf("got %+v", got)
			}
		}
		want := map[string]string{"success": "", "malformed": "no", "not-stated": "no"}
		expect, ok := want[v.get(t, "expect")]
		if !ok {
			expect = v.get(t, "expect")
		}
		raw := must(plainBase64(v.get(t, "domain-key")))(t)
		slow := "no"
		if peer.Name.Domain == "plant" {
			slow = modelJudge(chain, ed25519.PublicKey(raw[12:]), peer, entries, verifier.Lists.Newest(key), now)
		}
		if slow != expect {
			t.Errorf("the slow judge says %q", slow)
		}
	})
}

// unionCases are lists in the order in which they come, and what each is answered.
func unionCases(tb testing.TB) map[string]struct {
	lists   []Signed
	answers string
} {
	p := plant{tb}
	a, b, c := strikeKey(tb, "a"), strikeKey(tb, "b"), Entry{SPKI: SPKI{3}}
	type row = struct {
		lists   []Signed
		answers string
	}
	return map[string]row{
		"two admins":         {[]Signed{p.list(1, "ann-pc", a), p.list(2, "abe-pc", b, c)}, "- -"},
		"smaller later":      {[]Signed{p.list(1, "ann-pc", a, b), p.list(2, "ann-pc", c)}, "- -"},
		"replaced":           {[]Signed{p.list(1, "ann-pc", a), p.list(3, "abe-pc", b), p.list(2, "domain", c)}, "- - -"},
		"replaced, before":   {[]Signed{p.list(2, "domain", c), p.list(3, "abe-pc", b), p.list(1, "ann-pc", a)}, "- - stale"},
		"domain's held back": {[]Signed{p.list(5, "domain", a), p.list(2, "domain", b)}, "- stale"},
		"thief undone":       {[]Signed{p.list(9, "ann-pc", a), p.list(5, "abe-pc", b), p.list(4, "domain", strikeKey(tb, "ann-pc"))}, "- - -"},
		"thief, too late":    {[]Signed{p.list(4, "domain", strikeKey(tb, "ann-pc")), p.list(9, "ann-pc", a), p.list(5, "abe-pc", b)}, "- revoked -"},
		"stranger":           {[]Signed{p.list(1, "thief", a), p.list(1, "ann-pc", b)}, "not-stated -"},
	}
}

func writeUnions(tb testing.TB) {
	p := plant{tb}
	var admins []string
	for _, s := range slices.Concat(p.admin("ann"), p.admin("abe")) {
		admins = append(admins, s.JWS)
	}
	for what, c := range unionCases(tb) {
		g := newGiven(tb)
		var texts []string
		for i, list := range c.lists {
			texts = append(texts, list.JWS)
			answer := strings.Fields(c.answers)[i]
			if answer == "-" {
				answer = ""
			}
			g.add(list, Fault(answer))
		}
		writeVector(tb, "union-"+vectorName(what), nil, "", "domain-key", g.pin.Key.String(), "now", testNow.Format(time.RFC3339), "admins", strings.Join(admins, " "),
			"lists", strings.Join(texts, " "), "answers", c.answers, "entries", string(must(json.Marshal(g.lists.Entries()))(tb)), "newest", fmt.Sprint(g.lists.Newest(g.pin.Key)), "time", fmt.Sprint(g.lists.Time().Unix()))
	}
}

func TestUnionVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "union", 8, func(t *testing.T, v vector) {
		pin := Pinned{"plant", must(ParsePublicKey(v.get(t, "domain-key")))(t)}
		now := must(time.Parse(time.RFC3339, v.get(t, "now")))(t)
		var admins []Signed
		for _, jws := range strings.Fields(v.get(t, "admins")) {
			admins = append(admins, must(ParseStatement(jws))(t))
		}
		var lists *Lists
		var answers []string
		for _, jws := range strings.Fields(v.get(t, "lists")) {
			next, err := lists.Add(must(ParseStatement(jws))(t), admins, pin, Holder{}, now)
			answer := string(FaultOf(err))
			if err == nil {
				answer = "-"
			}
			lists, answers = next, append(answers, answer)
		}
		if got := strings.Join(answers, " "); got != v.get(t, "answers") {
			t.Errorf("answered %s", got)
		}
		if got := string(must(json.Marshal(lists.Entries()))(t)); got != v.get(t, "entries") || fmt.Sprint(lists.Newest(pin.Key)) != v.get(t, "newest") || fmt.Sprint(lists.Time().Unix()) != v.get(t, "time") {
			t.Errorf("got %s, newest %d, E %v", got, lists.Newest(pin.Key), lists.Time())
		}
		raw := must(plainBase64(v.get(t, "domain-key")))(t)
		texts := strings.Fields(v.get(t, "lists"))
		says, entries, newest, iat := independentUnion(t, raw[12:], strings.Fields(v.get(t, "admins")), texts)
		got := fmt.Sprintln(strings.Join(says, " "), entries, newest, iat)
		if got != fmt.Sprintln(v.get(t, "answers"), v.get(t, "entries"), v.get(t, "newest"), v.get(t, "time")) {
			t.Errorf("the independent verifier says %s", got)
		}
	})
}

func FuzzJudge(f *testing.F) {
	v := Verifier{Pinned: Pinned{"plant", pubOf(f, "domain")}}
	p := plant{f}
	peer := p.peer("bob", "bob-pc")
	seeds(f, "stated", func(vec vector) { f.Add(vec.get(f, "statements")) })
	f.Fuzz(func(t *testing.T, text string) {
		chain := strings.Fields(text)
		_, err := v.Judge(chain, peer, testNow)
		if refused(t, err) {
			return
		}
		if slow := modelJudge(chain, keyOf("domain").Public().(ed25519.PublicKey), peer, nil, 0, testNow); slow != "" {
			t.Errorf("the slow judge says %s", slow)
		}
	})
}

func FuzzParseLists(f *testing.F) {
	g := newGiven(f)
	g.add(g.p.list(1, "domain", strikeKey(f, "a"), Entry{SPKI: SPKI{1}}), "")
	g.add(g.p.list(2, "ann-pc", strikeKey(f, "a")), "")
	f.Add(g.lists.Bytes())
	last := g.p.list(3, "domain")
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLists(b)
		if refused(t, err) {
			return
		}
		if string(l.Bytes()) != string(b) {
			t.Errorf("%s came back as %s", b, l.Bytes())
		}
		next, err := l.Add(last, nil, g.pin, Holder{}, testNow) // whatever it is, to go on must not panic
		if !refused(t, err) {
			next.Bytes()
		}
	})
}

func FuzzParsePins(f *testing.F) {
	pins := must((*Pins)(nil).see(SPKI{1}, SPKI{2}, "", testNow, testNow))(f)
	f.Add(pins.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePins(b)
		if refused(t, err) {
			return
		}
		if string(p.Bytes()) != string(b) {
			t.Errorf("%s came back as %s", b, p.Bytes())
		}
		p.confirm(SPKI{2}).Bytes()
	})
}
