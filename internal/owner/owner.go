// Package owner keeps what a gateway or a Manager knows of the owner of its domain: the pinned domain key, the lists, the
// pins of invites, and its own chain of statements (identity §11 to §16). It is on the medium before it counts, so that no
// power cut takes a revocation back.
package owner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
)

// SlotName is that of the two files, NAME.0 and NAME.1: whoever erases an identity erases them too.
const SlotName = "owner"

// maxNews bounds the lists that are kept for others as they were signed: what a line carries (session §6). What the lists say
// is kept in any case.
const maxNews = 90 << 10

// Owner is what is known of the owner. It is safe for concurrent use.
type Owner struct {
	// Lock, unless it is nil, keeps the other processes out that share the directory. It is set before the first use.
	Lock func() (io.Closer, error)

	slots *durable.Slots
	self  identity.Peer // who keeps it

	mu    sync.Mutex // guards all below, which changes only after it was stored
	known known
}

// known is a value: a change makes another one.
type known struct {
	pinned identity.Pinned
	lists  *identity.Lists
	pins   *identity.Pins
	own    []string // the chain of who keeps it; nil: there is none
	news   []string // lists as they were signed, each followed by the statements about its signer
	// changes are the owner's own words by which the domain key became another one, oldest first, since the last reset.
	changes []string
	// reset is the root's last word for it, as it was signed; sequence is the last one that does not count any more.
	reset    []byte
	sequence uint64
}

