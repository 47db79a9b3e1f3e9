package agent

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board"
	"hawser/board/boardtest"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

var keyLine = board.Line{Chip: "/dev/gpiochip0", Number: 3, ActiveLow: true, Bias: board.BiasPullUp}

// keyRig is an attached gateway with a key switch, which stands as closed says.
func keyRig(t *testing.T, k KeySwitch, closed bool, f func(r *rig, p *process, l *accesstest.Link, m *manager, key *boardtest.Switch)) {
	t.Helper()
	key := new(boardtest.Switch)
	fit := func(r *rig) {
		key.Give(r.opts.Board, keyLine)
		key.Set(closed)
		r.opts.Config.KeySwitch = &k
	}
	attachedRigWith(t, fit, func(r *rig, p *process, l *accesstest.Link, m *manager) { f(r, p, l, m, key) })
}

// refusedAs offers a session and wants this answer.
func refusedAs(r *rig, p *process, l *accesstest.Link, m *manager, id string, want transport.Reason) {
	r.t.Helper()
	o, _ := m.offers(id, p.self.Load().SPKI, "tcp")
	if got := r.offer(l, o); got != want {
		r.t.Errorf("offer %s: %q, want %q", id, got, want)
	}
}

func TestTurningTheKeyEndsSessionsAndLetsNoneBegin(t *testing.T) {
	t.Attr("id", "Q7")
	for name, tt := range map[string]struct {
		allowOpen bool
		free      bool // how the switch stands while remote access is allowed
	}{"while closed": {false, true}, "while open": {true, false}} {
		t.Run(name, func(t *testing.T) {
			keyRig(t, KeySwitch{keyLine, tt.allowOpen}, tt.free, func(r *rig, p *process, l *accesstest.Link, m *manager, key *boardtest.Switch) {
				ended := plc(r)
				since := p.Status().Since
				s := m.open(l, p, "s1", "tcp")
				stream, reason := openTCP(r, s, "192.168.10.20:504")
				if reason != "" {
					t.Fatalf("stream: %s", reason)
				}
				stream.Write([]byte("x"))
				joining, _ := m.offers("s2", p.self.Load().SPKI, "tcp") // waits for its peer
				if reason := r.offer(l, joining); reason != "" {
					t.Fatalf("offer: %s", reason)
				}
				if st := p.Status(); st.Key != "unlocked" || st.Signal != SignalSession {
					t.Errorf("before: key %s, signal %s", st.Key, st.Signal)
				}

				key.Set(!tt.free)
				begin := time.Now()
				<-ended
				<-s.Done()
				ends := make([]wire.EndSession, 2)
				r.next(l, wire.TypeEndSession, &ends[0])
				r.next(l, wire.TypeEndSession, &ends[1])
				for _, id := range []string{"s1", "s2"} {
					if !slices.Contains(ends, wire.EndSession{Session: id, Reason: transport.Locked}) {
						t.Errorf("%s: ends %+v", id, ends)
					}
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("sessions ended after %v", took)
				}
				if synctest.Wait(); len(p.Status().Sessions) != 0 || p.Status().Key != "locked" || p.Status().Signal != SignalLocked {
					t.Errorf("locked: status %+v", p.Status())
				}
				refusedAs(r, p, l, m, "s3", transport.Locked)
				time.Sleep(time.Hour)
				if st := p.Status(); st.State != StateAttached || st.Since != since {
					t.Errorf("the control connection did not stay: %s since %v", st.State, st.Since)
				}

				key.Set(tt.free)
				if synctest.Wait(); p.Status().Key != "unlocked" || p.Status().Signal != SignalOnline {
					t.Errorf("unlocked: status %+v", p.Status())
				}
				again := m.open(l, p, "s4", "tcp")
				if stream, reason = openTCP(r, again, "192.168.10.20:502"); reason != "" {
					t.Fatalf("stream after that: %s", reason)
				}
				echoes(t, stream)
				if got := r.notes.values("key switch", "state"); !slices.Equal(got, []string{"unlocked", "locked", "unlocked"}) {
					t.Errorf("logged %q", got)
				}
			})
		})
	}
}

