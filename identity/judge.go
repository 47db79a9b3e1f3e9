package identity

import (
	"slices"
	"time"
)

// The limits of a chain (identity §15.1), and what an unconfirmed key has beyond its invite (§15.3).
const (
	maxChainStatements = 8
	maxChainJWS        = 16 << 10 // bytes

	userGrace   = 14 * 24 * time.Hour
	deviceGrace = 90 * 24 * time.Hour
)

// Verifier judges chains of statements. All of it is what the verifier has stored; it is a value, and judging changes
// nothing in it.
type Verifier struct {
	Pinned
	Lists  *Lists
	Pins   *Pins
	Device uint64 // serial of the newest statement known of the device that is judged, 0 for none
}

// Verdict is what the owner says of a peer.
type Verdict struct {
	User      UserStatement   // of a user
	Device    DeviceStatement // of a device
	Confirmed bool            // or stated by an invite only
	Until     time.Time       // when the first of the statements ends; zero for never
	Pins      *Pins           // to be stored before the verdict counts, if it differs from the verifier's
}

// Judge tells whether a chain states that peer, whose certificate and TLS connection were verified, is a user or device of
// the domain (identity §15). The faults are those of §15.3. With [FaultInviteUsedTwice] the Pins of the verdict know of the
// second key, and are to be stored as well; else a refusal gives no verdict.
func (v Verifier) Judge(chain []string, peer Peer, now time.Time) (Verdict, error) {
	signed, err := parseStatements(chain, 2)
	if err != nil {
		return Verdict{}, err
	}
	w, err := v.walk(signed, peer)
	if err != nil {
		return Verdict{}, err
	}
	if err := v.alive(w, peer.Name.Kind, now); err != nil {
		return Verdict{}, err
	}
	verdict := Verdict{Confirmed: w.invite == nil, Until: w.end(), Pins: v.Pins}
	verdict.User, _ = w.chain[0].Statement.(UserStatement)
	verdict.Device, _ = w.chain[0].Statement.(DeviceStatement)
	if w.invite == nil {
		verdict.Pins = v.Pins.confirm(peer.SPKI)
		return verdict, nil
	}
	pins, err := v.Pins.see(w.invite.Key.SPKI(), peer.SPKI, w.own, w.invite.lastDay(), now)
	if err != nil {
		return Verdict{Pins: pins}, err
	}
	verdict.Pins = pins
	return verdict, nil
}

// Stated judges what is stated about a device apart from its key, also that it is released: its statement, and behind it the
// two statements about the admin's key that signed it, if one did (identity §15.5). A device reads so what its owner says of
// it. The faults are those of Judge.
func (v Verifier) Stated(chain []string, uid UID, now time.Time) (DeviceStatement, error) {
	signed, err := parseStatements(chain, 1)
	if err != nil {
		return DeviceStatement{}, err
	}
	s, ok := signed[0].Statement.(DeviceStatement)
	if !ok {
		return DeviceStatement{}, refuse(FaultMalformed, "judge statement: not about a device")
	}
	if s.Domain != v.Domain || s.UID != uid {
		return DeviceStatement{}, refuse(FaultNotStated, "judge statement: of another device or domain")
	}
	admins, err := v.admit(signed, 0, nil)
	if err != nil {
		return DeviceStatement{}, err
	}
	n, err := v.walkAdmins(signed, 1, admins)
	if err != nil {
		return DeviceStatement{}, err
	}
	if n != len(signed) {
		return DeviceStatement{}, refuse(FaultMalformed, "judge statement: more than it needs")
	}
	if err := v.alive(walked{chain: signed, byAdmin: len(admins) > 0}, KindDevice, now); err != nil {
		return DeviceStatement{}, err
	}
	return s, nil
}

// Leads tells whether the signatures of a chain lead from the domain key to that peer, as in steps 1 and 2 of identity §15.3:
// nothing of lists and time. It is for evidence of what was (identity §17.3). A peer is let in by [Verifier.Judge] alone.
func (p Pinned) Leads(chain []string, peer Peer) error {
	signed, err := parseStatements(chain, 2)
	if err != nil {
		return err
	}
	_, err = Verifier{Pinned: p}.walk(signed, peer)
	return err
}

// Answers refuses a device that is not the one which somebody asked for, by its UID, its name, or folder and name joined
// by "/". The fault is [FaultWrongDevice].
func (s DeviceStatement) Answers(typed string) error {
	if typed == s.UID.String() || typed == s.Name || s.Folder != "" && typed == s.Folder+"/"+s.Name {
		return nil
	}
	return refuse(FaultWrongDevice, "the device is not the one that was asked for, by its owner's statement")
}

