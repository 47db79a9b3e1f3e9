package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func allStates() []State {
	return []State{StateBoot, StateEnroll, StateDial, StateAttached, StateQuarantined, StateStopped}
}

// The drawing of doc.go, an edge a line.
func TestOnlyTheEdgesOfTheDrawingAreAllowed(t *testing.T) {
	drawn := map[[2]State]bool{
		{StateBoot, StateEnroll}: true, {StateBoot, StateDial}: true,
		{StateEnroll, StateBoot}:      true,
		{StateDial, StateAttached}:    true,
		{StateDial, StateQuarantined}: true,
		{StateAttached, StateDial}:    true, {StateAttached, StateQuarantined}: true,
		{StateQuarantined, StateBoot}: true, {StateQuarantined, StateDial}: true,
	}
	for _, from := range allStates() {
		for _, to := range allStates() {
			want := from != StateStopped && (drawn[[2]State{from, to}] || from == to || to == StateStopped)
			if got := allowed(from, to); got != want {
				t.Errorf("%s to %s allowed: %v, want %v", from, to, got, want)
			}
		}
	}
	if allowed("nonsense", StateDial) {
		t.Error("a state that does not exist leads somewhere")
	}
}

func TestNextNeverLeavesTheDrawingAndOnlyAVerdictQuarantines(t *testing.T) {
	final := map[transport.Reason]bool{transport.Revoked: true, transport.WrongKey: true, transport.NoDevice: true}
	for _, reason := range []transport.Reason{"", transport.Refused, transport.Timeout, transport.TLSIntercepted, transport.WrongRoot,
		transport.Expired, transport.ClockWrong, transport.BadTime, transport.Protocol, transport.NotEnrolled, transport.WrongKey,
		transport.Revoked, transport.Busy, transport.Replaced, transport.NoDevice, transport.LinkLost, transport.Internal, "later-word"} {
		for _, s := range allStates() {
			to, want := next(s, reason), s
			if s == StateDial || s == StateAttached {
				if want = StateDial; final[reason] {
					want = StateQuarantined
				}
			}
			if to != want {
				t.Errorf("next(%s, %q) = %s, want %s", s, reason, to, want)
			}
			if s != StateStopped && !allowed(s, to) {
				t.Errorf("next(%s, %q) = %s is not drawn", s, reason, to)
			}
		}
	}
}

func TestVerdictIsTheServersWordAlone(t *testing.T) {
	refusal := &wire.Refusal{Reason: transport.Revoked}
	for _, tt := range []struct {
		err  error
		want transport.Reason
	}{
		{nil, ""},
		{refusal, transport.Revoked},
		{fmt.Errorf("renew identity: %w", refusal), transport.Revoked},
		{&transport.Error{Reason: transport.WrongKey, Op: "x"}, ""},
		{&identity.Error{Fault: identity.FaultWrongKey}, ""},
		{&transport.DialError{Attempts: []transport.Attempt{{Reason: transport.WrongKey}}}, ""},
	} {
		if got := verdict(tt.err); got != tt.want {
			t.Errorf("verdict(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestBackoffIsFullJitterUnderADoublingCap(t *testing.T) {
	most := func(n time.Duration) time.Duration { return n - 1 }
	least := func(time.Duration) time.Duration { return 0 }
	for failures, top := range map[int]time.Duration{1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 60, 7: 60, 16: 60, 17: 60, 1 << 30: 60} {
		for _, atLeast := range []time.Duration{0, time.Hour} {
			if got := backoff(failures, atLeast, least); got != atLeast {
				t.Errorf("shortest of %d = %v, want %v", failures, got, atLeast)
			}
			if got, want := backoff(failures, atLeast, most), atLeast+top*time.Second-1; got != want {
				t.Errorf("longest of %d = %v, want %v", failures, got, want)
			}
		}
	}
}

func TestRandomIsBelowItsArgumentAndSpreads(t *testing.T) {
	var low, high int
	for range 1000 {
		d := random(time.Second)
		if d < 0 || d >= time.Second {
			t.Fatalf("random(1s) = %v", d)
		}
		if d < time.Second/4 {
			low++
		} else if d >= 3*time.Second/4 {
			high++
		}
	}
	if low < 100 || high < 100 {
		t.Errorf("of 1000, %d in the first quarter and %d in the last", low, high)
	}
	if random(0) != 0 || random(-1) != 0 {
		t.Error("random of nothing is not 0")
	}
}

func TestRetryAfterIsHonouredAndAHintIsBounded(t *testing.T) {
	refusal := fmt.Errorf("hello: %w", &wire.Refusal{Reason: transport.Busy, RetryAfter: time.Hour})
	for _, tt := range []struct {
		err  error
		want time.Duration
	}{
		{refusal, time.Hour},
		{unproven{refusal}, time.Minute},
		{unproven{&wire.Refusal{RetryAfter: 5 * time.Second}}, 5 * time.Second},
		{errors.New("no server said anything"), 0},
	} {
		if got := retryAfter(tt.err); got != tt.want {
			t.Errorf("retryAfter(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
	if reason := transport.ReasonOf(unproven{refusal}); reason != transport.Busy {
		t.Errorf("reason of a hint = %q", reason)
	}
}

func TestAShortAttachmentForgivesNothing(t *testing.T) {
	for _, tt := range []struct {
		s    State
		d    time.Duration
		want bool
	}{
		{StateAttached, 59 * time.Second, false}, {StateAttached, 61 * time.Second, true},
		{StateDial, time.Hour, false}, {StateBoot, time.Hour, false},
		{StateQuarantined, 0, true}, {StateEnroll, 0, true},
	} {
		if got := forgives(tt.s, tt.d); got != tt.want {
			t.Errorf("forgives(%s, %v) = %v", tt.s, tt.d, got)
		}
	}
}