// stored is the durable form.
type stored struct {
	Self   string             `json:"self"` // a name URI
	SPKI   identity.SPKI      `json:"spki"`
	Domain string             `json:"domain"`
	Key    identity.PublicKey `json:"key"`
	Lists  json.RawMessage    `json:"lists"`
	Pins   json.RawMessage    `json:"pins"`
	Own    []string           `json:"own"`
	News   []string           `json:"news"`
	// Changes is left out before the first one.
	Changes []string `json:"changes,omitempty"`
	// Reset and Sequence are left out before the first one.
	Reset    []byte `json:"reset,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
}

// Create pins a domain key for self, a device or user of that domain, and replaces what was known. Take brings the rest. The
// lists of a domain key that was pinned before are kept, whoever kept them: a server could else have a revocation forgotten
// by withholding it from a login or an enrollment. A key that has been replaced does not come back with an old code: the
// fault is [identity.FaultNotStated].
func Create(dir string, self identity.Peer, key identity.PublicKey) (*Owner, error) {
	slots, err := durable.OpenSlots(dir, SlotName)
	if err != nil {
		return nil, err
	}
	o := &Owner{slots: slots, self: self}
	o.mu.Lock()
	defer o.mu.Unlock()
	k := known{pinned: identity.Pinned{Domain: self.Name.Domain, Key: key}}
	if before, err := slots.Load(); err == nil && before != nil {
		var s stored
		was, err := s.parse(before)
		switch {
		case err != nil || was.pinned.Domain != k.pinned.Domain:
		case was.pinned == k.pinned:
			k = was
			k.own = nil
		case was.replaced(key):
			return nil, &identity.Error{Fault: identity.FaultNotStated, Detail: "the domain has another key since that code was made: ask for a new code"}
		}
	}
	return o, o.storeLocked(k)
}

// Open reads what Create and Take have stored for self. The error is fs.ErrNotExist when no key was pinned, or one for
// somebody else: an identity that was replaced. What is damaged is an error: to begin anew would believe whoever speaks
// first, and forget who was revoked.
func Open(dir string, self identity.Peer) (*Owner, error) {
	slots, err := durable.OpenSlots(dir, SlotName)
	if err != nil {
		return nil, err
	}
	o := &Owner{slots: slots, self: self}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.loadLocked(); err != nil {
		return nil, fmt.Errorf("read owner: %w", err)
	}
	return o, nil
}

func (o *Owner) loadLocked() error {
	b, err := o.slots.Load()
	if err != nil {
		return err
	}
	if b == nil {
		return fs.ErrNotExist
	}
	var s stored
	k, err := s.parse(b)
	if err != nil {
		return err
	}
	if s.Self != o.self.Name.String() || s.SPKI != o.self.SPKI {
		return fmt.Errorf("it is that of another identity: %w", fs.ErrNotExist)
	}
	o.known = k
	return nil
}

// parse reads the durable form into s, and returns what it says.
func (s *stored) parse(b []byte) (known, error) {
	if err := json.Unmarshal(b, s); err != nil {
		return known{}, err
	}
	lists, err1 := identity.ParseLists(s.Lists)
	pins, err2 := identity.ParsePins(s.Pins)
	return known{identity.Pinned{Domain: s.Domain, Key: s.Key}, lists, pins, s.Own, s.News, s.Changes, s.Reset, s.Sequence}, errors.Join(err1, err2)
}

// update changes what is known, from what is on the medium now: another process may have learnt more. change returns the
// same value when there is nothing to store.
func (o *Owner) update(change func(known) (known, bool)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.Lock != nil {
		lock, err := o.Lock()
		if err != nil {
			return fmt.Errorf("store owner: %w", err)
		}
		defer lock.Close()
		if err := o.loadLocked(); err != nil {
			return fmt.Errorf("read owner: %w", err)
		}
	}
	k, changed := change(o.known)
	if !changed {
		return nil
	}
	return o.storeLocked(k)
}

func (o *Owner) storeLocked(k known) error {
	b, err := json.Marshal(stored{o.self.Name.String(), o.self.SPKI, k.pinned.Domain, k.pinned.Key, k.lists.Bytes(), k.pins.Bytes(), k.own, k.news, k.changes,
		k.reset, k.sequence})
	if err == nil {
		err = o.slots.Save(b)
	}
	if err != nil {
		return fmt.Errorf("store owner: %w", err)
	}
	o.known = k
	return nil
}

// Pinned is the domain and its key.
func (o *Owner) Pinned() identity.Pinned { return o.now().pinned }

// Lists is the union of all lists so far.
func (o *Owner) Lists() *identity.Lists { return o.now().lists }

// Chain is the newest chain of who keeps this, nil if it has none.
func (o *Owner) Chain() []string { return o.now().own }

// Serials are those of the newest list, and of the newest statement about a device that keeps this, 0 for none: what a
// hello says. Lists of whoever is struck do not count: with the greatest serial they would say that nothing is lacking.
func (o *Owner) Serials() (list, device uint64) { return o.now().serials() }

func (k known) serials() (list, device uint64) {
	if s, err := k.statement(); err == nil {
		if d, ok := s.Statement.(identity.DeviceStatement); ok {
			device = d.Serial
		}
	}
	return k.lists.NewestBeside(k.pinned.Key, k.lists.Entries()), device
}

// Statement is what is stated about who keeps this: a [identity.UserStatement] or [identity.DeviceStatement]. It fails
// without a chain.
func (o *Owner) Statement() (identity.Signed, error) { return o.now().statement() }

func (k known) statement() (identity.Signed, error) {
	if len(k.own) == 0 {
		return identity.Signed{}, errors.New("there is no statement")
	}
	return identity.ParseStatement(k.own[0])
}

// now is what is known; nothing in it changes.
func (o *Owner) now() known {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known
}

// Judge tells what the owner says of a peer (identity §15). device is the serial of the newest statement that is known of it,
// 0 for none, and for a user. What the judgement is to remember is stored before the answer; an error of the medium refuses.
func (o *Owner) Judge(chain []string, peer identity.Peer, device uint64, now time.Time) (identity.Verdict, error) {
	var verdict identity.Verdict
	var refusal error
	err := o.update(func(k known) (known, bool) {
		v := k.verifier()
		v.Device = device
		verdict, refusal = v.Judge(chain, peer, k.lists.Now(now))
		learnt := verdict.Pins != k.pins && (refusal == nil || identity.FaultOf(refusal) == identity.FaultInviteUsedTwice)
		if learnt {
			k.pins = verdict.Pins
		}
		return k, learnt
	})
	if err != nil {
		return identity.Verdict{}, err
	}
	return verdict, refusal
}

func (k known) verifier() identity.Verifier {
	return identity.Verifier{Pinned: k.pinned, Lists: k.lists, Pins: k.pins}
}

// Take reads statements that somebody has brought, in any order: changes of the domain key by that key itself, lists,
// with the statements about their signers, and what is new about who keeps this. It reports whether the lists say more
// than before. What does not count changes nothing, and what does not parse is no error: an honest peer may know of more
// than this program. The error is that of the medium.
func (o *Owner) Take(statements []string, now time.Time) (listed bool, err error) {
	pool := parse(statements)
	err = o.update(func(before known) (known, bool) {
		k := before.withChanges(pool) // before everything else, which it may sign
		now := k.lists.Now(now)
		own := parse(k.own) // whoever brings a statement need not bring again who has signed the one before
		admins := k.admins(slices.Concat(pool, own))
		for _, s := range pool {
			k = k.withList(s, admins, o.holder(), now)
		}
		k = k.withOwn(slices.Concat(admins, k.about(o.self, pool, admins), own), o.self, now)
		listed = k.lists != before.lists
		return k, listed || !slices.Equal(k.own, before.own) || k.pinned != before.pinned
	})
	return listed && err == nil, err
}

// parse leaves out what does not parse, and what is there already.
func parse(statements []string) (pool []identity.Signed) {
	seen := make(map[string]bool)
	for _, jws := range statements {
		if s, err := identity.ParseStatement(jws); err == nil && !seen[jws] {
			seen[jws] = true
			pool = append(pool, s)
		}
	}
	return pool
}

func (o *Owner) holder() identity.Holder {
	uid, err := identity.ParseUID(o.self.Name.ID)
	if o.self.Name.Kind != identity.KindDevice || err != nil {
		return identity.Holder{}
	}
	return identity.Holder{UID: uid, SPKI: o.self.SPKI}
}

// maxChanges is how many changes of the domain key are kept for those who were away.
const maxChanges = 8

// withChanges follows the domain key, as often as it says itself that another one takes its place (identity §12.1), but never
// back: whoever had both keys could send a verifier round and round.
func (k known) withChanges(pool []identity.Signed) known {
	followed := 0 // each statement once: changes are not kept for ever, and whoever had all the keys can lead in a circle
	for i := 0; i < len(pool); i++ {
		key, err := identity.Successor(pool[i], k.pinned.Domain, k.pinned.Key)
		if err != nil || k.replaced(key) || followed == len(pool) {
			continue
		}
		followed++
		k.pinned.Key = key
		k.changes = append(slices.Clone(k.changes), pool[i].JWS)
		k.changes = k.changes[max(0, len(k.changes)-maxChanges):]
		i = -1 // the new key may have signed one that came before this one
	}
	return k
}

// replaced reports whether a key is one that another has taken the place of.
func (k known) replaced(key identity.PublicKey) bool {
	return slices.ContainsFunc(k.changes, func(jws string) bool {
		s, err := identity.ParseStatement(jws)
		change, ok := s.Statement.(identity.DomainStatement)
		return err == nil && ok && change.Old == key
	})
}

// admins are the statements of a pool by which the domain key states admins and their keys. Signatures are verified here, once
// each: what a peer sends who is not judged yet must not cost more than its length.
func (k known) admins(pool []identity.Signed) (proven []identity.Signed) {
	names := make(map[string]bool)
	for _, s := range pool {
		u, ok := s.Statement.(identity.UserStatement)
		if ok && u.Role == identity.RoleAdmin && s.SignedBy(k.pinned.Key) {
			names[u.User] = true
			proven = append(proven, s)
		}
	}
	for _, s := range pool {
		key, ok := s.Statement.(identity.KeyStatement)
		if ok && names[key.User] && key.Serial != 0 && s.SignedBy(k.pinned.Key) {
			proven = append(proven, s)
		}
	}
	return proven
}

// about are the statements of a pool about who keeps this, as far as their signatures lead to the domain key.
func (k known) about(self identity.Peer, pool, admins []identity.Signed) (proven []identity.Signed) {
	signers := []identity.PublicKey{k.pinned.Key}
	for _, s := range admins {
		if key, ok := s.Statement.(identity.KeyStatement); ok {
			signers = append(signers, key.Key)
		}
	}
	find := func(wanted func(identity.Signed) bool) {
		for _, s := range pool {
			if nameOf(s.Statement) == self.Name && wanted(s) && slices.ContainsFunc(signers, s.SignedBy) {
				proven = append(proven, s)
			}
		}
	}
	find(func(identity.Signed) bool { return true })
	signers = nil // his own keys sign invites, and invites sign his keys
	for _, s := range proven {
		if key, ok := s.Statement.(identity.KeyStatement); ok && key.User != "" {
			signers = append(signers, key.Key)
		}
	}
	find(func(s identity.Signed) bool { _, ok := s.Statement.(identity.InviteStatement); return ok })
	signers = nil
	for _, s := range proven {
		if invite, ok := s.Statement.(identity.InviteStatement); ok {
			signers = append(signers, invite.Key)
		}
	}
	find(func(s identity.Signed) bool {
		key, ok := s.Statement.(identity.KeyStatement)
		return ok && key.Key.SPKI() == self.SPKI
	})
	return proven
}

// nameOf is whom a statement is about; zero for lists and changes of the domain key.
func nameOf(s identity.Statement) identity.Name {
	subject := func(domain string, s identity.Subject) identity.Name {
		if s.User != "" {
			return identity.UserName(domain, s.User)
		}
		return identity.DeviceName(domain, s.UID)
	}
	switch s := s.(type) {
	case identity.UserStatement:
		return identity.UserName(s.Domain, s.User)
	case identity.DeviceStatement:
		return identity.DeviceName(s.Domain, s.UID)
	case identity.InviteStatement:
		return subject(s.Domain, s.Subject)
	case identity.KeyStatement:
		return subject(s.Domain, s.Subject)
	}
	return identity.Name{}
}

// withList adds a list, and keeps it for others. admins are what proves who signs.
func (k known) withList(s identity.Signed, admins []identity.Signed, h identity.Holder, now time.Time) known {
	if _, ok := s.Statement.(identity.ListStatement); !ok {
		return k
	}
	lists, err := k.lists.Add(s, admins, k.pinned, h, now)
	if err != nil || lists == k.lists {
		return k
	}
	k.lists = lists
	fresh := append([]string{s.JWS}, signers(s, admins)...)
	// The newest first. One by the domain key takes the place of all before it.
	if !s.SignedBy(k.pinned.Key) {
		for _, jws := range k.news {
			if !slices.Contains(fresh, jws) && size(fresh)+len(jws) <= maxNews {
				fresh = append(fresh, jws)
			}
		}
	}
	k.news = fresh
	return k
}

// signers are the statements about the admin's key that signed a list, none for the domain key.
func signers(list identity.Signed, admins []identity.Signed) (texts []string) {
	for _, s := range admins {
		key, ok := s.Statement.(identity.KeyStatement)
		if !ok || !list.SignedBy(key.Key) {
			continue
		}
		texts = append(texts, s.JWS)
		for _, u := range admins {
			if user, ok := u.Statement.(identity.UserStatement); ok && user.User == key.User {
				texts = append(texts, u.JWS)
			}
		}
	}
	return texts
}

func size(texts []string) (n int) {
	for _, t := range texts {
		n += len(t)
	}
	return n
}

// withOwn takes a better chain of who keeps this, if there is one now. The present one is in the pool.
func (k known) withOwn(pool []identity.Signed, self identity.Peer, now time.Time) known {
	v := k.verifier()
	v.Pins = nil // they are about others
	// Never back to an older statement, which anybody may bring: but what a list strikes was no owner's word.
	if _, err := v.Judge(k.own, self, now); identity.FaultOf(err) != identity.FaultRevoked {
		_, v.Device = k.serials()
	}
	if chain, err := v.Assemble(pool, self, now); err == nil {
		k.own = chain
	} else if chain := v.Gather(pool, self); chain != nil {
		k.own = chain // what is missing may be a list, which comes later
	}
	return k
}

// News are what somebody lacks who has pinned the domain key with this hash (zero: he does not say), and whose newest list has
// this serial: how the key has changed, and the lists with the statements about their signers; and, for whoever knows only an
// older statement of this device, its chain.
func (o *Owner) News(domain identity.SPKI, list, device uint64) (news []string) {
	k := o.now()
	newest, own := o.Serials()
	if !domain.IsZero() && domain != k.pinned.Key.SPKI() {
		news = slices.Clone(k.changes)
	}
	if newest != list { // also one that is greater: it may be that of a thief, whose end is in these
		news = append(news, k.news...)
	}
	if own > device {
		for _, jws := range k.own {
			if !slices.Contains(news, jws) {
				news = append(news, jws)
			}
		}
	}
	return news
}