// plc listens on port 504 of the machine; ended is closed when the first
// connection to it is over.
func plc(r *rig) (ended chan struct{}) {
	l := must(r.net.Host(machineAddr).Listen(504))(r.t)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(io.Discard, conn)
		conn.Close()
		close(ended)
	}()
	r.t.Cleanup(func() { l.Close(); <-done })
	return ended
}

// The machine must be free even when the way to the technician is gone, so that
// nothing can be said to him.
func TestTurningTheKeyFreesTheMachineThoughTheWayIsDead(t *testing.T) {
	t.Attr("id", "Q7")
	keyRig(t, KeySwitch{Line: keyLine}, true, func(r *rig, p *process, l *accesstest.Link, m *manager, key *boardtest.Switch) {
		ended := plc(r)
		s := m.open(l, p, "s1", "tcp")
		if _, reason := openTCP(r, s, "192.168.10.20:504"); reason != "" {
			t.Fatalf("stream: %s", reason)
		}
		r.net.Stall(agentAddr, relayAddr)
		r.net.Stall(agentAddr, accessAddr)
		key.Set(false)
		begin := time.Now()
		<-ended
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the machine was free after %v", took)
		}
		r.net.Heal(agentAddr, relayAddr)
		r.net.Heal(agentAddr, accessAddr)
	})
}

// A switch that nobody can read is a locked one: at the start, and when it is
// lost during a session. It is tried again, and said once.
func TestAKeySwitchThatCannotBeReadIsLocked(t *testing.T) {
	t.Attr("id", "Q7")
	keyRig(t, KeySwitch{Line: keyLine}, true, func(r *rig, p *process, l *accesstest.Link, m *manager, key *boardtest.Switch) {
		s := m.open(l, p, "s1", "tcp")
		key.Fail(errors.New("unplugged"))
		begin := time.Now()
		<-s.Done()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("ended after %v", took)
		}
		r.next(l, wire.TypeEndSession, new(wire.EndSession))
		time.Sleep(time.Hour)
		refusedAs(r, p, l, m, "s2", transport.Locked)
		if n := r.notes.count("key switch cannot be read: remote access is locked"); n != 1 || key.Opened() < 100 {
			t.Errorf("said %d times, tried %d times", n, key.Opened())
		}
		key.Fail(nil)
		time.Sleep(keyRetry + time.Second)
		m.open(l, p, "s3", "tcp")
	})
}

func TestAKeySwitchThatIsMissingIsLocked(t *testing.T) {
	t.Attr("id", "Q7")
	nowhere := func(r *rig) { r.opts.Config.KeySwitch = &KeySwitch{Line: keyLine} }
	attachedRigWith(t, nowhere, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		refusedAs(r, p, l, m, "s1", transport.Locked)
		if st := p.Status(); st.Key != "locked" || st.Signal != SignalLocked {
			t.Errorf("key %s, signal %s", st.Key, st.Signal)
		}
	})
}

// Between the start and the first word about the switch nobody gets in.
func TestNobodyGetsInBeforeTheKeySwitchIsRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Config.KeySwitch = &KeySwitch{Line: keyLine}
		a := must(New(r.opts))(t)
		if st := a.Status(); st.Key != "locked" {
			t.Errorf("key %q before the start", st.Key)
		}
		if got := a.sessions.offer(wire.Offer{Role: wire.RoleRuntime, Session: "s", Epoch: 1}); got == nil || got.Reason != transport.Locked {
			t.Errorf("offer: %q", got)
		}
	})
}

func TestWithoutAKeySwitchStatusHasNone(t *testing.T) {
	bubble(t, func(r *rig) {
		if st := must(New(r.opts))(t).Status(); st.Key != "" {
			t.Errorf("key %q", st.Key)
		}
	})
}
