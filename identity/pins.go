package identity

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// How many unconfirmed keys a verifier remembers (identity §15.4), and how many of them that users have invited themselves,
// each of these and all of them together: whoever has stolen a laptop must not take the room of what an admin invites.
const (
	maxPins    = 512
	maxPinsOwn = 8
	maxPinsAll = 256
)

// Pins say which key an invite was first seen to state (identity §15.4). They are never changed once made. A nil *Pins is
// empty.
type Pins struct {
	list []pin // by ascending Invite
}

type pin struct {
	Invite SPKI  `json:"invite"`
	Key    SPKI  `json:"key"`
	Rival  SPKI  `json:"rival"`   // the other key of the first alarm; zero for none
	Met    bool  `json:"met"`     // the key was met as a confirmed one, so that the pin does not move any more
	Until  int64 `json:"until_s"` // seconds since 1970
	// Own is the user whose own key has signed the invite. Left out: the domain key or an admin's has.
	Own string `json:"own,omitempty"`
}

// ParsePins reads what [Pins.Bytes] gave. The fault is [FaultMalformed].
func ParsePins(b []byte) (*Pins, error) {
	p := &Pins{}
	if err := json.Unmarshal(b, &p.list); err != nil || !bytes.Equal(p.Bytes(), b) || len(p.list) > maxPins ||
		!slices.IsSortedFunc(p.list, func(a, b pin) int { return bytes.Compare(a.Invite[:], b.Invite[:]) }) {
		return nil, refuse(FaultMalformed, "parse pins: not what was stored")
	}
	return p, nil
}

// Bytes is the durable form, JSON.
func (p *Pins) Bytes() []byte {
	list := []pin{}
	if p != nil {
		list = append(list, p.list...)
	}
	b, err := json.Marshal(list)
	if err != nil { // hex digits and numbers
		panic(err)
	}
	return b
}

// see is the unconfirmed key of an invite, which a key of user own has signed, if own is not empty. With a refusal, the pins
// that are returned remember the alarm.
func (p *Pins) see(invite, key SPKI, own string, until, now time.Time) (*Pins, error) {
	next := &Pins{}
	if p != nil {
		next.list = slices.Clone(p.list)
	}
	i, found := slices.BinarySearchFunc(next.list, invite, func(a pin, b SPKI) int { return bytes.Compare(a.Invite[:], b[:]) })
	switch {
	case found && next.list[i].Key == key:
		return p, nil
	case found:
		if next.list[i].Rival.IsZero() {
			next.list[i].Rival = key
		}
		return next, refuse(FaultInviteUsedTwice, "judge chain: the invite has stated another key; the owner has to settle it with a new code")
	case !next.hasRoom(own):
		// Only now does the time count: a list with a false one must not make a pin forgotten that is needed again.
		next.list = slices.DeleteFunc(next.list, func(a pin) bool {
			return now.After(time.Unix(a.Until, 0)) && (a.Own != "" || len(next.list) == maxPins)
		})
		if !next.hasRoom(own) {
			return p, refuse(FaultNotStated, "judge chain: too many keys that are not confirmed")
		}
		return next.see(invite, key, own, until, now)
	}
	next.list = slices.Insert(next.list, i, pin{Invite: invite, Key: key, Until: until.Unix(), Own: own})
	return next, nil
}

// hasRoom tells whether one more pin may be kept.
func (p *Pins) hasRoom(own string) bool {
	his, all := 0, 0
	for _, a := range p.list {
		if a.Own != "" {
			all++
		}
		if a.Own == own {
			his++
		}
	}
	return len(p.list) < maxPins && (own == "" || his < maxPinsOwn && all < maxPinsAll)
}

// confirm is a key that was met as a confirmed one.
func (p *Pins) confirm(key SPKI) *Pins {
	if p == nil || !slices.ContainsFunc(p.list, func(a pin) bool { return !a.Met && (a.Key == key || a.Rival == key) }) {
		return p
	}
	next := &Pins{slices.Clone(p.list)}
	for i := range next.list {
		a := &next.list[i]
		if a.Met {
			continue
		}
		if a.Rival == key {
			a.Key, a.Rival = a.Rival, a.Key
		}
		a.Met = a.Key == key
	}
	return next
}
