package manager

import (
	"errors"
	"slices"

	"hawser/identity"
	"hawser/transport"
)

// adopt states again whom an entry of the list would take down: gateways and users that hang on an admin alone who is struck
// (identity §15.6). Admins among them are the domain key's to state.
func (a *Account) adopt(pool statements, entry identity.Entry) (texts []string, err error) {
	v, now := a.verifier(), a.statementTime()
	lost := v.Hanging(pool, []identity.Entry{entry}, now)
	if len(lost) == 0 {
		return nil, nil
	}
	p, err := a.pen(false)
	if err == nil && entry.User == a.state.config.User {
		p.key, err = a.domainKey() // his own key is struck
	}
	if err != nil {
		return nil, err
	}
	live := func(s identity.Signed) bool { return v.Keep(s, pool, now) == nil }
	hangs := func(s identity.Signed) bool {
		subject, _ := numberOf(s.Statement)
		name := nameOf(identity.KeyStatement{Domain: v.Domain, Subject: subject})
		return slices.ContainsFunc(lost, func(peer identity.Peer) bool { return name == peer.Name })
	}
	for _, subject := range pool.subjects(hangs) {
		serial, err := a.serial(pool, subject)
		if err != nil {
			return nil, err
		}
		says := pool.latest(subject, live)
		for _, s := range says {
			if u, ok := s.(identity.UserStatement); ok && u.Role == identity.RoleAdmin {
				return nil, fail(transport.Policy, "state "+u.User+" again", errors.New("an admin who hangs on an admin cannot be"))
			}
		}
		_, signed, err := p.restate(says, serial)
		if err != nil {
			return nil, err
		}
		texts = append(texts, signed...)
	}
	return texts, nil
}
