package identity

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// The limits of identity §16.3.
const (
	maxEntries = 900 // that differ, of users; and as many of devices
	maxSigners = 32
)

// Pinned is what a verifier knows of its owner: the domain, and the key that speaks for it. It changes by [Successor] and
// [VerifyDomainReset] only.
type Pinned struct {
	Domain string
	Key    PublicKey // Ed25519
}

// Holder is a gateway, which keeps of the entries about devices only its own. The zero Holder keeps all of them, as Managers
// and servers do.
type Holder struct {
	UID  UID
	SPKI SPKI
}

// Lists is the union of the lists that a verifier was given (identity §16): nothing in it goes back. It is never changed
// once made; [Lists.Add] makes another one, so that a caller can store that durably before it counts. A nil *Lists is empty.
type Lists struct {
	signers []listSigner
	entries map[Entry][]mention
	lost    int64 // latest iat of a list that was not kept at all; 0 for none
}

// listSigner is a key that signed lists which counted.
type listSigner struct {
	Domain SPKI   `json:"domain"` // of the domain key that was pinned
	SPKI   SPKI   `json:"spki"`   // the same for the domain key itself
	User   string `json:"user"`   // of an admin's key: whose, and its serial
	Key    uint64 `json:"key"`
	Serial uint64 `json:"serial"` // the greatest of his lists
	Whole  uint64 `json:"whole"`  // the greatest of those that are kept whole
	Iat    int64  `json:"iat"`    // the latest of his lists
	// Something of his newest list did not fit.
	LacksUsers   bool `json:"lacks_users"`
	LacksDevices bool `json:"lacks_devices"`
}

// mention says that a list of a signer had an entry, and which was the greatest serial of such a list.
type mention struct {
	Signer int    `json:"signer"` // index
	Serial uint64 `json:"serial"`
}

// listFile is the durable form.
type listFile struct {
	Signers []listSigner  `json:"signers"`
	Entries []listedEntry `json:"entries"` // ascending
	Lost    int64         `json:"lost"`
}

type listedEntry struct {
	Entry Entry     `json:"entry"`
	In    []mention `json:"in"`
}

// ParseLists reads what [Lists.Bytes] gave. The fault is [FaultMalformed]: the file is damaged, and the caller must not go
// on with an empty one.
func ParseLists(b []byte) (*Lists, error) {
	var f listFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, refuse(FaultMalformed, "parse lists: not what was stored")
	}
	l := &Lists{f.Signers, map[Entry][]mention{}, f.Lost}
	for _, e := range f.Entries {
		l.entries[e.Entry] = e.In
		for _, m := range e.In {
			if m.Signer < 0 || m.Signer >= len(l.signers) {
				return nil, refuse(FaultMalformed, "parse lists: an entry of nobody")
			}
		}
	}
	if again := l.Bytes(); !bytes.Equal(again, b) || len(l.signers) > maxSigners || l.count(false) > maxEntries || l.count(true) > maxEntries {
		return nil, refuse(FaultMalformed, "parse lists: not what was stored")
	}
	return l, nil
}

// Bytes is the durable form: JSON, at most some 3 MiB, usually a few KiB. The same union has the same bytes if the lists came
// in the same order.
func (l *Lists) Bytes() []byte {
	f := listFile{Signers: []listSigner{}, Entries: []listedEntry{}}
	if l != nil {
		f.Signers, f.Lost = append(f.Signers, l.signers...), l.lost
	}
	for _, e := range l.Entries() {
		f.Entries = append(f.Entries, listedEntry{e, l.entries[e]})
	}
	b, err := json.Marshal(f)
	if err != nil { // hex digits, labels and numbers
		panic(err)
	}
	return b
}

// Entries returns the union, ascending, those that are over included.
func (l *Lists) Entries() []Entry {
	if l == nil {
		return []Entry{}
	}
	return SortEntries(slices.Collect(maps.Keys(l.entries)))
}

// Newest is the greatest serial among the lists under a domain key that are kept whole, 0 for none: what a hello says, and
// what a signer has seen.
func (l *Lists) Newest(domain PublicKey) uint64 { return l.newest(domain, nil) }

// NewestBeside is Newest without the lists of whoever is struck by entries: he may have used up the serials.
func (l *Lists) NewestBeside(domain PublicKey, entries []Entry) uint64 {
	return l.newest(domain, entries)
}

// newest leaves out the lists of whoever is struck by entries.
func (l *Lists) newest(domain PublicKey, entries []Entry) (serial uint64) {
	if l != nil {
		for _, s := range l.signers {
			if s.Domain == domain.SPKI() && !s.struck(entries) {
				serial = max(serial, s.Whole)
			}
		}
	}
	return serial
}

// struck tells whether one of the entries strikes the key of s.
func (s listSigner) struck(entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		return e.SPKI == s.SPKI || s.User != "" && e.User == s.User && s.Key < e.All
	})
}

