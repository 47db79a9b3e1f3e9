package manager

import (
	"context"

	"hawser/identity"
	"hawser/transport"
)

// strike signs a list with more entries than all before it, and sends it with send, in front of which stands what is to be
// published with it. It is kept here first: what this Manager has signed it never forgets, whatever the server does. Another
// admin may have signed one in the meantime; then his is taken, and this one is signed again.
func (a *Account) strike(ctx context.Context, op string, p pen, entries []identity.Entry, before []string, send func([]string) error) error {
	var err error
	for range maxTries {
		next, fault := a.state.owner.Lists().Next(a.state.owner.Pinned(), entries, a.m.now())
		if fault != nil {
			return fail(transport.ReasonOf(fault), op, fault)
		}
		list, fault := identity.Sign(next, p.key)
		if fault != nil {
			return fault
		}
		texts := append([]string{list.JWS}, p.signers...)
		if _, err := a.state.owner.Take(texts, a.m.now()); err != nil {
			return asUsage(err)
		}
		if err = send(append(append([]string{}, before...), texts...)); transport.ReasonOf(err) != transport.Stale {
			break
		}
		if _, err := a.read(ctx); err != nil {
			return err
		}
	}
	return err
}

// entriesOf shut out all that was stated of a device below serial, and these keys, for good.
func entriesOf(uid identity.UID, serial uint64, keys []identity.SPKI) []identity.Entry {
	entries := []identity.Entry{{Subject: identity.Subject{UID: uid}, All: serial}}
	for _, spki := range keys {
		entries = append(entries, identity.Entry{SPKI: spki})
	}
	return entries
}
