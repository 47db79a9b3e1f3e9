package identity

import (
	"cmp"
	"slices"
	"time"
)

// Assemble makes the chain of a peer from whatever statements somebody has, in any order, and judges it as v would. It
// prefers a confirmed key to one that an invite states, and newer statements to older ones. The fault is that of the best
// chain that there is, [FaultNotStated] if there is none.
func (v Verifier) Assemble(pool []Signed, peer Peer, now time.Time) ([]string, error) {
	err := refuse(FaultNotStated, "assemble chain: no statement leads to this key")
	for i, chain := range v.candidates(pool, peer) {
		_, refusal := v.Judge(chain, peer, now)
		if refusal == nil {
			return chain, nil
		}
		if i == 0 {
			err = refusal
		}
	}
	return nil, err
}

// Gather is the best chain whose signatures lead to the domain key, whatever lists and time say of it; nil if there is none.
// It is for an end's own chain, which others judge: by lists that it may not have yet.
func (v Verifier) Gather(pool []Signed, peer Peer) []string {
	for _, chain := range v.candidates(pool, peer) {
		if signed, err := parseStatements(chain, 2); err == nil {
			if _, err := v.walk(signed, peer); err == nil {
				return chain
			}
		}
	}
	return nil
}

// Hanging lists whose keys have a chain now, and none any more when a list with these entries counts (identity §15.6): who
// ends a signer states these again first. They are in the order of the pool. beside tells what decides about a subject; nil:
// the whole pool. more is asked before each key, and ends the search when it is false: there may be very many.
func (v Verifier) Hanging(pool []Signed, entries []Entry, beside func(Subject) []Signed, now time.Time, more func() bool) []Peer {
	v.Pins = nil
	after := v
	after.Lists = v.Lists.clone()
	for _, e := range entries {
		after.Lists.entries[e] = nil // in no list: it is for this question only
	}
	var lost []Peer
	for _, s := range pool {
		key, ok := s.Statement.(KeyStatement)
		if !ok {
			continue
		}
		if more != nil && !more() {
			break
		}
		peer := Peer{Name: key.Subject.name(key.Domain), SPKI: key.Key.SPKI()}
		struck := slices.ContainsFunc(entries, func(e Entry) bool { return e.SPKI == peer.SPKI || e.Subject == key.Subject })
		if struck || slices.Contains(lost, peer) {
			continue // who is struck himself is no surprise
		}
		about := pool
		if beside != nil {
			about = beside(key.Subject)
		}
		if _, err := v.Assemble(about, peer, now); err != nil {
			continue
		}
		if _, err := after.Assemble(about, peer, now); err != nil {
			lost = append(lost, peer)
		}
	}
	return lost
}

// candidates are the chains whose signatures fit, best first.
func (v Verifier) candidates(pool []Signed, peer Peer) (chains [][]string) {
	subjects := pick(pool, func(s UserStatement) bool { return UserName(s.Domain, s.User) == peer.Name }, func(s UserStatement) uint64 { return s.Serial })
	subjects = append(subjects, pick(pool, func(s DeviceStatement) bool { return DeviceName(s.Domain, s.UID) == peer.Name }, func(s DeviceStatement) uint64 { return s.Serial })...)
	serial := func(s KeyStatement) uint64 { return s.Serial } // 0, of an invite, comes last
	keys := pick(pool, func(s KeyStatement) bool { return s.Subject.name(s.Domain) == peer.Name && s.Key.SPKI() == peer.SPKI }, serial)
	for _, key := range keys {
		for _, subject := range subjects {
			if key.Statement.(KeyStatement).Serial != 0 {
				chains = append(chains, v.withAdmins(pool, peer, []Signed{subject, key})...)
				continue
			}
			for _, invite := range pick(pool, func(s InviteStatement) bool { return s.name() == peer.Name && key.SignedBy(s.Key) },
				func(s InviteStatement) uint64 { return s.Serial }) {
				chains = append(chains, v.withAdmins(pool, peer, []Signed{subject, key, invite})...)
				for _, own := range pick(pool, func(s KeyStatement) bool {
					return s.User != "" && s.Serial != 0 && s.Subject.name(s.Domain) == peer.Name && invite.SignedBy(s.Key)
				}, serial) {
					chains = append(chains, v.withAdmins(pool, peer, []Signed{subject, key, invite, own})...)
				}
			}
		}
	}
	return chains
}

// withAdmins appends the statements about the admins' keys that signed the beginning of a chain, if there are any; none if
// one of them is missing.
func (v Verifier) withAdmins(pool []Signed, peer Peer, begin []Signed) [][]string {
	chain := slices.Clone(begin)
	for i, s := range begin {
		if s.SignedBy(v.Key) || i == 1 && len(begin) > 2 || i == 2 && len(begin) > 3 { // by the invite, by his own key
			continue
		}
		keys := pick(pool, func(k KeyStatement) bool {
			return k.User != "" && k.Subject.name(k.Domain) != peer.Name && s.SignedBy(k.Key)
		},
			func(k KeyStatement) uint64 { return k.Serial })
		keys = slices.DeleteFunc(keys, func(k Signed) bool { return !k.SignedBy(v.Key) })
		if len(keys) == 0 {
			return nil
		}
		admin := keys[0].Statement.(KeyStatement)
		users := pick(pool, func(u UserStatement) bool { return u.User == admin.User && u.Role == RoleAdmin }, func(u UserStatement) uint64 { return u.Serial })
		users = slices.DeleteFunc(users, func(u Signed) bool { return !u.SignedBy(v.Key) })
		if len(users) == 0 {
			return nil
		}
		for _, s := range []Signed{users[0], keys[0]} {
			if !slices.ContainsFunc(chain, func(c Signed) bool { return c.JWS == s.JWS }) {
				chain = append(chain, s)
			}
		}
	}
	var texts []string
	for _, s := range chain {
		texts = append(texts, s.JWS)
	}
	return [][]string{texts}
}

// pick returns the statements of one type that are wanted, greatest serial first.
func pick[S Statement](pool []Signed, wanted func(S) bool, serial func(S) uint64) (picked []Signed) {
	for _, s := range pool {
		if is, ok := s.Statement.(S); ok && wanted(is) {
			picked = append(picked, s)
		}
	}
	slices.SortStableFunc(picked, func(a, b Signed) int { return cmp.Compare(serial(b.Statement.(S)), serial(a.Statement.(S))) })
	return picked
}