func parseStatements(chain []string, least int) ([]Signed, error) {
	size := 0
	for _, jws := range chain {
		size += len(jws)
	}
	if len(chain) < least || len(chain) > maxChainStatements || size > maxChainJWS {
		return nil, refuse(FaultMalformed, "judge chain: too few or too many statements, or more than 16 KiB")
	}
	var signed []Signed
	for _, jws := range chain {
		s, err := ParseStatement(jws)
		if err != nil {
			return nil, err
		}
		signed = append(signed, s)
	}
	return signed, nil
}

// walked is a chain whose signatures lead to the domain key.
type walked struct {
	chain   []Signed
	invite  *InviteStatement // that stated the key, or nil
	own     string           // the user whose own key has signed that invite; empty: none has
	byAdmin bool             // an admin's key, or another one of the user, has signed something
}

// walk follows the one order of identity §15.1. What it has read so far is chain[:n]; admins are the keys that have signed
// something of it.
func (v Verifier) walk(chain []Signed, peer Peer) (walked, error) {
	w := walked{chain: chain}
	if err := v.checkSubject(chain, peer); err != nil {
		return w, err
	}
	key, n := chain[1].Statement.(KeyStatement), 2
	admins, err := v.admit(chain, 0, nil)
	if err != nil {
		return w, err
	}
	invite, ok := statementAt[InviteStatement](chain, n)
	if ok && chain[1].SignedBy(invite.Key) {
		w.invite = &invite
		if admins, n, err = v.walkInvite(chain, n, key, invite, admins); err != nil {
			return w, err
		}
	} else if admins, err = v.admit(chain, 1, admins); err != nil {
		return w, err
	}
	if (key.Serial == 0) != (w.invite != nil) {
		return w, refuse(FaultNotStated, "judge chain: the serial 0 belongs to a key that an invite states, and to no other")
	}
	if n == 4 {
		w.own = key.User
	}
	w.byAdmin = len(admins) > 0 || w.own != ""
	if n, err = v.walkAdmins(chain, n, admins); err != nil {
		return w, err
	}
	if n != len(chain) {
		return w, refuse(FaultMalformed, "judge chain: more than it needs")
	}
	return w, nil
}

// checkSubject wants the first two statements to be about the peer, and all of them to be of the domain, each with a key of
// its own.
func (v Verifier) checkSubject(chain []Signed, peer Peer) error {
	seen := map[SPKI]bool{v.Key.SPKI(): true}
	for _, s := range chain {
		if s.Statement.domain() != v.Domain {
			return refuse(FaultNotStated, "judge chain: of another domain")
		}
		var spki SPKI
		switch s := s.Statement.(type) {
		case KeyStatement:
			spki = s.Key.SPKI()
		case InviteStatement:
			spki = s.Key.SPKI()
		default:
			continue
		}
		if seen[spki] {
			return refuse(FaultMalformed, "judge chain: a key twice")
		}
		seen[spki] = true
	}
	var name Name
	switch s := chain[0].Statement.(type) {
	case UserStatement:
		name = UserName(s.Domain, s.User)
	case DeviceStatement:
		if name = DeviceName(s.Domain, s.UID); s.Released {
			return refuse(FaultNotStated, "judge chain: the device was released")
		}
	default:
		return refuse(FaultMalformed, "judge chain: it begins with another statement than that of its subject")
	}
	key, ok := chain[1].Statement.(KeyStatement)
	if !ok {
		return refuse(FaultMalformed, "judge chain: the second statement is not about the subject's key")
	}
	if name != peer.Name || key.Subject.name(key.Domain) != peer.Name || key.Key.SPKI() != peer.SPKI {
		return refuse(FaultNotStated, "judge chain: about somebody else, or another key")
	}
	return nil
}

// admit tells who has signed chain[i]: the domain key, or an admin's key, which joins admins. An admin is stated by the
// domain key alone.
func (v Verifier) admit(chain []Signed, i int, admins []int) ([]int, error) {
	if chain[i].SignedBy(v.Key) {
		return admins, nil
	}
	subject, _ := chain[0].Statement.(UserStatement)
	for j := 2; j < len(chain) && subject.Role != RoleAdmin; j++ {
		signer, ok := chain[j].Statement.(KeyStatement)
		if ok && signer.User != "" && signer.User != subject.User && chain[i].SignedBy(signer.Key) {
			if !slices.Contains(admins, j) {
				admins = append(admins, j)
			}
			return admins, nil
		}
	}
	return nil, refuse(FaultNotStated, "judge chain: a "+chain[i].Statement.typ()+" that nobody signed who may")
}

// walkInvite reads the invite at chain[n], and for a user's next PC the key that signed it.
func (v Verifier) walkInvite(chain []Signed, n int, key KeyStatement, invite InviteStatement, admins []int) ([]int, int, error) {
	if invite.Subject != key.Subject {
		return nil, n, refuse(FaultNotStated, "judge chain: an invite of another subject")
	}
	n++
	own, ok := statementAt[KeyStatement](chain, n)
	if !ok || own.Subject != key.Subject || own.User == "" || !chain[n-1].SignedBy(own.Key) {
		admins, err := v.admit(chain, n-1, admins)
		return admins, n, err
	}
	if own.Serial == 0 {
		return nil, n, refuse(FaultNotStated, "judge chain: a key that is not confirmed signs nothing")
	}
	admins, err := v.admit(chain, n, admins)
	return admins, n + 1, err
}

