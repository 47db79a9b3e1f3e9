package manager

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// endTimeout bounds the good-bye of a session: the user has pressed ^C and waits.
const endTimeout = 5 * time.Second

// live is an open session with a device. Only the goroutine that owns the Account ends it.
type live struct {
	*session.Session
	offer wire.Offer
}

// open asks the Access Server for a session with a device and joins it (access §5.1, wire §5).
func (a *Account) open(ctx context.Context, device string) (*live, error) {
	if err := identity.CheckDisplayName(device); err != nil {
		return nil, usage("device: neither a UID nor a name: %w", err)
	}
	a.m.progress("asking for a session with " + device)
	request := struct {
		Device string `json:"device"`
	}{device}
	var answer struct {
		Offer wire.Offer `json:"offer"`
	}
	if err := a.do(ctx, "open session with "+device, http.MethodPost, "/sessions", request, &answer); err != nil {
		return nil, err
	}
	offer := answer.Offer
	if offer.Role != wire.RoleManager || offer.Crypto != wire.CryptoNested {
		return nil, fail(transport.Unsupported, "open session with "+device, fmt.Errorf("offer for role %q, crypto %q", offer.Role, offer.Crypto))
	}
	a.m.progress("joining at relay " + offer.Relay.Name)
	s, err := session.Join(ctx, session.Config{
		Dialer: a.dialer, Certificate: *a.cert.Load(), Roots: a.state.roots, Offer: offer, Now: a.m.Now})
	if err != nil {
		return nil, fmt.Errorf("open session with %s: %w", device, err)
	}
	a.m.progress("")
	a.m.log().Info("session up", "session", clean(offer.Session), "relay", clean(offer.Relay.Name))
	return &live{s, offer}, nil
}

// end tells the Access Server that the session is over, and closes it. It works after ctx has ended.
func (a *Account) end(ctx context.Context, s *live) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := a.do(ctx, "end session", http.MethodDelete, "/sessions/"+url.PathEscape(s.offer.Session), nil, nil)
	if err != nil { // the Runtime reports the end as well, when its stream of signs of life ends
		a.m.log().Debug("session was not ended at the server", "session", clean(s.offer.Session), "err", clean(err.Error()))
	}
	s.Close()
}
