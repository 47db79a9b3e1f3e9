package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// backoff is the wait after a failure. When a server comes back, all relays and gateways renew at once (access §3).
// Full jitter spreads them over the whole wait (gravitational/teleport#6889 and elastic/elastic-agent#13874 show what
// happens without).
func backoff() wait.Backoff { return wait.Backoff{First: time.Second, Longest: time.Minute} }

const (
	steady = time.Minute // a registration this long resets the back-off
	// lookAgain is how often the wall clock is checked for the time to renew,
	// since a timer does not notice that the clock was set.
	lookAgain = time.Hour
	loadPause = 10 * time.Second // between two loads (wire §4.8)
)

// errNoCode: there is no activation code, so no attempt to enroll can succeed.
var errNoCode = errors.New("not enrolled, and no activation code is given")

// keepIdentity enrolls if the relay has no identity, and then renews it until ctx is
// cancelled. It returns an error only if waiting cannot cure it.
func (s *Server) keepIdentity(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		if due := s.untilRenewal(); due > 0 {
			wait.Sleep(ctx, min(due, lookAgain))
			continue
		}
		err := s.refresh(ctx)
		switch {
		case errors.Is(err, errNoCode):
			return err
		case err == nil:
			failures = 0
			s.log.Info("relay has an identity", "relay", s.own.Load().name.ID)
			continue
		case ctx.Err() != nil:
			return nil
		}
		s.log.Warn("relay has to try again for an identity", "reason", string(transport.ReasonOf(err)), "err", err)
		failures++
		wait.Sleep(ctx, backoff().After(failures, control.RetryAfter(err)))
	}
	return nil
}

// untilRenewal is the time until the identity has to be renewed.
func (s *Server) untilRenewal() time.Duration {
	own := s.own.Load()
	if own == nil || s.config.Roots.Refuses(own.chain) {
		return 0
	}
	return own.renewAt.Sub(s.config.Now())
}

// refresh gets the first identity or the next one.
func (s *Server) refresh(ctx context.Context) error {
	if s.own.Load() != nil {
		return s.renew(ctx)
	}
	code := s.config.Code
	if code == (identity.Code{}) {
		var err error
		if code, err = s.home.code(); err != nil {
			return err
		}
	}
	if code == (identity.Code{}) {
		return fmt.Errorf("%w: put one of hawser relay add into %s and start again", errNoCode, s.home.path(codeFile))
	}
	return s.enroll(ctx, code)
}

// keepRegistered keeps the relay registered by a control connection, until ctx is
// cancelled.
func (s *Server) keepRegistered(ctx context.Context) {
	select {
	case <-s.enrolled:
	case <-ctx.Done():
		return
	}
	for failures := 1; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := s.register(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady { // sooner than that, two relays with one identity may be replacing each other
			failures = 1
		}
		s.log.Warn("relay is not registered", "reason", string(transport.ReasonOf(err)), "err", err)
		wait.Sleep(ctx, backoff().After(failures, control.RetryAfter(err)))
	}
}

// register says hello and serves one control connection until it ends.
func (s *Server) register(ctx context.Context) error {
	conn, err := s.client.Connect(ctx)
	if err == nil && s.config.Roots.Refuses(s.own.Load().chain) {
		// The server has just said so. Its answer to a hello would be the same.
		conn.Close()
		if err = s.renew(ctx); err == nil {
			conn, err = s.client.Connect(ctx)
		}
	}
	if err != nil {
		return err
	}
	link, err := conn.Control(ctx, wire.Hello{
		Version: s.config.Version, Instance: s.instance,
		Hosts: s.config.Hosts, Ports: s.config.ServePorts,
	})
	if err != nil {
		conn.Close()
		return err
	}
	s.log.Info("relay is registered", "relay", s.own.Load().name.ID, "host", conn.Candidate.Host, "addr", conn.Candidate.Where())
	s.counters.registered.Store(true)
	defer s.counters.registered.Store(false)
	linked, cancel := context.WithCancel(ctx)
	var report sync.WaitGroup
	report.Go(func() { s.reportLoad(linked, link) })
	defer report.Wait()
	defer cancel()
	return link.Run(ctx, control.Handler{
		EndSession: func(m wire.EndSession) { s.pairing.endSession(m.Session, m.Reason) },
		Revoked:    func(m wire.Revoked) { s.pairing.revoke(m.SPKI) },
	})
}

// reportLoad reports the relay's load, now and after each change (wire §4.8), until ctx
// ends or the link fails. Link.Run returns the error.
func (s *Server) reportLoad(ctx context.Context, link *control.Link) {
	// From -1, so that the first report is sent even by a relay that carries nothing: until then the Access Server
	// knows no maximum.
	for told := -1; ; {
		if pipes := s.pairing.load(); pipes != told {
			told = pipes
			if link.Load(wire.Load{Pipes: pipes, Max: s.config.MaxPipes}) != nil || !wait.Sleep(ctx, loadPause) {
				return
			}
		}
		select {
		case <-s.pairing.changed:
		case <-ctx.Done():
			return
		}
	}
}
