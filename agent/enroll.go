package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// EnrollOptions is what somebody at the gateway gives for the first contact.
type EnrollOptions struct {
	Code identity.Code // activation code
	Pin  identity.SPKI // of the root; used when Config.Roots is nil
}

// ErrEnrolled: the state directory holds an identity already.
var ErrEnrolled = errors.New("already enrolled")

// Enroll fetches the identity and stores it (access §2). It blocks until a server
// has answered or every way has failed once. The code is stored nowhere. After a
// power cut the same call gets the same identity, because the key was stored first.
// Errors: ErrEnrolled, and whatever has a transport.Reason. It is no state of Run: a person stands there with a code,
// and wants one answer and not a retry for ever. The running agent finds the identity by polling (awaitIdentity).
func Enroll(ctx context.Context, o Options, e EnrollOptions) (*Self, error) {
	a, err := New(o)
	if err != nil {
		return nil, err
	}
	if _, err := a.store.self(); !errors.Is(err, ErrNotEnrolled) {
		if err == nil {
			err = fmt.Errorf("%w: %s holds an identity; to replace it, stop the agent, give hawser-agent identity reset --yes, and enroll again", ErrEnrolled, o.Config.Data)
		}
		return nil, err
	}
	client := a.client(nil)
	client.Roots, client.Pin = o.Config.Roots, e.Pin
	return a.enroll(ctx, client, e.Code)
}

func (a *Agent) enroll(ctx context.Context, client *control.Client, code identity.Code) (*Self, error) {
	// Before the dial: a full disk must show before the code is spent.
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
	m, err := conn.Enroll(ctx, code, csr, a.board.Hints())
	if err != nil {
		return nil, err
	}
	self, err := newSelf([]byte(m.Chain), key, conn.Roots)
	// What a person was told and what the certificate says must be one device, or the gateway shows up under another
	// name.
	if err == nil && self.Name != identity.DeviceName(m.Domain, m.UID) {
		err = fmt.Errorf("the answer is for %s in %s, its certificate for %s", m.UID, m.Domain, self.Name)
	}
	if err != nil {
		return nil, &transport.Error{Reason: transport.BadCertificate, Op: "check identity from " + conn.Candidate.Where(), Err: err}
	}
	if err := a.store.saveIdentity([]byte(m.Chain), conn.Roots); err != nil {
		return nil, err
	}
	// The signed time of this connection is the floor from now on, also if the power is cut before the service starts.
	a.saveState()
	if identity.CheckDisplayName(m.Name) == nil {
		self.Label = m.Name
	}
	return self, nil
}

// renew gets a new certificate for the same key over conn, on which nothing was said before, stores it and uses it from
// now on. It closes conn. The present certificate stays in use until the new one is stored: a renewal that fails half
// way costs nothing (a key that was erased too early is how Azure/iot-identity-service#392 lost devices). The key stays
// the same for the life of the device: the registry knows the device by it, and peers pin it (access §3).
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