// walkAdmins reads the statements about the admins' keys, from chain[n] on.
func (v Verifier) walkAdmins(chain []Signed, n int, admins []int) (int, error) {
	var users []string
	for _, j := range admins {
		key := chain[j].Statement.(KeyStatement)
		if !slices.Contains(users, key.User) {
			users = append(users, key.User)
			if user, ok := statementAt[UserStatement](chain, n); !ok || user.User != key.User || !isAdmin(chain[n], chain[j], v.Pinned) {
				return n, refuse(FaultNotStated, "judge chain: who signed is no admin by a statement of the domain key")
			}
			n++
		}
		if j != n {
			return n, refuse(FaultMalformed, "judge chain: not in its one order")
		}
		if key.Serial == 0 || !chain[j].SignedBy(v.Key) {
			return n, refuse(FaultNotStated, "judge chain: an admin's key that the domain key does not state")
		}
		n++
	}
	return n, nil
}

// isAdmin tells whether the domain key states that this user is an admin and this key his. Both are of one user.
func isAdmin(user, key Signed, p Pinned) bool {
	u, ok1 := user.Statement.(UserStatement)
	k, ok2 := key.Statement.(KeyStatement)
	return ok1 && ok2 && u.Role == RoleAdmin && k.Serial != 0 && u.Domain == p.Domain && k.Domain == p.Domain && user.SignedBy(p.Key) && key.SignedBy(p.Key)
}

// statementAt returns chain[i], if there is one and it is of that type.
func statementAt[S Statement](chain []Signed, i int) (s S, ok bool) {
	if i < len(chain) {
		s, ok = chain[i].Statement.(S)
	}
	return s, ok
}

// alive holds each statement against the lists and the time (identity §15.3, steps 3 to 7).
func (v Verifier) alive(w walked, kind Kind, now time.Time) error {
	if w.byAdmin && v.Lists.full(kind == KindDevice) {
		return refuse(FaultListFull, "judge chain: the lists did not fit, so that only what the domain key signed counts")
	}
	for i, s := range w.chain {
		var invite uint64
		if i == 1 && w.invite != nil {
			invite = w.invite.Serial
		}
		if err := v.Lists.strike(s, invite, now); err != nil {
			return err
		}
	}
	for _, s := range w.chain {
		if err := ended(s, now); err != nil {
			return err
		}
	}
	if w.invite != nil && now.After(w.invite.lastDay()) {
		return refuse(FaultNotStated, "judge chain: a key that an invite stated was not confirmed in time")
	}
	newest := v.Lists.Newest(v.Key)
	for _, s := range w.chain {
		if seen(s) > newest {
			return refuse(FaultStale, "judge chain: whoever signed a "+s.Statement.typ()+" knew a newer list")
		}
	}
	if device, ok := w.chain[0].Statement.(DeviceStatement); ok && device.Serial < v.Device {
		return refuse(FaultStale, "judge chain: the device has a newer statement")
	}
	return nil
}

// ended refuses a statement that has ended by itself.
func ended(s Signed, now time.Time) error {
	if end := endOf(s.Statement); !end.IsZero() && now.After(end) {
		return refuse(FaultExpired, "a "+s.Statement.typ()+" has ended")
	}
	return nil
}

// endOf is when a statement ends by itself, zero for never. Invites end with what they stated.
func endOf(s Statement) time.Time {
	switch s := s.(type) {
	case UserStatement:
		return time.Unix(s.Exp, 0).UTC()
	case KeyStatement:
		if s.User != "" && s.Serial != 0 {
			return time.UnixMilli(int64(s.Serial)).Add(UserLifetime).UTC()
		}
	}
	return time.Time{}
}

// end is when the first statement of the chain ends.
func (w walked) end() (first time.Time) {
	earlier := func(t time.Time) {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	for _, s := range w.chain {
		earlier(endOf(s.Statement))
	}
	if w.invite != nil {
		earlier(w.invite.lastDay())
	}
	return first
}

// lastDay is until when a key counts that the invite stated and nobody confirmed.
func (s InviteStatement) lastDay() time.Time {
	grace := deviceGrace
	if s.User != "" {
		grace = userGrace
	}
	return time.Unix(s.Exp, 0).Add(grace).UTC()
}

// seen is the serial of the list that the signer knew.
func seen(s Signed) uint64 {
	switch s := s.Statement.(type) {
	case UserStatement:
		return s.Seen
	case DeviceStatement:
		return s.Seen
	}
	return 0
}
