package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/transport"
	"hawser/transport/api"
)

// renewalDue reports whether less than a third of a certificate's life is left. A certificate lives 12 h: with a third
// left a server that is away for 4 h locks nobody out.
func renewalDue(leaf *x509.Certificate, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotAfter.Sub(now) < life/3
}

// renews reports whether a certificate of this account has to be renewed before anything else is asked for.
func (a *Account) renews() bool {
	return renewalDue(a.state.Chain[0], a.m.now()) || a.state.roots.Refuses(a.state.Chain)
}

// refresh renews the user's certificate when that is due (access §3), or takes over what another process has renewed.
// Two processes at the same time both get a certificate for the same key; the later file stays. A failed renewal
// matters only when the old certificate has expired. The disk is looked at first, since each renewal is a transaction
// and an audit record at the server.
func (a *Account) refresh(ctx context.Context) error {
	if !a.renews() {
		return nil
	}
	if err := a.reload(); err != nil {
		return err
	}
	if !a.renews() {
		return nil
	}
	err := a.renew(ctx)
	if err != nil && a.m.now().Before(a.state.Chain[0].NotAfter) && !isFinal(err) {
		a.m.log().Warn("certificate was not renewed", "err", clean(err.Error()))
		return nil
	}
	return err
}

// reload takes the account as it is on disk now.
func (a *Account) reload() error {
	s, err := a.home.load()
	if err != nil {
		return err
	}
	a.use(s)
	return nil
}

// use makes s the state for requests and for TLS.
func (a *Account) use(s state) {
	a.state = s
	a.cert.Store(s.certificate())
}

// renew asks for a certificate for the same key, which TLS proves to be ours (access §3). The server accepts an expired
// one for this.
func (a *Account) renew(ctx context.Context) error {
	const op = "renew certificate"
	csr, err := identity.NewCSR(a.state.Key)
	if err != nil {
		return err
	}
	var answer api.RenewAnswer
	if err := call(ctx, a.dial, op, http.MethodPost, "/renew", api.RenewRequest{CSR: csr}, &answer); err != nil {
		return err
	}
	s := a.state
	// First: the new chain must not be under a key that the root has refused.
	if list, err := identity.VerifyRefusedKeys(answer.RefusedKeys, s.roots); err == nil && s.roots.Refuse(list) {
		a.m.log().Warn("the root has refused keys", "sequence", list.Sequence, "keys", len(list.Keys))
		if err := credential.KeepRefused(string(a.home), answer.RefusedKeys, list, s.roots); err != nil {
			return asUsage(err)
		}
	}
	s.Chain, err = userChain(answer.Chain, s.roots, s.Key, identity.UserName(s.config.Domain, s.config.User), a.m.now())
	if err != nil {
		// A clock that is a day off takes the new certificate for one that is over, and a code would not help.
		if wrong := a.m.askTime(ctx, op, a.dial); isClock(wrong) {
			return wrong
		}
		return fail(transport.ReasonOf(err), op, err)
	}
	// Stored before it is used: the next command must not find an older certificate than the one the server knows of.
	if err := a.home.storeChain(s.Chain); err != nil {
		return err
	}
	a.use(s)
	a.m.log().Debug("certificate renewed", "state", s.Chain[0].NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// userChain checks a chain from a server: valid now under the roots, for our key, and for exactly this user. An answer
// for another key or user would be stored and be useless, or worse, be used.
func userChain(pem string, roots *identity.Roots, key crypto.Signer, want identity.Name, now time.Time) ([]*x509.Certificate, error) {
	chain, err := identity.ParseChain([]byte(pem))
	if err != nil {
		return nil, err
	}
	if _, err = transport.VerifyPeer(chain, roots, now, want); err == nil {
		if wrong := (credential.Credential{Key: key, Chain: chain}).Check(); wrong != nil {
			err = fail(transport.BadCertificate, "verify certificate", wrong)
		}
	}
	return chain, err
}
