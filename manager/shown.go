package manager

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
)

// showEvery is how often it is looked whether a session has to be shown something new. A certificate is renewed hours before
// it ends.
const showEvery = 5 * time.Minute

// shown is what the Runtime of a session has seen last of this user.
type shown struct {
	leaf       *x509.Certificate
	statements []string
}

// keepShown renews the user's certificate whenever that is due, and shows the Runtime what is new of it and of the statements
// about him, until ctx ends: without that a session ends with the certificate that it began with. It runs on an Account of its
// own (beside), since an Account is for one goroutine.
func (s *live) keepShown(ctx context.Context, a *Account, last shown) {
	for wait.Sleep(ctx, showEvery) {
		before := a.state.Chain[0]
		err := a.refresh(ctx)
		if err == nil && !a.state.Chain[0].Equal(before) {
			_, err = a.read(ctx) // he may have been stated for longer
		}
		if err != nil && ctx.Err() == nil {
			a.m.log().Debug("nothing new to show", "err", clean(err.Error()))
		}
		now := shown{a.state.Chain[0], a.state.owner.Chain()}
		switch {
		case identity.CertSPKI(now.leaf) != identity.CertSPKI(last.leaf):
			return // somebody has logged in anew here: another key cannot be shown in this session
		case now.leaf.Equal(last.leaf) && slices.Equal(now.statements, last.statements):
			continue
		}
		if err := s.Renew(a.state.Chain, now.statements); err != nil {
			a.m.log().Debug("certificate was not shown", "err", clean(err.Error()))
			return // the session is over
		}
		last = now
		a.m.log().Debug("certificate shown", "session", clean(s.offer.Session), "until", now.leaf.NotAfter.UTC())
	}
}
