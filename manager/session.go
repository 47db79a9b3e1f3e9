package manager

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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

// open makes a session with a device.
func (a *Account) open(ctx context.Context, device string) (*live, error) {
	p := path{account: a, device: device, tell: func(string) {}}
	return p.next(ctx)
}

// path makes sessions with one device, each when the one before is over. What was lost, or could not be joined, is moved to
// another relay for as long as the Access Server has it.
type path struct {
	account *Account
	device  string
	tell    func(what string) // told when a session is moved, or given up for a new one

	offer *wire.Offer      // of the present session; nil: the next is a new one
	why   transport.Reason // it has to be moved
}

// lost says that the session is over.
func (p *path) lost(s *live) { p.why = transport.ReasonOf(s.Err()) }

// next makes a session. A relay that cannot be joined is taken for lost at once, but only once: the caller waits then.
func (p *path) next(ctx context.Context) (s *live, err error) {
	for range 2 {
		if err = p.ask(ctx); err != nil {
			return nil, err
		}
		if s, err = p.account.join(ctx, p.device, *p.offer); err == nil || ctx.Err() != nil {
			return s, err
		}
		p.why = transport.ReasonOf(err)
		if p.why == transport.WrongPeer { // nothing that another relay would cure
			p.offer = nil
			return nil, err
		}
	}
	return nil, err
}

// ask gets the offer of the session that goes on at another relay, or else of a new one.
func (p *path) ask(ctx context.Context) error {
	if p.offer != nil {
		offer, err := p.account.move(ctx, p.device, *p.offer, p.why)
		if err == nil {
			p.offer = &offer
			p.tell("moved to relay " + offer.Relay.Name)
		}
		if err == nil || !isGone(err) {
			return err
		}
		p.offer = nil
		p.tell("opening a new session")
	}
	offer, err := p.account.request(ctx, p.device)
	if err == nil {
		p.offer = &offer
	}
	return err
}

// isGone reports whether err says that there is nothing to be moved, or nobody who can: a server of before.
func isGone(err error) bool {
	return slices.Contains([]transport.Reason{NotFound, transport.Closed, transport.NoDevice, BadRequest, MethodNotAllowed,
		transport.Protocol, transport.Unsupported}, transport.ReasonOf(err))
}

// request asks for a new session (access §5.1).
func (a *Account) request(ctx context.Context, device string) (offer wire.Offer, err error) {
	if err := identity.CheckDisplayName(device); err != nil {
		return offer, usage("device: neither a UID nor a name: %w", err)
	}
	a.m.progress("asking for a session with " + device)
	in := struct {
		Device string `json:"device"`
	}{device}
	return a.offer(ctx, "open session with "+device, "/sessions", in)
}

// move asks for the session of an offer to go on at another relay (access §5.2). An offer for its epoch or an older one is
// stale: the other end is not there any more, or never was.
func (a *Account) move(ctx context.Context, device string, old wire.Offer, why transport.Reason) (wire.Offer, error) {
	op := "move session with " + device
	a.m.progress("asking to " + op)
	in := struct {
		Epoch  int              `json:"epoch"`
		Reason transport.Reason `json:"reason"`
	}{old.Epoch, why}
	offer, err := a.offer(ctx, op, "/sessions/"+url.PathEscape(old.Session)+"/move", in)
	if err == nil && (offer.Session != old.Session || offer.Epoch <= old.Epoch) {
		err = fail(transport.Protocol, op, fmt.Errorf("stale offer: session %q, epoch %d", offer.Session, offer.Epoch))
	}
	return offer, err
}

// offer makes a request that is answered by an offer, and checks that we can follow it.
func (a *Account) offer(ctx context.Context, op, path string, in any) (wire.Offer, error) {
	var answer struct {
		Offer wire.Offer `json:"offer"`
	}
	err := a.do(ctx, op, http.MethodPost, path, in, &answer)
	if o := answer.Offer; err == nil && (o.Role != wire.RoleManager || o.Crypto != wire.CryptoNested) {
		err = fail(transport.Unsupported, op, fmt.Errorf("offer for role %q, crypto %q", o.Role, o.Crypto))
	}
	return answer.Offer, err
}

// join follows an offer (wire §5).
func (a *Account) join(ctx context.Context, device string, offer wire.Offer) (*live, error) {
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
