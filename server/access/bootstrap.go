package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
)

// initNode is the audit chain of Bootstrap, which runs before any server.
const initNode = "init"

// Bootstrap fills an empty store: the first domain and its first user, for whom
// admin is the login code, and the first relay with its activation code. Both
// codes hold for 72 h from now. A store that has the domain already is refused
// with ErrConflict.
func Bootstrap(ctx context.Context, store Store, domain, user, relay string, now time.Time) (admin, relayCode identity.Code, err error) {
	fail := func(err error) (identity.Code, identity.Code, error) {
		return identity.Code{}, identity.Code{}, fmt.Errorf("bootstrap store: %w", err)
	}
	err = errors.Join(identity.CheckLabel(domain), identity.CheckLabel(user), identity.CheckLabel(relay))
	if err != nil {
		return fail(err)
	}
	now = now.UTC()
	if err := save(ctx, store, bucketDomains, domain, domainRecord{now, true}, 0); err != nil {
		return fail(err)
	}
	admin, _, err = newCode(ctx, store, identity.KindUser, domain, userKeyOf(domain, user), now)
	if err != nil {
		return fail(err)
	}
	if err := save(ctx, store, bucketUsers, userKeyOf(domain, user), userRecord{Keys: []userKey{}}, 0); err != nil {
		return fail(err)
	}
	relayCode, ref, err := newCode(ctx, store, identity.KindRelay, "", relay, now)
	if err != nil {
		return fail(err)
	}
	if err := save(ctx, store, bucketRelays, relay, memberRecord{Name: relay, Created: now, Code: ref}, 0); err != nil {
		return fail(err)
	}
	c := chain{store: store, node: initNode}
	err = c.append(ctx, Record{
		Time: now, Domain: domain, Actor: initNode, Action: actionInit,
		Object: identity.UserName(domain, user).String(), Result: resultOK, Detail: "relay " + relay,
	})
	if err != nil {
		return fail(err)
	}
	return admin, relayCode, nil
}