// Time is E of identity §16.4: no statement may be judged by an earlier time. It is 1970 without a list.
func (l *Lists) Time() time.Time {
	var iat int64
	if l != nil {
		iat = l.lost
		for _, s := range l.signers {
			iat = max(iat, s.Iat)
		}
	}
	return time.Unix(iat, 0).UTC()
}

// full tells whether a list did not fit.
func (l *Lists) full(devices bool) bool {
	return l != nil && (l.lost != 0 || slices.ContainsFunc(l.signers, func(s listSigner) bool {
		return s.LacksUsers || devices && s.LacksDevices
	}))
}

// Now is the time by which statements are judged, of who asks no time servers: the later of clock and E (identity §16.4).
func (l *Lists) Now(clock time.Time) time.Time {
	if e := l.Time(); e.After(clock) {
		return e
	}
	return clock
}

// StatementTime is the now of identity §16.4: the latest of clock, E, and what a majority of time servers says if
// that is more than 24 h after the last signed time. Zero times are none. Too late a time refuses; too early a one lets in
// whose statement has ended.
func StatementTime(clock time.Time, lists *Lists, majority, signed time.Time) time.Time {
	now := lists.Now(clock)
	if majority.Sub(signed) > 24*time.Hour && majority.After(now) {
		now = majority
	}
	return now
}

// Add takes a list into the union. A list of an admin comes with the two statements about his key, in any order. It returns
// l itself when the list says nothing new. The faults are [FaultMalformed], [FaultNotStated], [FaultRevoked], [FaultExpired],
// and [FaultStale] for a list from before the newest one of the domain key.
func (l *Lists) Add(list Signed, admin []Signed, p Pinned, h Holder, now time.Time) (*Lists, error) {
	s, ok := list.Statement.(ListStatement)
	if !ok {
		return l, refuse(FaultMalformed, "add list: another statement")
	}
	if s.Domain != p.Domain {
		return l, refuse(FaultNotStated, "add list: of another domain")
	}
	by, err := l.signerOf(list, admin, p, now)
	if err != nil {
		return l, err
	}
	by.Serial, by.Iat = s.Serial, s.Iat
	if s.Serial < l.least(by.Domain) {
		return l, refuse(FaultStale, "add list: the domain key has signed a newer one, which replaces it")
	}
	next := l.clone()
	if by.SPKI == by.Domain {
		next.replace(by, s.Entries)
	}
	next.take(by, s.Entries, h)
	if bytes.Equal(next.Bytes(), l.Bytes()) {
		return l, nil
	}
	return next, nil
}

// signerOf judges who signed a list (identity §16.1).
func (l *Lists) signerOf(list Signed, admin []Signed, p Pinned, now time.Time) (listSigner, error) {
	domain := p.Key.SPKI()
	if list.SignedBy(p.Key) {
		return listSigner{Domain: domain, SPKI: domain}, nil
	}
	refusal := refuse(FaultNotStated, "add list: neither the domain key nor an admin has signed it")
	for _, k := range admin {
		key, ok := k.Statement.(KeyStatement)
		if !ok || !list.SignedBy(key.Key) {
			continue
		}
		for _, u := range admin {
			user, ok := u.Statement.(UserStatement)
			if !ok || user.User != key.User || !isAdmin(u, k, p) {
				continue
			}
			if refusal = firstError(l.strike(u, 0, now), l.strike(k, 0, now), ended(u, now), ended(k, now)); refusal == nil {
				return listSigner{Domain: domain, SPKI: key.Key.SPKI(), User: key.User, Key: key.Serial}, nil
			}
		}
	}
	return listSigner{}, refusal
}

// least is the serial of the newest list of a domain key itself.
func (l *Lists) least(domain SPKI) (serial uint64) {
	if l != nil {
		for _, s := range l.signers {
			if s.Domain == domain && s.SPKI == domain {
				serial = s.Serial
			}
		}
	}
	return serial
}

func (l *Lists) clone() *Lists {
	next := &Lists{entries: map[Entry][]mention{}}
	if l != nil {
		next.signers, next.lost = slices.Clone(l.signers), l.lost
		for e, in := range l.entries {
			next.entries[e] = slices.Clone(in)
		}
	}
	return next
}

// replace makes room for a list of the domain key: older lists go, and those of admins whom it strikes, and those under an
// earlier domain key (identity §16.2). l is the caller's own.
func (l *Lists) replace(by listSigner, entries []Entry) {
	l.lost = 0
	index := make([]int, len(l.signers))
	var kept []listSigner
	for i, s := range l.signers {
		if index[i] = -1; s.Domain == by.Domain && s.Serial >= by.Serial && !s.struck(entries) {
			index[i] = len(kept)
			kept = append(kept, s)
		}
	}
	for e, in := range l.entries {
		var still []mention
		for _, m := range in {
			if index[m.Signer] >= 0 && m.Serial >= by.Serial {
				still = append(still, mention{index[m.Signer], m.Serial})
			}
		}
		if l.entries[e] = still; still == nil {
			delete(l.entries, e)
		}
	}
	l.signers = kept
}

