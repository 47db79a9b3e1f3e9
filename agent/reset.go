package agent

import (
	"errors"
	"fmt"

	"hawser/internal/owner"
	"hawser/transport/wire"
)

// errKeepsKey is told by status: the gateway's owner has to know that somebody with the root wants another key here, whether
// that is a thief or himself.
var errKeepsKey = errors.New("the root gives the domain another key, which domain_change: owner in agent.yaml refuses; " +
	"whoever may change it takes the line out, and starts the agent anew")

// parseDomainChange reads the only word that the key knows.
func parseDomainChange(s string) (ownerOnly bool, err error) {
	if s != "owner" {
		return false, fmt.Errorf("%.40q: want owner, or leave the key out", s)
	}
	return true, nil
}

// takeReset follows the root to another domain key, once, unless the configuration refuses it. The error is that of the
// medium.
func (a *Agent) takeReset(known *owner.Owner, m wire.Statements) error {
	raw := m.DomainReset
	self := a.self.Load()
	if len(raw) == 0 || self == nil {
		return nil
	}
	r, err := known.Offered(raw, self.Roots)
	if err != nil {
		a.log.Debug("a domain reset is not taken", "err", err)
		return nil
	}
	if a.config.OwnerOnly {
		if r.Key != known.Pinned().Key && a.status.trouble("domain reset", errKeepsKey) {
			a.log.Warn("a domain reset of the root is refused by domain_change: owner", "key", r.Key.SPKI(), "sequence", r.Sequence)
		}
		return nil
	}
	was := known.Pinned().Key.SPKI()
	taken, err := known.TakeReset(raw, self.Roots, m.Statements)
	if taken {
		a.log.Warn("the domain has another key, by the word of the root", "was", was, "is", known.Pinned().Key.SPKI(), "sequence", r.Sequence)
	}
	return err
}
