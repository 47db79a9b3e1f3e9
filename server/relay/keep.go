package relay

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"hawser/transport"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// Waiting after a failure: full jitter below a bound that doubles (access §3
// lets a whole fleet renew against one server that comes back).
const (
	firstWait = time.Second
	longWait  = time.Minute
	// lookAgain is how often the wall clock is asked whether it is time to
	// renew: a timer alone does not notice that the clock was set.
	lookAgain = time.Hour
	loadPause = 10 * time.Second // between two loads (wire §4.8)
)

// errNoCode: there is nothing to enrol with, and no use in asking.
var errNoCode = errors.New("not enrolled, and no activation code is given")

// keepIdentity enrols if the relay has no identity, and renews it for ever
// after. It returns nil when ctx is cancelled, and an error only for what no
// waiting will cure.
func (s *Server) keepIdentity(ctx context.Context) error {
	tries := 0
	for ctx.Err() == nil {
		if wait := s.untilRenewal(); wait > 0 {
			sleep(ctx, min(wait, lookAgain))
			continue
		}
		err := s.refresh(ctx)
		switch {
		case errors.Is(err, errNoCode):
			return err
		case err == nil:
			tries = 0
			s.log.Info("relay has an identity", "relay", s.own.Load().name.ID)
			continue
		case ctx.Err() != nil:
			return nil
		}
		s.log.Warn("relay has to try again for an identity", "reason", string(transport.ReasonOf(err)), "err", err)
		sleep(ctx, backoff(tries, err))
		tries++
	}
	return nil
}

// untilRenewal is how long the present identity is good enough.
func (s *Server) untilRenewal() time.Duration {
	own := s.own.Load()
	if own == nil {
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
	if code == "" {
		var err error
		if code, err = s.home.code(); err != nil {
			return err
		}
	}
	if code == "" {
		return fmt.Errorf("%w: put one of hawser relay add into %s and start again", errNoCode, s.home.path(codeFile))
	}
	return s.enrol(ctx, code)
}

// keepRegistered holds a control connection, so that Access Servers know the
// relay, until ctx is cancelled.
func (s *Server) keepRegistered(ctx context.Context) {
	select {
	case <-s.enrolled:
	case <-ctx.Done():
		return
	}
	for tries := 0; ctx.Err() == nil; tries++ {
		began := time.Now()
		err := s.register(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longWait { // two relays with one identity replace each other: not at full speed
			tries = 0
		}
		s.log.Warn("relay is not registered", "reason", string(transport.ReasonOf(err)), "err", err)
		sleep(ctx, backoff(tries, err))
	}
}

// register says hello and serves one control connection until it ends.
func (s *Server) register(ctx context.Context) error {
	conn, err := s.client.Connect(ctx)
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
	s.log.Info("relay is registered", "relay", s.own.Load().name.ID, "host", conn.Candidate.Host, "addr", conn.Candidate.Addr.String())
	linked, cancel := context.WithCancel(ctx)
	var report sync.WaitGroup
	report.Go(func() { s.reportLoad(linked, link) })
	defer report.Wait()
	defer cancel()
	return link.Run(ctx, control.Handler{
		EndSession: func(m wire.EndSession) { s.table.endSession(m.Session, m.Reason) },
		Revoked:    func(m wire.Revoked) { s.table.revoke(m.SPKI) },
	})
}

// reportLoad tells the Access Server how much the relay carries, now and when
// that has changed (wire §4.8), until ctx ends or the link fails, which its Run
// notices as well.
func (s *Server) reportLoad(ctx context.Context, link *control.Link) {
	for told := -1; ; {
		if pipes := s.table.load(); pipes != told {
			told = pipes
			if link.Load(wire.Load{Pipes: pipes, Max: s.config.MaxPipes}) != nil || !sleep(ctx, loadPause) {
				return
			}
		}
		select {
		case <-s.table.changed:
		case <-ctx.Done():
			return
		}
	}
}

// backoff is how long to wait after the failure number tries, counted from 0:
// never shorter than the server asked for.
func backoff(tries int, err error) time.Duration {
	bound := min(firstWait<<min(tries, 10), longWait)
	wait := random(bound)
	if refusal, ok := errors.AsType[*wire.Refusal](err); ok {
		wait += refusal.RetryAfter
	}
	return wait
}

// random returns a random duration below d.
func random(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(max(d, 1)))
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
