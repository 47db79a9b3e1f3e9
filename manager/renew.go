package manager

import (
	"context"
	"crypto"
	"crypto/x509"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// renewal is due when less than a third of a certificate's life is left.
func renewalDue(leaf *x509.Certificate, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotAfter.Sub(now) < life/3
}

// refresh renews the user's certificate when that is due (access §3). Another process may have done it already: then its
// result is taken. Two that do it at once both get a certificate for the same key, and the file of the later one stays. A
// renewal that fails matters only when the old certificate is over.
func (a *Account) refresh(ctx context.Context) error {
	if !renewalDue(a.state.chain[0], a.m.now()) {
		return nil
	}
	if err := a.reload(); err != nil {
		return err
	}
	if !renewalDue(a.state.chain[0], a.m.now()) {
		return nil
	}
	err := a.renew(ctx)
	if err != nil && a.m.now().Before(a.state.chain[0].NotAfter) && !isFinal(err) {
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

// use takes a state as the present one, for requests and for TLS.
func (a *Account) use(s state) {
	a.state = s
	a.cert.Store(s.certificate())
}

// renew asks for a certificate for the same key, which TLS proves to be ours (access §3). The dates of the old one are the
// server's to overlook.
func (a *Account) renew(ctx context.Context) error {
	const op = "renew certificate"
	csr, err := identity.NewCSR(a.state.key)
	if err != nil {
		return err
	}
	var answer struct {
		Chain string `json:"chain"`
	}
	request := struct {
		CSR []byte `json:"csr"`
	}{csr}
	if err := call(ctx, a.dial, op, http.MethodPost, "/renew", request, &answer); err != nil {
		return err
	}
	s := a.state
	s.chain, err = userChain(answer.Chain, s.roots, s.key, identity.UserName(s.config.Domain, s.config.User), a.m.now())
	if err != nil {
		return fail(transport.ReasonOf(err), op, err)
	}
	if err := a.home.storeChain(s.key, s.chain); err != nil {
		return err
	}
	a.use(s)
	a.m.log().Debug("certificate renewed", "state", s.chain[0].NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// userChain checks a chain that a server issued: ours to the roots now, for our own key, and for exactly this user.
func userChain(pem string, roots *identity.Roots, key crypto.Signer, want identity.Name, now time.Time) ([]*x509.Certificate, error) {
	chain, err := identity.ParseChain([]byte(pem))
	if err != nil {
		return nil, err
	}
	peer, err := transport.VerifyPeer(chain, roots, now, want)
	if err == nil {
		if owned := owns(key, peer); owned != nil {
			err = fail(transport.BadCertificate, "verify certificate", owned)
		}
	}
	return chain, err
}
