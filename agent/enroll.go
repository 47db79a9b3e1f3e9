package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// EnrollOptions is what an operator gives for the first contact.
type EnrollOptions struct {
	Code string        // activation code
	Pin  identity.SPKI // of the root; used when Config.Roots is nil
}

// ErrEnrolled: the state directory holds an identity already.
var ErrEnrolled = errors.New("already enrolled")

// Enroll fetches and stores the identity (access §2). It blocks until an answer
// came or every way has failed once. The code is kept nowhere. The same call
// after a power cut gets the same identity, because the key was stored first.
// Errors: ErrEnrolled, an *identity.Error for a mistyped code, and whatever has a
// transport.Reason.
func Enroll(ctx context.Context, o Options, e EnrollOptions) (*Self, error) {
	code, err := identity.ParseCode(e.Code)
	if err != nil {
		return nil, err
	}
	a, err := New(o)
	if err != nil {
		return nil, err
	}
	if _, err := a.store.self(); !errors.Is(err, ErrNotEnrolled) {
		if err == nil {
			err = fmt.Errorf("%w: %s holds an identity; remove it with hawser-agent identity reset", ErrEnrolled, o.Config.Data)
		}
		return nil, err
	}
	client := a.client(nil)
	client.Roots, client.Pin = o.Config.Roots, e.Pin
	return a.enroll(ctx, client, code)
}

func (a *Agent) enroll(ctx context.Context, client *control.Client, code identity.Code) (*Self, error) {
	key, err := a.store.key()
	if err != nil {
		return nil, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return nil, err
	}
	conn, err := client.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m, err := conn.Enrol(ctx, wire.Enrol{Code: code.String(), CSR: csr, Hints: a.board.Hints()})
	if err != nil {
		return nil, err
	}
	self, err := newSelf([]byte(m.Chain), key, conn.Roots)
	if err == nil && self.Name != identity.DeviceName(m.Domain, m.UID) {
		err = fmt.Errorf("the answer is for %s in %s, its certificate for %s", m.UID, m.Domain, self.Name)
	}
	if err != nil {
		return nil, &transport.Error{Reason: transport.BadCertificate, Op: "check identity from " + conn.Candidate.Addr.String(), Err: err}
	}
	if err := a.store.saveIdentity([]byte(m.Chain), conn.Roots); err != nil {
		return nil, err
	}
	a.saveState()
	if identity.CheckDisplayName(m.Name) == nil {
		self.Label = m.Name
	}
	return self, nil
}

// renew gets a new certificate for the same key on a fresh connection, which it
// closes, and puts it in force.
func (a *Agent) renew(ctx context.Context, conn *control.Conn) error {
	defer conn.Close()
	self := a.self.Load()
	key, ok := self.Cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return err
	}
	m, err := conn.Renew(ctx, wire.Renew{CSR: csr})
	if err != nil {
		return err
	}
	fresh, err := newSelf([]byte(m.Chain), key, self.Roots)
	if err == nil && fresh.Name != self.Name {
		err = fmt.Errorf("the certificate is for %s", fresh.Name)
	}
	if err != nil {
		return fmt.Errorf("check renewed identity: %w", err)
	}
	if err := a.store.saveIdentity([]byte(m.Chain), self.Roots); err != nil {
		return err
	}
	a.self.Store(fresh)
	a.log.Info("identity renewed", "uid", fresh.UID, "not_after", fresh.Cert.Leaf.NotAfter)
	return nil
}

// renewAt is half the certificate's life, ±10 %, so that devices that enrolled
// together do not renew together. fraction is uniform in [0, 1).
func renewAt(notBefore, notAfter time.Time, fraction float64) time.Time {
	life := notAfter.Sub(notBefore)
	return notBefore.Add(life/2 + time.Duration((fraction-0.5)*0.2*float64(life)))
}
