package probe

import (
	"fmt"
	"net/netip"
	"time"
)

// What a sample must keep to, time §3.
const (
	maxStratum      = 15
	notSynchronized = 3 // leap indicator, RFC 5905 §7.3
	maxDelay        = 3 * time.Second
	maxRootDistance = 1500 * time.Millisecond
)

// Sample is what one time server said: facts, not yet judged. Facts and judgement are apart so that netcheck can show
// what a server said that nobody believes.
type Sample struct {
	Source string         // as configured
	Addr   netip.AddrPort // that answered, or was asked last

	// Received is the local reading at the moment of the answer, and At the
	// server's time at that same moment, its era guessed to lie in 1970–2106.
	// Only differences of Received mean anything.
	Received, At time.Time

	RTT          time.Duration
	RootDistance time.Duration // greatest error of At that the server admits, with half the RTT (RFC 5905 §10)
	Stratum      uint8         // 1 is a reference clock
	Leap         uint8         // leap indicator, 3 means not synchronized
	ZeroStamp    bool          // the receive or the transmit stamp was zero
	Kiss         string        // code of a kiss-o'-death, such as "RATE"

	Err error // the query failed (a *TimeError): only Source and perhaps Addr mean anything
}

// TimeError says why the answer of a source, or of all, does not count.
type TimeError struct {
	Source string // "" for a whole round
	Reason Reason
	Detail string // for people
}

// Error is one line: the source, the reason, then the detail.
func (e *TimeError) Error() string {
	msg := "ask time"
	if e.Source != "" {
		msg += " of " + e.Source
	}
	msg += ": " + string(e.Reason)
	if e.Detail != "" {
		msg += " (" + e.Detail + ")"
	}
	return msg
}

// Offset is how far the server's clock is ahead of the local one: for
// reports, not for judging. It saturates at about 292 years.
func (s Sample) Offset() time.Duration { return s.At.Sub(s.Received) }

// Check says whether the sample counts (time §3): nil, or a *TimeError with
// the first reason found.
func (s Sample) Check(floor, ceiling time.Time) error {
	if s.Err != nil {
		return s.Err
	}
	at := unfold(s.At, floor)
	switch {
	case s.Kiss != "":
		return s.fail(ReasonKiss, "code %.4q", s.Kiss)
	case s.Leap == notSynchronized:
		return s.fail(ReasonUnsynchronized, "")
	case s.Stratum == 0 || s.Stratum > maxStratum:
		return s.fail(ReasonStratum, "%d", s.Stratum)
	case s.ZeroStamp:
		return s.fail(ReasonZeroStamp, "")
	case s.RTT < 0 || s.RTT > maxDelay:
		return s.fail(ReasonDelay, "%v", s.RTT)
	case s.RootDistance < 0 || s.RootDistance > maxRootDistance:
		return s.fail(ReasonRootDistance, "%v", s.RootDistance)
	case at.Before(floor):
		return s.fail(ReasonBeforeFloor, "%s", at.UTC().Format(time.RFC3339))
	case at.After(ceiling):
		return s.fail(ReasonBeyondCeiling, "%s", at.UTC().Format(time.RFC3339))
	}
	return nil
}

func (s Sample) fail(r Reason, format string, args ...any) *TimeError {
	return &TimeError{Source: s.Source, Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// unfold returns the reading of t nearest to near: a stamp counts seconds
// modulo 2^32 (RFC 5905 §6), so that t may be any number of eras off.
func unfold(t, near time.Time) time.Time {
	const era, half = 1 << 32, 1 << 31
	eras := (near.Unix() - t.Unix() + half) >> 32 // floored, also below zero
	return time.Unix(t.Unix()+eras*era, int64(t.Nanosecond())).UTC()
}
