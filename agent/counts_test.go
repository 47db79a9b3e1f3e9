package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hawser/transport"
	"hawser/transport/accesstest"
)

// What happened once counts once: streams by what became of them, their bytes while the session runs, and its end.
func TestCountsFollowWhatHappens(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		before := p.Status().Counts
		if before.Online != 1 || before.Reconnects != 0 || before.Handshakes < 1 || before.Sessions != 0 {
			t.Errorf("online: %+v", before)
		}
		s := m.open(l, p, "s1", "tcp")
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatalf("stream: %s", reason)
		}
		echoes(t, stream)
		const bytes = 110_000
		during := p.Status().Counts
		if during.Sessions != 1 || during.Streams != 1 || during.InBytes != bytes || during.OutBytes != bytes || during.SessionEnds.Sum() != 0 {
			t.Errorf("while it runs: %+v", during)
		}
		stream.Close()
		for target, want := range map[string]transport.Reason{
			"192.168.10.20:504": transport.Refused, "192.168.10.20:80": transport.Policy, "192.168.10.20:81": transport.Policy,
		} {
			if _, got := openTCP(r, s, target); got != want {
				t.Errorf("%s: %q", target, got)
			}
		}
		s.Close()
		time.Sleep(time.Minute)
		after := p.Status().Counts
		after.Connections, after.Handshakes, after.Failures = 0, 0, nil
		want := Counts{Online: 1, Sessions: 1, SessionEnds: Reasons{transport.Closed: 1}, Streams: 1,
			StreamsRefused: Reasons{transport.Refused: 1, transport.Policy: 2}, InBytes: bytes, OutBytes: bytes}
		if diff := cmp.Diff(want, after); diff != "" {
			t.Error(diff)
		}
		r.access.Down()
		p.await(StateDial, time.Second)
		time.Sleep(time.Hour)
		away := p.Status().Counts
		if away.Failures.Sum() <= before.Failures.Sum() || away.Connections != away.Handshakes+away.Failures.Sum() {
			t.Errorf("while nobody answers: %+v", away)
		}
		r.access.Up()
		p.await(StateAttached, 2*time.Minute)
		if again := p.Status().Counts; again.Online != 2 || again.Reconnects != 1 || again.InBytes != bytes {
			t.Errorf("online again: %+v", again)
		}
	})
}

// A reason that a server has made up does not make the answer of status grow, and an attempt that was given up is none.
func TestCountsAreBounded(t *testing.T) {
	c := newCounts()
	for i := range 1000 {
		c.over(nil, transport.Reason(fmt.Sprintf("made-up-%d", i)))
	}
	c.attempt(transport.Attempt{Reason: transport.Timeout, GivenUp: true})
	c.attempt(transport.Attempt{Reason: transport.Timeout})
	c.attempt(transport.Attempt{})
	got := c.now()
	c.over(nil, transport.Closed) // after the copy
	want := Counts{Connections: 2, Handshakes: 1, Failures: Reasons{transport.Timeout: 1},
		SessionEnds: Reasons{"other": 1000}, StreamsRefused: Reasons{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
