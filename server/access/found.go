package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/server/store"
)

// Bootstrap fills an empty store: the first domain with its first user, whose login code is admin, and the first relay
// with its activation code. Both codes are valid for 72 h from now. If the store has the domain already, the error is
// store.ErrExists. All of it is one transaction: after a crash there is a whole infrastructure or none.
func Bootstrap(ctx context.Context, st *store.Store, domain, user, relay string, now time.Time) (admin, relayCode identity.Code, err error) {
	now = now.UTC()
	err = errors.Join(identity.CheckLabel(domain), identity.CheckLabel(user), identity.CheckLabel(relay))
	if err == nil {
		err = st.Update(ctx, func(tx *store.Tx) (err error) {
			if err := tx.Insert(&store.Domain{Name: domain, Created: now, Infrastructure: true}); err != nil {
				return err
			}
			if err := tx.Insert(&store.User{Domain: domain, Name: user, Created: now}); err != nil {
				return err
			}
			// His is the domain key, which he brings when he logs in.
			if admin, _, err = newCode(tx, identity.KindUser, domain, user, now); err != nil {
				return err
			}
			if _, relayCode, err = newMember(tx, store.Member{Kind: identity.KindRelay, ID: relay, Name: relay, Created: now}); err != nil {
				return err
			}
			return tx.Append(store.Record{
				Time: now, Domain: domain, Actor: actionInit, Action: actionInit,
				Object: identity.UserName(domain, user).String(), Result: resultOK, Detail: "relay " + relay,
			})
		})
	}
	if err != nil {
		return identity.Code{}, identity.Code{}, fmt.Errorf("bootstrap store: %w", err)
	}
	return admin, relayCode, nil
}

// AddDomain makes a domain beside the first one, and a code for its founder. If there is such a domain, the error is
// store.ErrExists.
func AddDomain(ctx context.Context, st *store.Store, domain, user string, now time.Time) (identity.Code, time.Time, error) {
	return founderCode(ctx, st, domain, user, now, actionDomainAdd, func(tx *store.Tx) error {
		return tx.Insert(&store.Domain{Name: domain, Created: now.UTC()})
	})
}

// FounderCode makes another code for a founder of a domain, who is entered if there is no such user. With it he logs in when
// he has the domain key (access §6). If there is no such domain, the error is store.ErrNotFound.
func FounderCode(ctx context.Context, st *store.Store, domain, user string, now time.Time) (identity.Code, time.Time, error) {
	return founderCode(ctx, st, domain, user, now, actionDomainCode, func(tx *store.Tx) error {
		return tx.Get(&store.Domain{Name: domain})
	})
}

func founderCode(ctx context.Context, st *store.Store, domain, user string, now time.Time, action string,
	enter func(*store.Tx) error) (code identity.Code, expires time.Time, err error) {
	now = now.UTC()
	err = errors.Join(identity.CheckLabel(domain), identity.CheckLabel(user))
	if err == nil {
		err = st.Update(ctx, func(tx *store.Tx) error {
			if err := enter(tx); err != nil {
				return err
			}
			err := tx.Insert(&store.User{Domain: domain, Name: user, Created: now})
			if err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
			var c store.Code
			if code, c, err = newCode(tx, identity.KindUser, domain, user, now); err != nil {
				return err
			}
			expires = c.Expires
			return tx.Append(store.Record{
				Time: now, Domain: domain, Actor: actorOperator, Action: action,
				Object: identity.UserName(domain, user).String(), Result: resultOK,
			})
		})
	}
	if err != nil {
		return identity.Code{}, expires, fmt.Errorf("make founder's code: %w", err)
	}
	return code, expires, nil
}
