package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// endTimeout bounds the orderly end of a session: the user has pressed ^C and waits. When it is over the server learns
// of the end from the Runtime.
const endTimeout = 5 * time.Second

// live is an open session with a device. Only the goroutine that owns the Account ends it.
type live struct {
	*session.Session
	offer   wire.Offer
	account *Account
	stop    context.CancelFunc // of all that runs beside it
	beside  sync.WaitGroup     // takes what the Runtime says of the owner, and shows what is new of this user
}

// Close ends the session.
func (s *live) Close() error {
	s.stop()
	err := s.Session.Close()
	s.beside.Wait()
	return err
}

// exchange tells the Runtime what it lacks of the owner's lists, which any honest technician brings past a server that
// withholds them, waits until it has let us in, and takes what this end lacks.
func (s *live) exchange(ctx context.Context, verdict identity.Verdict) error {
	peer, err := s.Peer(ctx)
	if err != nil {
		return err
	}
	news := s.account.state.owner.News(peer.DomainKey, peer.List, identity.MaxSerial)
	if verdict.Device.Serial > peer.Device {
		news = append(news, s.offer.Statements...)
	}
	reset := s.account.state.owner.Reset(peer.DomainKey)
	// As far as a line may carry it: the lists come first, which are what protects.
	for len(news) > 0 || reset != nil {
		b, err := json.Marshal(wire.Statements{Statements: news, DomainReset: reset})
		if err == nil {
			err = s.Tell(b)
		}
		if err == nil {
			break
		}
		if transport.ReasonOf(err) != transport.Protocol || s.Err() != nil || len(news) == 0 {
			return err
		}
		news = news[:len(news)-1]
	}
	return s.Ready(ctx)
}

// listen takes statements of the Runtime until the session is over.
func (s *live) listen() {
	for {
		b, err := s.Told(context.Background()) // ends with the session
		if err != nil {
			return
		}
		var m wire.Statements
		if json.Unmarshal(b, &m) != nil {
			continue
		}
		err = s.account.meet(m.DomainReset, m.Statements)
		if err == nil {
			_, err = s.account.state.owner.Take(m.Statements, s.account.m.now())
		}
		if err != nil {
			s.account.m.log().Warn("statements were not kept", "err", clean(err.Error()))
		}
	}
}

// open makes a session with a device.
func (a *Account) open(ctx context.Context, device string) (*live, error) {
	o := opener{account: a, device: device, tell: func(string) {}}
	return o.next(ctx)
}

// opener makes sessions with one device, one after the other. A session that was lost, or could not be joined, is moved
// to another relay while the Access Server still has it. A move keeps the session's id, under which the audit has it
// from its beginning to its end. It is for one goroutine. What it remembers is the offer, since a move names the epoch
// that was lost (access §5.2).
type opener struct {
	account *Account
	device  string
	tell    func(what string) // called when a session is moved, or replaced by a new one

	offer *wire.Offer      // of the present session; nil: the next one is new
	why   transport.Reason // the present one has to be moved
}

// lost records why the session ended, and whether the next one is a new one.
func (o *opener) lost(s *live) {
	if o.why = transport.ReasonOf(s.Err()); remedyOf(o.why) != move {
		o.offer = nil
	}
}

// next makes a session. A session whose relay cannot be joined is moved at once, but only once: then the caller waits.
// The second try is for the relay that has died since it was chosen.
func (o *opener) next(ctx context.Context) (s *live, err error) {
	for range 2 {
		if err = o.ask(ctx); err != nil {
			return nil, err
		}
		if s, err = o.account.join(ctx, o.device, *o.offer); err == nil || ctx.Err() != nil {
			return s, err
		}
		o.why = transport.ReasonOf(err)
		if o.why == transport.WrongPeer { // another relay would not help
			o.offer = nil
			return nil, err
		}
	}
	return nil, err
}

// ask gets an offer: of the present session at another relay, or else of a new session.
func (o *opener) ask(ctx context.Context) error {
	if o.offer != nil {
		offer, err := o.account.move(ctx, o.device, *o.offer, o.why)
		if err == nil {
			o.offer = &offer
			o.tell("moved to relay " + offer.Relay.Name)
		}
		if err == nil || !isGone(err) {
			return err
		}
		o.offer = nil
		o.tell("opening a new session")
	}
	offer, err := o.account.request(ctx, o.device)
	if err == nil {
		o.offer = &offer
	}
	return err
}

