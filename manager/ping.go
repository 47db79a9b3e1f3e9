package manager

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

const (
	// Random bytes of that length do not repeat by chance, and fit into one record, so nothing is measured but the
	// path.
	pingBytes = 16
	// The gap begins with the answer, so that a slow path is asked no faster than it answers, and the numbers are not
	// of a queue.
	pingGap     = 250 * time.Millisecond // between an answer and the next question
	pingTimeout = 15 * time.Second       // over the 9 s after which the session itself is lost
	// MaxPing is how many rounds one Ping can ask for. It bounds the memory for the median, and, at four rounds a
	// second, the run to less than an hour.
	MaxPing = 10000
)

// PingResult sums up the rounds of a Ping. Times are in milliseconds, over the whole path and back.
type PingResult struct {
	Device   string  `json:"device"`
	Relay    string  `json:"relay"`
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	Min      float64 `json:"min_ms"`
	Median   float64 `json:"median_ms"`
	Max      float64 `json:"max_ms"`
}

// Ping measures the path to a device, end to end: count rounds of a few bytes that the Runtime sends back. each, if not
// nil, is called for every answer. After an error the result covers the rounds before it. The bytes go through relay
// and inner TLS as those of a tool do, so the numbers are what a tool will see.
func (a *Account) Ping(ctx context.Context, device string, count int, each func(round int, rtt time.Duration)) (PingResult, error) {
	if count < 1 || count > MaxPing {
		return PingResult{}, usage("count %d: want 1 to %d", count, MaxPing)
	}
	s, err := a.open(ctx, device)
	if err != nil {
		return PingResult{}, err
	}
	defer a.end(ctx, s)
	result := PingResult{Device: device, Relay: s.offer.Relay.Name}
	stream, err := s.Open(ctx, mux.Open{Service: wire.ServicePing})
	if err != nil {
		return result, fmt.Errorf("ping %s: %w", device, err)
	}
	defer stream.Close()
	// A deadline that has passed ends the read that waits; streams know no context.
	defer context.AfterFunc(ctx, func() { stream.SetDeadline(time.Unix(1, 0)) })()
	var times []time.Duration
	for round := range count {
		if round > 0 && !wait.Sleep(ctx, pingGap) {
			break
		}
		result.Sent++
		rtt, err := pingOnce(ctx, stream)
		if err != nil {
			return result.sum(times), pingError(ctx, device, s, err)
		}
		times = append(times, rtt)
		if each != nil {
			each(round+1, rtt)
		}
	}
	return result.sum(times), ctx.Err()
}

// pingOnce sends random bytes, so that it recognises its answer. When ctx ends, the caller moves the deadline.
func pingOnce(ctx context.Context, stream net.Conn) (time.Duration, error) {
	var out, in [pingBytes]byte
	rand.Read(out[:])
	stream.SetDeadline(time.Now().Add(pingTimeout))
	if ctx.Err() != nil { // checked after the deadline is set: if ctx ends later, the caller replaces that deadline
		return 0, ctx.Err()
	}
	begin := time.Now()
	if _, err := stream.Write(out[:]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(stream, in[:]); err != nil {
		return 0, err
	}
	if !bytes.Equal(in[:], out[:]) {
		return 0, fail(transport.Protocol, "read answer", errors.New("other bytes came back"))
	}
	return time.Since(begin), nil
}

// pingError prefers the session's reason to that of the broken stream.
func pingError(ctx context.Context, device string, s *live, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if ended(s) {
		err = s.Err()
	}
	return fail(transport.ReasonOf(err), "ping "+device, err)
}

// sum fills in the numbers; the median of an even count is the mean of the middle two.
func (r PingResult) sum(times []time.Duration) PingResult {
	r.Received = len(times)
	if len(times) == 0 {
		return r
	}
	slices.Sort(times)
	r.Min, r.Max = milliseconds(times[0]), milliseconds(times[len(times)-1])
	mid := len(times) / 2
	r.Median = milliseconds((times[mid] + times[(len(times)-1)/2]) / 2)
	return r
}

// milliseconds rounds to microseconds: more is noise.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond).Microseconds()) / 1000
}

// WritePing sums up in one line.
func WritePing(w io.Writer, r PingResult) error {
	_, err := fmt.Fprintln(w, clean(fmt.Sprintf("%s via relay %s: %d sent, %d received, min/median/max %.1f/%.1f/%.1f ms",
		r.Device, r.Relay, r.Sent, r.Received, r.Min, r.Median, r.Max)))
	return err
}
