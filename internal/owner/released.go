package owner

import (
	"time"

	"hawser/identity"
)

// Released tells whether one of these statements lets the device go that keeps this (identity §15.5): one of its owner, that
// counts now, and is not older than the newest one that is known. Nothing is stored: whoever is released erases it all.
func (o *Owner) Released(statements []string, now time.Time) bool {
	h := o.holder()
	if h.UID.IsZero() {
		return false
	}
	k := o.now()
	v := k.verifier()
	_, v.Device = o.Serials()
	now = k.lists.Now(now)
	var pool []identity.Signed
	for _, jws := range statements {
		if s, err := identity.ParseStatement(jws); err == nil {
			pool = append(pool, s)
		}
	}
	for _, s := range pool {
		d, ok := s.Statement.(identity.DeviceStatement)
		if !ok || !d.Released || d.UID != h.UID {
			continue
		}
		for _, chain := range alone(s, pool, k.pinned.Key) {
			if _, err := v.Stated(chain, h.UID, now); err == nil {
				return true
			}
		}
	}
	return false
}

// alone are the ways in which a statement about a device stands without a key: by the domain key, or with an admin's two.
func alone(s identity.Signed, pool []identity.Signed, domain identity.PublicKey) (chains [][]string) {
	if s.SignedBy(domain) {
		return [][]string{{s.JWS}}
	}
	for _, by := range pool {
		key, ok := by.Statement.(identity.KeyStatement)
		if !ok || key.User == "" || !s.SignedBy(key.Key) {
			continue
		}
		for _, u := range pool {
			if user, ok := u.Statement.(identity.UserStatement); ok && user.User == key.User {
				chains = append(chains, []string{s.JWS, u.JWS, by.JWS})
			}
		}
	}
	return chains
}