// isGone reports whether err says that the session cannot be moved: it has ended, or an older server has no moves.
func isGone(err error) bool {
	return slices.Contains([]transport.Reason{api.NotFound, transport.Closed, transport.SessionMax, transport.SessionIdle, transport.NoDevice, api.BadRequest, api.MethodNotAllowed,
		transport.Protocol, transport.Unsupported}, transport.ReasonOf(err))
}

// request asks for a new session (access §5.1).
func (a *Account) request(ctx context.Context, device string) (offer wire.Offer, err error) {
	if err := checkTyped(device); err != nil {
		return offer, err
	}
	a.m.progress("asking for a session with " + device)
	return a.offer(ctx, "open session with "+device, "/sessions", api.SessionRequest{Device: device, SessionVersion: wire.SessionVersion})
}

// move asks for the session of an offer to go on at another relay (access §5.2). An offer for its epoch or an older one is
// stale: the other end is not at that relay.
func (a *Account) move(ctx context.Context, device string, old wire.Offer, why transport.Reason) (wire.Offer, error) {
	op := "move session with " + device
	a.m.progress("asking to " + op)
	offer, err := a.offer(ctx, op, "/sessions/"+url.PathEscape(old.Session)+"/move", api.MoveRequest{Epoch: old.Epoch, Reason: why})
	// To follow it would mean to wait 15 s at a relay for an end that has left.
	if err == nil && (offer.Session != old.Session || offer.Epoch <= old.Epoch) {
		err = fail(transport.Protocol, op, fmt.Errorf("stale offer: session %q, epoch %d", offer.Session, offer.Epoch))
	}
	return offer, err
}

// offer makes a request that is answered by an offer, and checks that this program supports it.
func (a *Account) offer(ctx context.Context, op, path string, in any) (wire.Offer, error) {
	var answer api.SessionAnswer
	err := a.do(ctx, op, http.MethodPost, path, in, &answer)
	if o := answer.Offer; err == nil && o.Role != wire.RoleManager {
		err = fail(transport.Unsupported, op, fmt.Errorf("offer for role %q", o.Role))
	}
	return answer.Offer, err
}

// join follows an offer (wire §5). The certificate is read anew: it may have been renewed since the last session.
func (a *Account) join(ctx context.Context, device string, offer wire.Offer) (*live, error) {
	verdict, err := a.judge(ctx, device, offer)
	if err != nil {
		return nil, err
	}
	if err := a.askAgain(ctx); err != nil {
		return nil, err
	}
	a.m.progress("joining at relay " + offer.Relay.Name)
	list, _ := a.state.owner.Serials()
	last := shown{a.state.Chain[0], a.state.owner.Chain()}
	joined, err := session.Join(ctx, session.Config{
		Dialer: a.dialer, Certificate: *a.cert.Load(), Roots: a.state.roots, Offer: offer, Now: a.m.Now,
		Hello: mux.Hello{DomainKey: a.state.owner.Pinned().Key.SPKI(), List: list, Device: verdict.Device.Serial, Statements: last.statements}})
	if err != nil {
		return nil, fmt.Errorf("open session with %s: %w", device, err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &live{Session: joined, offer: offer, account: a, stop: stop}
	s.beside.Go(s.listen)
	// The Runtime's answer to our certificate and statements: a session that it refuses is no session.
	if err := s.exchange(ctx, verdict); err != nil {
		s.Close()
		if transport.ReasonOf(err) == transport.Expired { // his statement is over, and not the login
			err = fail(transport.NotStated, "be let in", err)
		}
		return nil, fmt.Errorf("open session with %s: %w", device, err)
	}
	another := a.beside()
	s.beside.Go(func() { s.keepShown(running, another, last) })
	a.m.progress("")
	a.m.log().Info("session up", "session", clean(offer.Session), "relay", clean(offer.Relay.Name))
	return s, nil
}

// end tells the Access Server that the session is over, and closes it. It works after ctx has ended.
func (a *Account) end(ctx context.Context, s *live) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := a.do(ctx, "end session", http.MethodDelete, "/sessions/"+url.PathEscape(s.offer.Session), nil, nil)
	if err != nil { // the Runtime reports the end too
		a.m.log().Debug("session was not ended at the server", "session", clean(s.offer.Session), "err", clean(err.Error()))
	}
	s.Close()
}
