package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// From wire §5.4.
const (
	echoRounds  = 5
	echoTimeout = 2 * time.Second
)

// Ours to tune.
const (
	echoBytes      = 64
	relayBudget    = 15 * time.Second // the search for a way included
	relaysMeasured = 3                // at once; more would slow each other down
)

// MeasureRelays measures every relay (wire §5.4): the search for a way and the
// TLS handshake, as a session has them, and then a few frames that come back.
// Each relay must prove its name under roots; the dialer shows ours.
//
// It blocks until all are measured, three at once, each within 15 s. The results are
// in the order of relays: numbers, or a reason. When ctx ends first, relays without a
// result are left out. Echo frames inside TLS and not ICMP: what counts is the path of a session, and many firewalls
// drop pings. Of 32 relays that are all down, the last is done in less than three minutes.
func MeasureRelays(ctx context.Context, dialer *transport.Dialer, roots *identity.Roots, relays []wire.Relay) []wire.Measurement {
	all := make([]wire.Measurement, len(relays))
	slots := make(chan struct{}, relaysMeasured)
	var wg sync.WaitGroup
	for i, r := range relays {
		slots <- struct{}{} // soon free again, since every measurement ends with ctx
		wg.Go(func() {
			defer func() { <-slots }()
			if m := measureRelay(ctx, dialer, roots, r); ctx.Err() == nil {
				all[i] = m
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(m wire.Measurement) bool { return m.Name == "" })
}

// measureRelay measures one.
func measureRelay(ctx context.Context, dialer *transport.Dialer, roots *identity.Roots, r wire.Relay) wire.Measurement {
	ctx, cancel := context.WithTimeout(ctx, relayBudget)
	defer cancel()
	conn, err := dialer.Dial(ctx, transport.Target{Hosts: r.Hosts, Ports: r.Ports,
		ALPN: transport.ALPNRelay, Name: identity.RelayName(r.Name), Roots: roots})
	if err != nil {
		return wire.Measurement{Name: r.Name, Reason: transport.ReasonOf(err)}
	}
	defer conn.NetConn().Close() // without close_notify, which the relay would count as a frame that is no echo
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	e := echoes{conn: conn}
	if err := e.run(); err != nil {
		if ctx.Err() != nil { // then it is a connection that we have closed
			err = ctx.Err()
		}
		return wire.Measurement{Name: r.Name, Reason: transport.ReasonOf(err)}
	}
	rtt, jitter, loss := summarize(e.trips, echoRounds)
	return wire.Measurement{Name: r.Name, RTTUS: rtt.Microseconds(), JitterUS: jitter.Microseconds(), LossPct: loss,
		Port: conn.Candidate.Port(), Way: conn.Candidate.Way()}
}

// errChanged: a frame came back with other bytes.
var errChanged error = &transport.Error{Reason: transport.Protocol, Op: "read echo", Err: errors.New("other bytes came back")}

// echoes are the frames sent to one relay, with their results.
type echoes struct {
	conn  *transport.Conn
	trips []time.Duration // of those that came back, in order
	late  [][]byte        // those that did not come back in time, and may still
}

// run sends all frames, one after the other. It fails when none came back, and
// when the connection ends or the relay refuses. A lost frame does not end it, since loss is one of the numbers; a
// relay that refuses does.
func (e *echoes) run() error {
	var lost error
	for range echoRounds {
		trip, err := e.round()
		switch {
		case err == nil:
			e.trips = append(e.trips, trip)
		case errors.Is(err, errChanged) || transport.ReasonOf(err) == transport.Timeout:
			lost = err
		default:
			return err
		}
	}
	if len(e.trips) == 0 {
		return lost
	}
	return nil
}

// round sends one frame and waits until it comes back. Its bytes are random,
// so that a relay cannot answer before it was asked.
func (e *echoes) round() (time.Duration, error) {
	payload := make([]byte, echoBytes)
	rand.Read(payload)
	begin := time.Now()
	e.conn.SetDeadline(begin.Add(echoTimeout))
	if err := wire.Write(e.conn, wire.TypeEcho, payload); err != nil {
		return 0, err
	}
	for {
		f, err := wire.Expect(e.conn, wire.TypeEcho)
		switch {
		case err != nil:
			e.late = append(e.late, payload)
			return 0, err
		case bytes.Equal(f.Payload, payload):
			return time.Since(begin), nil
		case !e.wasLate(f.Payload):
			return 0, errChanged
		}
	}
}

// wasLate reports whether b is a frame that was counted as lost before. Each may come
// back once; a second time it is a wrong answer.
func (e *echoes) wasLate(b []byte) bool {
	i := slices.IndexFunc(e.late, func(p []byte) bool { return bytes.Equal(p, b) })
	if i >= 0 {
		e.late = slices.Delete(e.late, i, i+1)
	}
	return i >= 0
}

// summarize gives the median of some round trips, the mean of the differences
// between successive ones (RFC 3550 §6.4.1 without its smoothing), and how many
// percent of the frames were lost. trips is not empty. A median, because one frame that waits behind a download would
// move a mean of five by a lot.
func summarize(trips []time.Duration, sent int) (rtt, jitter time.Duration, lossPct int) {
	for i, t := range trips[1:] {
		jitter += (t - trips[i]).Abs()
	}
	jitter /= time.Duration(max(len(trips)-1, 1))
	sorted := slices.Sorted(slices.Values(trips))
	mid := len(sorted) / 2
	rtt = (sorted[mid] + sorted[(len(sorted)-1)/2]) / 2
	return rtt, jitter, (100*(sent-len(trips)) + sent/2) / sent
}
