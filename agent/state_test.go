package agent

import (
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
		{StateEnroll, StateBoot}:   true,
		{StateDial, StateAttached}: true, {StateDial, StateBoot}: true, // released
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
		if got := serverReason(tt.err); got != tt.want {
			t.Errorf("serverReason(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestAnAttachmentThatIsRefusedSoonForgivesNothing(t *testing.T) {
	const failures = 7
	for _, tt := range []struct {
		s    State
		d    time.Duration
		cut  bool
		cuts int
		want int
	}{
		{StateAttached, 59 * time.Second, false, 1, failures}, {StateAttached, 61 * time.Second, false, 1, 0},
		{StateAttached, 3 * time.Second, true, maxCuts, 1}, {StateAttached, 4 * time.Second, true, maxCuts, 0},
		{StateAttached, 3 * time.Second, true, maxCuts + 1, failures}, {StateAttached, 5 * time.Second, true, maxCuts + 1, failures},
		{StateAttached, 2 * steady, true, 0, 0}, {StateAttached, 0, false, 1, failures},
		{StateDial, time.Hour, true, 1, failures}, {StateBoot, time.Hour, true, 1, failures},
		{StateQuarantined, 0, false, 1, 0}, {StateEnroll, 0, true, 1, 0},
	} {
		if got := carried(failures, tt.s, tt.d, tt.cut, tt.cuts); got != tt.want {
			t.Errorf("carried(%d, %s, %v, %v, %d) = %d, want %d", failures, tt.s, tt.d, tt.cut, tt.cuts, got, tt.want)
		}
	}
	if got := carried(0, StateAttached, time.Second, true, 1); got != 0 {
		t.Errorf("a first link that is cut soon counts %d failures before it", got)
	}
}

// A server that sends nonsense after a few seconds must not get all of its gateways back every few seconds, nor teach them
// that the way is short.
func TestWhatCutsALinkOff(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{&transport.Error{Reason: transport.LinkLost, Op: "hear from Access Server"}, true},
		{&transport.Error{Reason: transport.Unreachable}, true},
		{&wire.Refusal{Reason: transport.Replaced}, false},
		{&wire.Refusal{Reason: transport.LinkLost, Text: "too slow"}, false},
		{fmt.Errorf("%w: pool: 1 MiB", wire.ErrFrame), false},
		{&transport.Error{Reason: transport.BadTime, Op: "renew signed time"}, false},
	} {
		if got := cutOff(tt.err); got != tt.want {
			t.Errorf("cutOff(%v) = %v", tt.err, got)
		}
	}
}
