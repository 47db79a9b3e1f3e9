package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/internal/soak"
)

// modelChain is identity §15 written down for reading: it tries every way in which a chain could have been meant, and takes
// it if one of them is the chain. It reads statements with the independent verifier.
type modelChain struct {
	texts  []string
	typs   []string
	said   []map[string]string
	domain []byte // the raw domain key
}

// raw is the Ed25519 key of a hawser-key or hawser-invite, nil for another key.
func (m modelChain) raw(i int) ed25519.PublicKey {
	der, _ := plainBase64(m.said[i]["key"])
	if len(der) != 44 {
		return nil
	}
	return der[12:]
}

func (m modelChain) hash(i int) string {
	der, _ := plainBase64(m.said[i]["key"])
	return fmt.Sprintf("%x", sha256.Sum256(der))
}

func (m modelChain) by(i int, key ed25519.PublicKey) bool {
	return key != nil && independentSigned(m.texts[i], key)
}

func (m modelChain) byDomain(i int) bool { return m.by(i, m.domain) }

func (m modelChain) is(i int, typ string) bool { return i < len(m.typs) && m.typs[i] == typ }

// meaning is one way to read a chain: which statement is what. -1 is none.
type meaning struct {
	invite, own int
	admins      []int // for each statement that an admin's key signed, in order: that key
}

// meanings are the ways to read the chain that identity §15.2 allows.
func (m modelChain) meanings(kind, id, spki, domain string) (ways []meaning) {
	for i := range m.texts {
		if m.said[i]["domain"] != domain {
			return nil
		}
	}
	member := map[string]string{"user": "user", "device": "uid"}[kind]
	if !m.is(0, "hawser-"+kind) || !m.is(1, "hawser-key") || m.said[0][member] != id || m.said[1][member] != id || m.hash(1) != spki || m.said[0]["released"] == "true" {
		return nil
	}
	for _, invite := range []int{-1, 2} {
		for _, own := range []int{-1, 3} {
			if invite < 0 && own > 0 || invite > 0 && (!m.is(2, "hawser-invite") || m.said[2][member] != id || !m.by(1, m.raw(2))) ||
				own > 0 && (kind != "user" || !m.is(3, "hawser-key") || m.said[3]["user"] != id || !m.by(2, m.raw(3)) || m.said[3]["serial"] == "0") ||
				(m.said[1]["serial"] == "0") != (invite > 0) {
				continue
			}
			links := []int{0, 1}
			if invite > 0 {
				links = []int{0, 2}
			}
			if own > 0 {
				links = []int{0, 3}
			}
			ways = append(ways, m.signers(meaning{invite: invite, own: own}, links, id)...)
		}
	}
	return ways
}

// signers tries the domain key and every admin's key for each link.
func (m modelChain) signers(way meaning, links []int, id string) []meaning {
	if len(links) == 0 {
		return []meaning{way}
	}
	var ways []meaning
	if m.byDomain(links[0]) {
		ways = append(ways, m.signers(way, links[1:], id)...)
	}
	for j := range m.texts {
		if m.said[0]["role"] != "admin" && m.is(j, "hawser-key") && m.said[j]["user"] != "" && m.said[j]["user"] != id && m.said[j]["serial"] != "0" && m.byDomain(j) && m.by(links[0], m.raw(j)) {
			more := way
			more.admins = append(slices.Clone(way.admins), j)
			ways = append(ways, m.signers(more, links[1:], id)...)
		}
	}
	return ways
}

// ordered tells whether the chain is, in this meaning, in its one order, with nothing that is not needed.
func (m modelChain) ordered(way meaning) bool {
	order := []int{0, 1}
	if way.invite > 0 {
		order = append(order, way.invite)
	}
	if way.own > 0 {
		order = append(order, way.own)
	}
	for _, j := range way.admins {
		if slices.Contains(order, j) {
			continue
		}
		user := -1
		for i := range m.texts {
			if m.is(i, "hawser-user") && m.said[i]["user"] == m.said[j]["user"] && m.said[i]["role"] == "admin" && m.byDomain(i) {
				user = i
			}
		}
		if user < 0 {
			return false
		}
		if !slices.Contains(order, user) {
			order = append(order, user)
		}
		order = append(order, j)
	}
	for i, at := range order {
		if i != at {
			return false
		}
	}
	return len(order) == len(m.texts)
}

