package identity

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// maxPins is how many unconfirmed keys a verifier remembers (identity §15.4).
const maxPins = 512

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

// see is the unconfirmed key of an invite. With a refusal, the pins that are returned remember the alarm.
func (p *Pins) see(invite, key SPKI, until, now time.Time) (*Pins, error) {
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
	case len(next.list) == maxPins:
		// Only now does the time count: a list with a false one must not make a pin forgotten that is needed again.
		next.list = slices.DeleteFunc(next.list, func(a pin) bool { return now.After(time.Unix(a.Until, 0)) })
		if len(next.list) == maxPins {
			return p, refuse(FaultNotStated, "judge chain: too many keys that are not confirmed")
		}
		return next.see(invite, key, until, now)
	}
	next.list = slices.Insert(next.list, i, pin{Invite: invite, Key: key, Until: until.Unix()})
	return next, nil
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
