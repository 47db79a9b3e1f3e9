// Package thieftest is somebody who has stolen an Access Server: its directory with every key but the root's, its store, and its
// addresses. It shows what he gets (docs/threats.md).
package thieftest

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// user is who the thief makes himself.
const user = "mallory"

// Thief is logged in as an admin whom the owner never stated.
type Thief struct {
	Owner *identitytest.Owner // of the domain key that he has made

	domain string
	code   identity.Code
	client *accesstest.Client
	device *store.Member // that he wants
	roots  *identity.Roots
}

// Forge makes a stolen store, which no process has open, say that its domain has the thief's key, and that there is a user
// with a founder's code. uid is the device that he wants.
func Forge(ctx context.Context, o store.Options, domain, uid string, roots *identity.Roots) (t *Thief, err error) {
	t = &Thief{Owner: identitytest.NewOwner(domain), domain: domain, code: identity.NewCode(), client: accesstest.NewClient(),
		device: &store.Member{Kind: identity.KindDevice, ID: uid}, roots: roots}
	st, err := store.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return t, st.Update(ctx, func(tx *store.Tx) error {
		d := store.Domain{Name: domain}
		if err := errors.Join(tx.Get(&d), tx.Get(t.device)); err != nil {
			return err
		}
		d.Key = t.Owner.Key
		now := time.Now().UTC()
		return errors.Join(tx.Put(&d), tx.Put(&store.User{Domain: domain, Name: user, Created: now}),
			tx.Insert(&store.Code{Lookup: t.code.LookupID(), Kind: identity.KindUser, Domain: domain, Subject: user,
				Hash: t.code.Hash(), Expires: now.Add(time.Hour)}))
	})
}

// Login logs in at the stolen server, and states the device by the thief's key, so that the server finds a chain for it.
func (t *Thief) Login(ctx context.Context, addr string) error {
	request := api.LoginRequest{Code: t.code.String(), User: user, CSR: t.client.CSR(), DomainKey: t.Owner.Key,
		Statements: t.Chain()}
	var answer api.LoginAnswer
	if err := t.ask(ctx, addr, nil, "/login", request, &answer); err != nil {
		return err
	}
	if err := t.client.Take(answer.Chain); err != nil {
		return err
	}
	key, err := t.deviceKey()
	if err != nil {
		return err
	}
	uid := t.device.UID()
	return t.ask(ctx, addr, t.client, "/statements", api.Statements{Statements: t.Owner.DeviceChain(uid, t.device.Name, key)}, nil)
}

// Key is the thief's own key, and Chain states him as an admin by the domain key that he has made.
func (t *Thief) Key() crypto.PublicKey { return t.client.Key.Public() }

// Chain is what he shows of himself.
func (t *Thief) Chain() []string {
	return t.Owner.UserChain(user, identity.RoleAdmin, nil, t.Key())
}

func (t *Thief) deviceKey() (crypto.PublicKey, error) {
	chain, err := identity.ParseChain([]byte(t.device.Chain))
	if err != nil {
		return nil, err
	}
	return chain[0].PublicKey, nil
}

// Open asks the stolen server for a session with the device, joins it, and shows a chain to the gateway. He believes
// whatever answers. The error is the gateway's.
func (t *Thief) Open(ctx context.Context, addr string, chain []string) (*session.Session, error) {
	var answer api.SessionAnswer
	ask := api.SessionRequest{Device: t.device.ID, SessionVersion: wire.SessionVersion}
	if err := t.ask(ctx, addr, t.client, "/sessions", ask, &answer); err != nil {
		return nil, fmt.Errorf("the server gives no session: %w", err)
	}
	cert := identitytest.Certificate(t.client.Key, t.client.Chain)
	d := &transport.Dialer{Certificate: func() *tls.Certificate { return &cert },
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no names here") }}
	s, err := session.Join(ctx, session.Config{Dialer: d, Certificate: cert, Roots: t.roots, Offer: answer.Offer,
		Hello: mux.Hello{Statements: chain}})
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (t *Thief) ask(ctx context.Context, addr string, c *accesstest.Client, path string, body, answer any) error {
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Minute}, Config: c.TLS(transport.ALPNAPI)}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return apitest.Post(conn, path, body, answer)
}