// take adds the entries as far as they fit. l is the caller's own.
func (l *Lists) take(by listSigner, entries []Entry, h Holder) {
	i := slices.IndexFunc(l.signers, func(s listSigner) bool { return s.Domain == by.Domain && s.SPKI == by.SPKI })
	if i < 0 {
		if len(l.signers) == maxSigners {
			l.lost = max(l.lost, by.Iat)
			return
		}
		i = len(l.signers)
		l.signers = append(l.signers, by)
	}
	count := map[bool]int{false: l.count(false), true: l.count(true)}
	lacks := map[bool]bool{}
	for _, e := range entries {
		if !h.keeps(e) {
			continue
		}
		in, known := l.entries[e]
		if !known && count[e.ofDevice()] == maxEntries {
			lacks[e.ofDevice()] = true
			continue
		}
		if !known {
			count[e.ofDevice()]++
		}
		l.entries[e] = mentioned(in, mention{i, by.Serial})
	}
	s := &l.signers[i]
	s.LacksUsers, s.LacksDevices = lacks[false] || s.LacksUsers && by.Serial < s.Serial, lacks[true] || s.LacksDevices && by.Serial < s.Serial
	s.Serial, s.Iat, s.Key = max(s.Serial, by.Serial), max(s.Iat, by.Iat), max(s.Key, by.Key)
	if !lacks[false] && !lacks[true] {
		s.Whole = max(s.Whole, by.Serial)
	}
}

// mentioned keeps one mention of each signer, that of the greatest serial, in ascending order.
func mentioned(in []mention, m mention) []mention {
	i, found := slices.BinarySearchFunc(in, m, func(a, b mention) int { return a.Signer - b.Signer })
	if !found {
		return slices.Insert(in, i, m)
	}
	in[i].Serial = max(in[i].Serial, m.Serial)
	return in
}

// keeps tells whether the holder has a use for an entry.
func (h Holder) keeps(e Entry) bool {
	return h == Holder{} || !e.ofDevice() || !e.UID.IsZero() && e.UID == h.UID || !e.SPKI.IsZero() && e.SPKI == h.SPKI
}

// count tells how many entries are of devices, or of users.
func (l *Lists) count(devices bool) (n int) {
	for e := range l.entries {
		if e.ofDevice() == devices {
			n++
		}
	}
	return n
}

// strike refuses a statement that an entry strikes. invite is the serial of the invite that stated a key, 0 for none.
func (l *Lists) strike(s Signed, invite uint64, now time.Time) error {
	if l == nil {
		return nil
	}
	for e := range l.entries {
		if e.strikes(s.Statement, invite) && (e.Until == 0 || now.Before(time.Unix(e.Until, 0))) {
			return refuse(FaultRevoked, "a list of the owner strikes a "+s.Statement.typ())
		}
	}
	return nil
}

// strikes tells whether e is about a statement (identity §11.2).
func (e Entry) strikes(s Statement, invite uint64) bool {
	switch s := s.(type) {
	case UserStatement:
		return e.Subject == Subject{User: s.User} && s.Serial < max(e.Statements, e.All)
	case DeviceStatement:
		return e.Subject == Subject{UID: s.UID} && s.Serial < max(e.Statements, e.All)
	case InviteStatement:
		return e.SPKI == s.Key.SPKI() || e.Subject == s.Subject && s.Serial < e.All
	case KeyStatement:
		return e.SPKI == s.Key.SPKI() || e.Subject == s.Subject && max(s.Serial, invite) < e.All
	}
	return false
}

// Next is the list that follows the union: all of it that is not over, and more. It is never smaller in what it strikes.
// Whoever signs it does so with his clock right (identity §16.4). The fault is that of [NextSerial].
func (l *Lists) Next(p Pinned, more []Entry, now time.Time) (ListStatement, error) {
	all := slices.DeleteFunc(append(l.Entries(), more...), func(e Entry) bool { return e.Until != 0 && e.Until <= now.Unix() })
	entries := []Entry{}
	for _, e := range SortEntries(all) {
		if !slices.ContainsFunc(all, func(o Entry) bool { return o != e && o.covers(e) }) {
			entries = append(entries, e)
		}
	}
	serial, err := NextSerial(l.newest(p.Key, entries), now) // a thief who used up the serials is struck here
	return ListStatement{p.Domain, serial, now.Unix(), entries}, err
}

// covers tells whether o strikes all that e strikes, for as long.
func (o Entry) covers(e Entry) bool {
	return o.SPKI == e.SPKI && o.Subject == e.Subject && o.ofDevice() == e.ofDevice() && o.Until >= e.Until &&
		o.All >= e.All && max(o.All, o.Statements) >= e.Statements
}
