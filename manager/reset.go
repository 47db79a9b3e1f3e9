package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// Reset is a domain reset of the root that waits for a person.
type Reset struct {
	Was identity.SPKI `json:"was"`
	Is  identity.SPKI `json:"is"`
}

// meet looks at a domain reset that somebody has brought, with the statements that came along. One that leads to the key that
// is pinned already is taken. Any other is the root's word alone, which may be a thief's: a person is told, and has to compare
// the fingerprint (AcceptDomain).
func (a *Account) meet(raw []byte, texts []string) error {
	o := a.state.owner
	if len(raw) == 0 {
		return nil
	}
	r, err := o.Offered(raw, a.state.roots)
	if err != nil {
		a.m.log().Debug("a domain reset is not taken", "err", clean(err.Error()))
		return nil
	}
	if pinned := o.Pinned(); !leads(r.Key, pinned, texts) {
		a.m.notice("the root of the servers gives domain " + pinned.Domain + " another key: " + r.Key.SPKI().String() +
			"; ask the founder on another way whether this is his new key, and if so: hawser domain accept --fingerprint " + r.Key.SPKI().String())
		return nil
	}
	_, err = o.TakeReset(raw, a.state.roots, texts)
	return asUsage(err)
}

// leads reports whether a key is the pinned one, or became it by its own word.
func leads(key identity.PublicKey, pinned identity.Pinned, texts []string) bool {
	pool := parsed(texts)
	for range len(pool) + 1 {
		if key == pinned.Key {
			return true
		}
		for _, s := range pool {
			if next, err := identity.Successor(s, pinned.Domain, key); err == nil {
				key = next
				break
			}
		}
	}
	return false
}

// meetWhenNotStated is for the moment in which the server says that this user is not stated: the domain may have another
// key, and the user hears of that in no other way.
func (a *Account) meetWhenNotStated(ctx context.Context, failed error) {
	if _, ok := errors.AsType[*problem](failed); !ok || transport.ReasonOf(failed) != transport.NotStated {
		return
	}
	if _, err := a.read(ctx); err != nil {
		a.m.log().Debug("no statements were read", "err", clean(err.Error()))
	}
}

// AcceptDomain takes the domain reset that the server has, if there is one that is new, after a person has agreed: confirmed
// gets the fingerprints of both keys and returns why not.
func (a *Account) AcceptDomain(ctx context.Context, confirmed func(Reset) error) (DomainInfo, error) {
	const op = "accept domain key"
	raw, texts, err := a.fetch(ctx)
	if err != nil {
		return DomainInfo{}, err
	}
	r, err := a.state.owner.Offered(raw, a.state.roots)
	switch {
	case len(raw) == 0 || identity.FaultOf(err) == identity.FaultStale:
		return DomainInfo{}, fail(transport.Stale, op, errors.New("the server has no new key of the root that was not accepted already"))
	case err != nil:
		return DomainInfo{}, fail(transport.ReasonOf(err), op, err)
	}
	was := a.state.owner.Pinned().Key
	if err := confirmed(Reset{was.SPKI(), r.Key.SPKI()}); err != nil {
		return DomainInfo{}, err
	}
	if _, err = a.state.owner.TakeReset(raw, a.state.roots, texts); err == nil {
		_, err = a.state.owner.Take(texts, a.m.now())
	}
	if err != nil {
		return DomainInfo{}, asUsage(err)
	}
	return a.Domain()
}

// Same is for AcceptDomain: a person has written down the fingerprint of the new key.
func Same(fingerprint string) func(Reset) error {
	return func(r Reset) error {
		want, err := identity.ParsePin(fingerprint)
		if err != nil {
			return usage("fingerprint: %w", err)
		}
		if want != r.Is {
			return fail(transport.Policy, "accept domain key", fmt.Errorf("the root gives the domain the key %s, which is another one; nothing is changed", r.Is))
		}
		return nil
	}
}

// fetch asks for all statements of the domain that this user may see, and the last domain reset. It takes nothing.
func (a *Account) fetch(ctx context.Context) (reset []byte, texts []string, err error) {
	const op = "read statements"
	size := 0
	err = pages(op, "/statements", func(page string) (string, error) {
		var answer api.Statements
		err := a.once(ctx, op, http.MethodGet, page, nil, &answer)
		for _, jws := range answer.Statements {
			if size += len(jws); size > maxPool {
				return "", fail(transport.Protocol, op, fmt.Errorf("more than %d MiB", maxPool>>20))
			}
			texts = append(texts, jws)
		}
		reset = answer.DomainReset
		return answer.Next, err
	})
	return reset, texts, err
}

// domainTaken tells a founder what he and the operator have to do.
func domainTaken(h home, l Login, r api.LoginRequest, op string) error {
	return fail(transport.DomainTaken, op, fmt.Errorf("domain %s has another key than %s, which is not changed by a login; "+
		"who has a copy of the domain's key moves that file away, and gives hawser domain import FILE and this login again; "+
		"if the domain's key is lost or stolen, the operator gives, with the root at hand, "+
		"hawser-server domain reset %s --dir DIR --key %s (fingerprint %s), and then this login goes on",
		l.Domain, h.path(domainFile), l.Domain, r.DomainKey, r.DomainKey.SPKI()))
}
