package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// maxSlots is how many gateways one code is for. A batch that is ended is revoked device by device.
const maxSlots = 1000

// postBatches takes a piece of a batch: devices that one code is for. The pieces may come in any order, and twice. Only its
// maker knows the code, and gives it to nobody before the last piece was taken.
func (s *Server) postBatches(r request) (int, any, error) {
	var body api.BatchRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	var c store.Code
	err := s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (k kept, err error) {
		var added int
		if c, added, k, err = s.takeBatch(tx, o, body); err != nil || added == 0 {
			return k, err
		}
		detail := fmt.Sprintf("%d devices with the code %s", added, c.Lookup)
		return k, tx.Append(s.record(actionBatchAdd, r.caller.peer.Name.String(), r.caller.peer.Name, nil, detail))
	})
	return http.StatusCreated, api.Batch{Lookup: c.Lookup, Expires: c.Expires}, err
}

// takeBatch keeps one piece of a batch, and returns how many of its devices are new.
func (s *Server) takeBatch(tx *store.Tx, o *owner, b api.BatchRequest) (c store.Code, added int, k kept, err error) {
	var all []string
	var list []invited
	for i, slot := range b.Slots {
		one, err := readCode(o.Domain, api.NewCode{Lookup: b.Lookup, Hash: b.Hash, MAC: slot.MAC, List: b.List, Statements: slot.Statements},
			identity.KindDevice, s.now())
		if err != nil {
			return c, 0, k, fmt.Errorf("slot %d: %w", i, err)
		}
		if n := one.invite.Slot; n == 0 || n > maxSlots {
			return c, 0, k, refuse(api.BadRequest, "batch: a slot is not 1 to 1000")
		}
		list, all = append(list, one), append(all, slot.Statements...)
	}
	if len(list) == 0 {
		return c, 0, k, refuse(api.BadRequest, "batch: no slots")
	}
	if k, err = s.keep(tx, o, append(all, b.Signers...), nil); err != nil {
		return c, 0, k, err
	}
	first := list[0].code
	c = store.Code{Lookup: first.Lookup, Kind: first.Kind, Domain: first.Domain, Hash: first.Hash, Expires: first.Expires, List: first.List, Statements: b.Signers}
	was := store.Code{Lookup: c.Lookup}
	switch err := tx.Get(&was); {
	case errors.Is(err, store.ErrNotFound):
		err = tx.Insert(&c)
		if err != nil {
			return c, 0, k, err
		}
	case err != nil:
		return c, 0, k, err
	case !was.IsBatch() || was.Domain != c.Domain || was.Hash != c.Hash:
		return c, 0, k, refuse(transport.CodeTaken, "the code is used already")
	case !was.Expires.Equal(c.Expires):
		return c, 0, k, refuse(api.BadRequest, "batch: the invites end at different times, or the batch was ended")
	}
	for _, one := range list {
		is, err := s.takeSlot(tx, one)
		if err != nil {
			return c, 0, k, err
		}
		added += is
	}
	return c, added, k, nil
}

// takeSlot makes the device of a slot. What was there before, with the same MAC, is good: the answer may have been lost.
func (s *Server) takeSlot(tx *store.Tx, one invited) (added int, err error) {
	c := one.code
	slot := store.Slot{Lookup: c.Lookup, Slot: int64(one.invite.Slot), Subject: c.Subject, MAC: c.MAC, Statements: c.Statements, Expires: c.Expires}
	if err := tx.Insert(&slot); errors.Is(err, store.ErrExists) {
		was := store.Slot{Lookup: slot.Lookup, Slot: slot.Slot}
		if err := tx.Get(&was); err != nil {
			return 0, err
		}
		if was.MAC != slot.MAC || was.Subject != slot.Subject {
			return 0, refuse(transport.CodeTaken, "the slot is used already")
		}
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return 1, addDevice(tx, s.pending(c, one.stated()), one.stated())
}

// errUsedUp is told to whoever has the code of a batch, and nobody else.
var errUsedUp = refuse(transport.BadCode, "every place of this batch is taken: make another batch, or a code for this gateway alone")

// slotFor finds the slot of a batch for a key: the one that it has, or else the next free one. The transaction is
// serializable, so that no slot is given to two.
func slotFor(tx *store.Tx, c store.Code, spki identity.SPKI) (store.Slot, error) {
	slot, err := tx.SlotOf(c.Lookup, spki)
	if !errors.Is(err, store.ErrNotFound) {
		return slot, err
	}
	free, err := tx.FreeSlots(c.Lookup, 8)
	if err != nil {
		return slot, err
	}
	for _, slot := range free {
		err := tx.Get(&store.Member{Kind: identity.KindDevice, ID: slot.Subject})
		if errors.Is(err, store.ErrDamaged) { // this one is shut out; the others are not
			continue
		}
		return slot, err
	}
	return slot, errUsedUp
}

// endAtOnce is how many devices of a batch are revoked in one transaction, which must not keep others waiting.
const endAtOnce = 100

// postBatchEnd ends a batch: nobody enrolls with its code any more, and devices that wait for a gateway are revoked. Gateways
// that have enrolled stay. It is the registry's word: no key was ever stated for these devices.
func (s *Server) postBatchEnd(r request) (int, any, error) {
	domain, lookup, ended := r.caller.domain(), r.vars["lookup"], 0
	if !isLookup(lookup) {
		return 0, nil, errNotFound
	}
	known := false
	err := s.store.UpdateAlways(r.Context(), func(tx *store.Tx) (err error) {
		known, err = s.endCode(tx, domain, lookup, r.caller)
		return err
	})
	for err == nil && known {
		var n int
		if n, err = s.endSome(r.Context(), domain, lookup); n == 0 {
			break
		}
		ended += n
	}
	if err == nil && !known {
		err = s.orLost(errNotFound)
	}
	return http.StatusOK, api.BatchEnded{Lookup: lookup, Devices: ended}, err
}

// endCode makes the code of a batch worthless. The row may be gone, some days after its end, and devices still wait.
func (s *Server) endCode(tx *store.Tx, domain, lookup string, by caller) (known bool, err error) {
	c := store.Code{Lookup: lookup}
	err = tx.Get(&c)
	there := err == nil && c.IsBatch() && c.Domain == domain
	switch {
	case err == nil && !there, err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged):
		return false, err
	}
	waiting, err := tx.PendingOf(domain, lookup, 1)
	if err != nil || !there && len(waiting) == 0 {
		return false, err
	}
	if now := s.now().UTC(); there && c.Expires.After(now) {
		c.Expires = now
		if err := tx.Put(&c); err != nil {
			return false, err
		}
	}
	return true, tx.Append(s.record(actionBatchEnd, by.peer.Name.String(), by.peer.Name, nil, "code "+lookup))
}

func (s *Server) endSome(ctx context.Context, domain, lookup string) (n int, err error) {
	err = s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		list, err := tx.PendingOf(domain, lookup, endAtOnce)
		for i := range list {
			list[i].Revoked = s.now().UTC()
			err = errors.Join(err, tx.Put(&list[i]))
		}
		n = len(list)
		return err
	})
	return n, err
}