// modelJudge gives the reason, "" for none. What is not a chain is "no": malformed or not-stated.
func modelJudge(chain []string, domainKey ed25519.PublicKey, peer Peer, entries []Entry, newest uint64, now time.Time) string {
	m := modelChain{texts: chain, domain: domainKey}
	domainHash := sha256.Sum256(slices.Concat([]byte{0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0}, domainKey))
	seen, hashes := []string{fmt.Sprintf("%x", domainHash)}, 1
	for i, jws := range chain {
		typ, said, err := independent(jws)
		if err != nil {
			return "no"
		}
		m.typs, m.said = append(m.typs, typ), append(m.said, said)
		if typ == "hawser-key" || typ == "hawser-invite" {
			seen, hashes = append(seen, m.hash(i)), hashes+1
		}
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != hashes || len(chain) < 2 || len(chain) > 8 || len(strings.Join(chain, "")) > 16384 {
		return "no"
	}
	ways := m.meanings(string(peer.Name.Kind), peer.Name.ID, peer.SPKI.String(), "plant")
	ways = slices.DeleteFunc(ways, func(w meaning) bool { return !m.ordered(w) })
	if len(ways) == 0 {
		return "no"
	}
	return m.alive(ways[0], entries, newest, now)
}

func (m modelChain) alive(way meaning, entries []Entry, newest uint64, now time.Time) string {
	for i := range m.texts {
		serial := number(m.said[i]["serial"])
		if i == 1 && way.invite > 0 {
			serial = number(m.said[way.invite]["serial"])
		}
		for _, e := range entries {
			about := e.User != "" && e.User == m.said[i]["user"] || e.User == "" && !e.UID.IsZero() && e.UID.String() == m.said[i]["uid"]
			statement := m.is(i, "hawser-user") || m.is(i, "hawser-device")
			strikes := about && (serial < int64(e.All) || statement && serial < int64(e.Statements)) || !statement && m.hash(i) == e.SPKI.String()
			if strikes && (e.Until == 0 || now.Unix() < e.Until) {
				return "revoked"
			}
		}
	}
	ms := now.UnixMilli()
	for i := range m.texts {
		if m.is(i, "hawser-user") && ms > number(m.said[i]["exp"])*1000 || m.is(i, "hawser-key") && m.said[i]["user"] != "" && m.said[i]["serial"] != "0" && ms > number(m.said[i]["serial"])+366*86_400_000 {
			return "expired"
		}
	}
	if way.invite > 0 {
		days := map[bool]int64{true: 14, false: 90}[m.said[0]["user"] != ""]
		if ms > (number(m.said[way.invite]["exp"])+days*86_400)*1000 {
			return "no"
		}
	}
	for i := range m.texts {
		if number(m.said[i]["seen"]) > int64(newest) {
			return "stale"
		}
	}
	return ""
}

// chance makes statements and lists of chance, mostly sound ones.
type chance struct {
	*rand.Rand
	p plant
}

// one picks.
func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (c chance) signer() string {
	return one(c.Rand, "domain", "domain", "ann-pc", "ann-pc", "abe-pc", "ann-2", "bob-pc", "thief")
}

func (c chance) user(name string, by string) string {
	role := map[string]Role{"ann": RoleAdmin, "abe": RoleAdmin}[name]
	if role == "" || c.IntN(12) == 0 {
		role = one(c.Rand, RoleOperator, RoleViewer, RoleAdmin)
	}
	serial := serialNow + uint64(c.IntN(5))
	u := UserStatement{"plant", name, role, &Scope{[]string{}, []string{}}, secondNow + int64(one(c.Rand, 300*dayS, 300*dayS, 300*dayS, -1, 0)), serial, one[uint64](c.Rand, 0, 0, serialNow, serialNow+1)}
	if role == RoleAdmin {
		u.Scope = nil
	}
	return c.p.sign(u, by)
}

func (c chance) key(of, key, by string, invited bool) string {
	serial := (one[uint64](c.Rand, serialNow, serialNow, serialNow+1, serialNow+1, serialNow+2, serialNow+2, serialNow-366*dayS*1000, serialNow-366*dayS*1000-1))
	if invited != (c.IntN(20) == 0) {
		serial = 0
	}
	return c.p.sign(KeyStatement{"plant", subjectOf(of), pubOf(c.p.tb, key), "", serial}, by)
}

func (c chance) inviteBy(of, by string) string {
	return c.p.sign(InviteStatement{"plant", subjectOf(of), 0, pubOf(c.p.tb, "invite"), secondNow + int64(one(c.Rand, 3*dayS, 3*dayS, 3*dayS, 3*dayS, 3*dayS, 3*dayS, 3*dayS, -14*dayS, -14*dayS-1, -90*dayS, -90*dayS-1)), serialNow + uint64(c.IntN(4))}, by)
}

func (c chance) device(by string) string {
	return c.p.sign(DeviceStatement{"plant", plantUID, "press 1", "", serialNow + uint64(c.IntN(4)), one[uint64](c.Rand, 0, 0, serialNow, serialNow+1), c.IntN(30) == 0}, by)
}

// chain is one that is meant well, by signers of chance, and then spoiled, perhaps.
func (c chance) chain() ([]string, Peer) {
	of := one(c.Rand, "bob", "bob", "ann", "")
	key := map[string]string{"bob": "bob-2", "ann": "ann-2", "": "press"}[of]
	by := []string{one(c.Rand, "domain", "ann-pc", "abe-pc"), one(c.Rand, "domain", "ann-pc", "abe-pc")}
	if of == "ann" {
		by = []string{"domain", "domain"}
	}
	if c.IntN(8) == 0 {
		by[c.IntN(2)] = c.signer()
	}
	var chain []string
	if of == "" {
		chain = append(chain, c.device(by[0]))
	} else {
		chain = append(chain, c.user(of, by[0]))
	}
	switch c.IntN(3) {
	case 0:
		chain = append(chain, c.key(of, key, by[1], false)) // confirmed
	case 1:
		chain = append(chain, c.key(of, key, "invite", true), c.inviteBy(of, by[1]))
	default: // by another key of the same user
		own := map[string]string{"bob": "bob-pc", "ann": "ann-pc", "": "thief"}[of]
		chain = append(chain, c.key(of, key, "invite", true), c.inviteBy(of, own), c.key(of, own, by[1], false))
	}
	var users []string
	for _, by := range by {
		name, isAdmin := map[string]string{"ann-pc": "ann", "abe-pc": "abe", "ann-2": "ann", "bob-pc": "bob"}[by]
		if !isAdmin {
			continue
		}
		if !slices.Contains(users, name) {
			users = append(users, name)
			chain = append(chain, c.user(name, one(c.Rand, "domain", "domain", "domain", "domain", "domain", "domain", "ann-pc")))
		} else if c.IntN(10) > 0 {
			continue
		}
		chain = append(chain, c.key(name, by, one(c.Rand, "domain", "domain", "domain", "domain", "domain", "domain", "ann-pc"), false))
	}
	switch i := c.IntN(len(chain)); c.IntN(12) {
	case 0:
		chain = slices.Delete(chain, i, i+1)
	case 1:
		chain = append(chain, chain[i])
	case 2:
		j := c.IntN(len(chain))
		chain[i], chain[j] = chain[j], chain[i]
	case 3:
		chain[i] = one(c.Rand, c.user("bob", c.signer()), c.key("bob", "bob-pc", c.signer(), false), c.device(c.signer()), c.inviteBy("bob", c.signer()))
	}
	peer := c.p.peer(of, key)
	if c.IntN(20) == 0 {
		peer = c.p.peer(one(c.Rand, "bob", "ann", "eve", ""), one(c.Rand, key, "bob-pc", "ann-pc"))
	}
	return chain, peer
}

func (c chance) entries() (entries []Entry) {
	for range c.IntN(3) {
		subject := Entry{Subject: subjectOf(one(c.Rand, "bob", "ann", "abe", "eve", ""))}
		if below := serialNow + uint64(c.IntN(3)); c.IntN(2) == 0 {
			subject.All = below
		} else {
			subject.Statements = below
		}
		if subject.User != "" {
			subject.Until = int64(secondNow + one(c.Rand, 99, 99, 0))
		}
		entries = append(entries, one(c.Rand, subject, subject, Entry{SPKI: pubOf(c.p.tb, one(c.Rand, "bob-2", "bob-pc", "ann-pc", "abe-pc", "invite", "press", "eve-pc")).SPKI(), Until: int64(secondNow + one(c.Rand, 99, 0))}))
	}
	return SortEntries(entries)
}

// TestJudgeAgreesWithTheSlowJudge compares both on chains and lists of chance.
func TestJudgeAgreesWithTheSlowJudge(t *testing.T) {
	t.Attr("id", "T-vectors")
	p := plant{t}
	c := chance{rand.New(rand.NewPCG(3, 4)), p}
	count := map[string]int{}
	for range soak.Or(800, 100_000) {
		chain, peer := c.chain()
		entries := c.entries()
		v := Verifier{Pinned: Pinned{"plant", pubOf(t, "domain")}}
		serial := serialNow + uint64(c.IntN(2))
		list := must(Sign(ListStatement{"plant", serial, secondNow, entries}, keyOf("domain")))(t)
		v.Lists = must(v.Lists.Add(list, nil, v.Pinned, Holder{}, testNow))(t)
		want := modelJudge(chain, keyOf("domain").Public().(ed25519.PublicKey), peer, entries, serial, testNow)
		verdict, err := v.Judge(chain, peer, testNow)
		got := string(FaultOf(err))
		if got == string(FaultMalformed) || got == string(FaultNotStated) {
			got = "no"
		}
		if count[got]++; got != want {
			var text []string
			for _, jws := range chain {
				s, _ := ParseStatement(jws)
				text = append(text, payloadOf(t, s))
			}
			t.Fatalf("we say %q (%v), the slow judge %q of %v, lists %v:\n%s", got, err, want, peer, entries, strings.Join(text, "\n"))
		}
		if err == nil && verdict.Until.Before(testNow) && !verdict.Until.IsZero() {
			t.Fatalf("good until %v, and yet good", verdict.Until)
		}
	}
	t.Log(count)
	for _, outcome := range []string{"", "no", "revoked", "expired", "stale"} {
		if count[outcome] < 10 {
			t.Errorf("outcome %q came %d times: this test tries too little", outcome, count[outcome])
		}
	}
}

// TestAssembleFindsWhatIsSound: whatever chain passes, its statements in another order, with others beside them, lead to
// one that passes.
func TestAssembleFindsWhatIsSound(t *testing.T) {
	p := plant{t}
	c := chance{rand.New(rand.NewPCG(5, 6)), p}
	v := p.verifier()
	n := 0
	for range soak.Or(400, 30_000) {
		chain, peer := c.chain()
		if _, err := v.Judge(chain, peer, testNow); err != nil {
			continue
		}
		n++
		var pool []Signed
		for _, jws := range chain {
			pool = append(pool, must(ParseStatement(jws))(t))
		}
		c.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		got, err := v.Assemble(pool, peer, testNow)
		if err != nil {
			t.Fatalf("%v: %v", peer, err)
		}
		if _, err := v.Judge(got, peer, testNow); err != nil {
			t.Fatal(err)
		}
	}
	if n < 10 {
		t.Errorf("only %d sound chains", n)
	}
}
