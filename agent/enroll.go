package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"hawser/identity"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// EnrollOptions is what somebody at the gateway gives for the first contact.
type EnrollOptions struct {
	Code identity.OwnerCode // made by an admin's Manager
	Pin  identity.SPKI      // of the root; used when Config.Roots is nil
}

// ErrEnrolled: the state directory holds an identity already.
var ErrEnrolled = errors.New("already enrolled")

// Enroll fetches the identity, and the owner's word that it is the right one, and stores both (access §2, identity §13.3).
// It blocks until a server has answered or every way has failed once. The code is stored nowhere, and of it the server
// gets what opens its answer only. After a power cut the same call gets the same identity, because the key was stored
// first. Errors: ErrEnrolled, and whatever has a transport.Reason. It is no state of Run: a person stands there with a code,
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
	return a.enroll(ctx, client, e.Code, false)
}

// enroll uses a code; claim: it is the gateway's own.
func (a *Agent) enroll(ctx context.Context, client *control.Client, code identity.OwnerCode, claim bool) (*Self, error) {
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
	auth := code.Auth()
	m, err := conn.Enroll(ctx, wire.Enroll{Lookup: code.LookupID(), Auth: auth[:], CSR: csr, Hints: a.board.Hints(), Claim: claim})
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
	domainKey, chain, err := a.invited(m.Invitation, code, rootOf(conn), self)
	if err != nil {
		return nil, &transport.Error{Reason: invitationReason(err), Op: "check the owner's invitation from " + conn.Candidate.Where(),
			Err: fmt.Errorf("%w: nothing was stored", err)}
	}
	if err := a.saveOwned(m, self, domainKey, chain, conn.Roots); err != nil {
		return nil, err
	}
	// The signed time of this connection is the floor from now on, also if the power is cut before the service starts.
	a.saveState()
	if identity.CheckDisplayName(m.Name) == nil {
		self.Label = m.Name
	}
	self.DomainKey = domainKey.SPKI()
	return self, a.store.dropClaim()
}

// rootOf is the key of the root that this connection leads to, which the owner's Manager means as well.
func rootOf(conn *control.Conn) identity.SPKI {
	return identity.CertSPKI(conn.Chain[len(conn.Chain)-1])
}

// invited checks that whoever made the code said this, and that it makes the gateway a device of the domain. It returns the
// domain key, and the gateway's chain of statements, with its own about its key. A list that whoever signed knew comes
// later: lists do not make a device.
func (a *Agent) invited(i wire.Invitation, code identity.OwnerCode, root identity.SPKI, self *Self) (identity.PublicKey, []string, error) {
	key, chain, err := i.Open(code, root, self.Name, self.Cert.Leaf.PublicKey, "")
	if err != nil {
		return key, nil, fmt.Errorf("the server does not have this invitation from whoever made the code: %w", err)
	}
	v := identity.Verifier{Pinned: identity.Pinned{Domain: self.Name.Domain, Key: key}}
	if _, err = v.Judge(chain, self.peer(), a.clock.Now()); identity.FaultOf(err) == identity.FaultStale {
		err = nil
	}
	return key, chain, err
}

// invitationReason is not-stated also for an answer that is none, or of which the MAC or a signature is wrong: no
// certificate is bad then, but the server has it from somebody else than the maker of the code.
func invitationReason(err error) transport.Reason {
	switch fault := identity.FaultOf(err); fault {
	case identity.FaultRevoked, identity.FaultExpired, identity.FaultListFull, identity.FaultInviteUsedTwice:
		return transport.Reason(fault)
	}
	return transport.NotStated
}

// saveOwned stores what the owner says before the identity: without identity.pem the gateway counts as not enrolled, so
// that after a power cut there is no identity without an owner.
func (a *Agent) saveOwned(m wire.Identity, self *Self, key identity.PublicKey, chain []string, roots *identity.Roots) error {
	known, err := owner.Create(a.store.dir, self.peer(), key)
	if err != nil {
		return err
	}
	if err := known.EnrolledBy(chain, a.clock.Now()); err != nil {
		return err
	}
	if _, err := known.Take(slices.Concat(chain, m.Lists), a.clock.Now()); err != nil {
		return err
	}
	return a.store.saveIdentity([]byte(m.Chain), roots)
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
