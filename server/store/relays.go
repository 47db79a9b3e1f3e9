package store

import "hawser/identity"

// Relays returns all relays, by name, also those whose rows are not what was written: one that vanished could not be revoked.
func (t *Tx) Relays() ([]Member, error) {
	return rows(t, Member{Kind: identity.KindRelay}, " ORDER BY id", nil, func(*Member, error) {})
}

// OpenSessionsAt returns the open sessions that a relay carries.
func (t *Tx) OpenSessionsAt(relay string) ([]Session, error) {
	return rows(t, Session{}, " WHERE ended=0 AND relay=? ORDER BY created, id", []any{relay}, nil)
}
