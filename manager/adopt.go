package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hawser/identity"
	"hawser/transport"
)

// letGo looks at what an entry of the list would take down with a user, and shows it for approval: gateways and users that hang
// on him alone, and the codes that he has made (identity §15.6). keep: the first are stated again, before he ends. The search
// ends with prepare; then what was found until then is shown, and to keep it is an error.
func (a *Account) letGo(ctx, prepare context.Context, pool statements, entry identity.Entry, keep bool) error {
	if !pool.admin(entry.User) {
		return nil // on whom nothing hangs
	}
	near := a.near(pool)
	hanging := a.hanging(prepare, pool, near, entry)
	listed := hanging
	if keep {
		listed = nil // they stay, and their codes do not
	}
	codes := a.openCodesOf(prepare, pool, near, entry.User, listed)
	if err := prepare.Err(); err != nil && (keep || ctx.Err() != nil) {
		return fmt.Errorf("find who hangs on %s: %w", entry.User, err)
	}
	c := Change{Falls: slices.Concat(hanging, codes)}
	if keep {
		c = Change{Again: hanging, Falls: codes}
	}
	if err := a.approved(c); err != nil {
		return err
	}
	texts, err := a.adopt(pool, entry, c.Again)
	if err != nil {
		return err
	}
	return a.publishAll(ctx, texts)
}

// hanging are those who have no chain any more when the entry counts.
func (a *Account) hanging(ctx context.Context, pool statements, near map[identity.Subject]statements, entry identity.Entry) (found []Stated) {
	v, now := a.verifier(), a.statementTime()
	lost := v.Hanging(pool, []identity.Entry{entry}, func(about identity.Subject) []identity.Signed { return near[about] }, now,
		func() bool { return ctx.Err() == nil })
	names := make(map[identity.Name]bool, len(lost))
	for _, peer := range lost {
		names[peer.Name] = true
	}
	hangs := func(s identity.Signed) bool {
		subject, _ := numberOf(s.Statement)
		return names[nameOf(identity.KeyStatement{Domain: v.Domain, Subject: subject})]
	}
	for _, subject := range pool.subjects(hangs) {
		about := near[subject]
		found = append(found, statedOf(subject, about.latest(subject, func(s identity.Signed) bool { return v.Keep(s, about, now) == nil })))
	}
	return found
}

// openCodesOf are those for whom a user has made codes that nobody has used, without those who are listed already.
func (a *Account) openCodesOf(ctx context.Context, pool statements, near map[identity.Subject]statements, user string,
	listed []Stated) (found []Stated) {
	his := func(s identity.Signed) bool {
		invite, ok := s.Statement.(identity.InviteStatement)
		return ok && ctx.Err() == nil && invite.Exp > a.statementTime().Unix() && invite.User != user && slices.ContainsFunc(pool, func(by identity.Signed) bool {
			key, ok := by.Statement.(identity.KeyStatement)
			return ok && key.User == user && s.SignedBy(key.Key)
		})
	}
	for _, subject := range pool.subjects(his) {
		if slices.ContainsFunc(listed, func(one Stated) bool { return one.User == subject.User && one.UID == subject.UID }) {
			continue
		}
		about := near[subject]
		one := statedOf(subject, about.latest(subject, func(s identity.Signed) bool {
			_, code := s.Statement.(identity.InviteStatement)
			return (!code || his(s)) && a.genuine(about, s)
		}))
		if one.Codes > 0 {
			one.Keys = []identity.SPKI{} // these stay
			found = append(found, one)
		}
	}
	return found
}

// adopt signs again what is said of those who hang on whom an entry strikes. Admins among them are the domain key's to state.
func (a *Account) adopt(pool statements, entry identity.Entry, hanging []Stated) (texts []string, err error) {
	if len(hanging) == 0 {
		return nil, nil
	}
	p, err := a.pen(false)
	if err == nil && entry.User == a.state.config.User {
		p.key, err = a.domainKey() // his own key is struck
	}
	if err != nil {
		return nil, err
	}
	for _, one := range hanging {
		if one.Role == identity.RoleAdmin {
			return nil, fail(transport.Policy, "state "+one.User+" again", errors.New("an admin who hangs on an admin cannot be"))
		}
		serial, err := a.serial(pool, identity.Subject{User: one.User, UID: one.UID})
		if err != nil {
			return nil, err
		}
		_, signed, err := p.restate(one.says, serial)
		if err != nil {
			return nil, err
		}
		texts = append(texts, signed...)
	}
	return texts, nil
}
