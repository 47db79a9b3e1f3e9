package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/mux"
	"hawser/transport/relaytest"
	"hawser/transport/session"
	"hawser/transport/wire"
)

func TestConsent(t *testing.T) {
	good := wire.Offer{Role: wire.RoleRuntime, Session: "s1", Epoch: 2}
	manager, nameless := good, good
	manager.Role, nameless.Session = wire.RoleManager, ""
	for name, tt := range map[string]struct {
		o            wire.Offer
		locked       bool
		authentic    bool
		epoch, count int
		want         transport.Reason
	}{
		"good":              {good, false, true, 0, 0, ""},
		"the last place":    {good, false, true, 0, maxSessions - 1, ""},
		"full":              {good, false, true, 0, maxSessions, transport.Busy},
		"moved":             {good, false, true, 1, 1, ""},
		"moved, and full":   {good, false, true, 1, maxSessions, ""},
		"the same epoch":    {good, false, true, 2, 1, transport.Protocol},
		"an older epoch":    {good, false, true, 3, 1, transport.Protocol},
		"unproven clock":    {good, false, false, 0, 0, transport.ClockWrong},
		"of the other role": {manager, false, true, 0, 0, transport.Protocol},
		"no id":             {nameless, false, true, 0, 0, transport.Protocol},
		"locked":            {good, true, true, 0, 0, transport.Locked},
		"locked, and moved": {good, true, true, 1, 1, transport.Locked},
	} {
		if got := consent(tt.o, tt.locked, tt.authentic, tt.epoch, tt.count); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestAnOfferWithAHigherEpochMovesTheSession(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		first := m.open(l, p, "s1", "tcp")
		runtime, own := m.offers("s1", p.self.Load().SPKI, "tcp")
		if reason := r.offer(l, runtime); reason != transport.Protocol {
			t.Errorf("the same epoch again: %q", reason)
		}
		runtime.Epoch, own.Epoch = 2, 2
		runtime.Grant, own.Grant = "grant-moved", "grant-moved"
		if reason := r.offer(l, runtime); reason != "" {
			r.t.Fatalf("offer: %s", reason)
		}
		second, err := m.join(own)
		if err != nil {
			r.t.Fatal(err)
		}
		defer second.Close()
		<-first.Done()
		stream, reason := openTCP(r, second, "192.168.10.20:502")
		if reason != "" {
			r.t.Fatalf("stream: %s", reason)
		}
		echoes(t, stream)
		if list := p.Status().Sessions; len(list) != 1 || list[0].ID != "s1" {
			t.Errorf("sessions %+v", list)
		}
		second.Close()
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end) // of the second epoch; the first has not ended, it moved
		if end != (wire.EndSession{Session: "s1", Reason: transport.Closed}) {
			t.Errorf("end %+v", end)
		}
	})
}

// attachedRig is a gateway that is attached, a relay, a Manager and a machine.
func attachedRig(t *testing.T, f func(r *rig, p *process, l *accesstest.Link, m *manager)) {
	t.Helper()
	attachedRigWith(t, func(*rig) {}, f)
}

// attachedRigWith is attachedRig whose gateway was fitted with more.
func attachedRigWith(t *testing.T, fit func(*rig), f func(r *rig, p *process, l *accesstest.Link, m *manager)) {
	t.Helper()
	bubble(t, func(r *rig) {
		r.enrollNow()
		relaytest.New(r.t, r.access.PKI, r.net.Host(relayAddr), "r1")
		r.machine()
		r.opts.Config.Allow = rules(t, "192.168.10.0/24:502-504")
		fit(r)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		f(r, p, <-r.access.Links, r.manager())
		p.stop(20 * time.Second)
	})
}

func openOf(service wire.Service, target string) mux.Open {
	return mux.Open{Service: service, Target: target}
}

func openTCP(r *rig, s *session.Session, target string) (*mux.Stream, transport.Reason) {
	stream, err := s.Open(r.t.Context(), mux.Open{Service: wire.ServiceTCP, Target: target})
	return stream, transport.ReasonOf(err)
}

func echoes(t *testing.T, s *mux.Stream) {
	t.Helper()
	want := bytes.Repeat([]byte("read 40001 "), 10000)
	go func() {
		s.Write(want)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); !bytes.Equal(got, want) || err != nil {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(want), err)
	}
}

func TestStreamsReachWhatPolicyAndPermissionsAllow(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp", "ping")
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatalf("stream: %s; log:\n%s", reason, r.notes)
		}
		if st := p.Status(); len(st.Sessions) != 1 || st.Sessions[0].ID != "s1" || st.Sessions[0].User != "ann" || st.Sessions[0].Relay != "r1" ||
			st.Sessions[0].Streams != 1 || st.Relay != "r1" {
			t.Errorf("status %+v", st)
		}
		echoes(t, stream)
		stream.Close()
		for target, want := range map[string]transport.Reason{
			"192.168.10.20:504":  transport.Refused, // nothing listens
			"192.168.10.20:80":   transport.Policy,
			"127.0.0.1:502":      transport.Policy,
			"169.254.169.254:80": transport.Policy,
			"192.0.2.1:443":      transport.Policy,
			"192.168.10.21:502":  transport.Timeout, // no such machine
			"plc.example:502":    transport.Protocol,
			"":                   transport.Protocol,
		} {
			if _, got := openTCP(r, s, target); got != want {
				t.Errorf("%q: %q, want %q", target, got, want)
			}
		}
		ping, err := s.Open(r.t.Context(), mux.Open{Service: wire.ServicePing})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, ping)
		ping.Close()
		if _, err := s.Open(r.t.Context(), mux.Open{Service: "serial"}); transport.ReasonOf(err) != transport.Policy {
			t.Errorf("a service without permission: %v", err)
		}
		s.Close()
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end)
		if end != (wire.EndSession{Session: "s1", Reason: transport.Closed}) {
			t.Errorf("end %+v", end)
		}
		if n := len(p.Status().Sessions); n != 0 {
			t.Errorf("%d sessions left", n)
		}
	})
}

func TestWithoutPermissionAStreamIsRefused(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "ping", "serial")
		if _, reason := openTCP(r, s, "192.168.10.20:502"); reason != transport.Policy {
			t.Errorf("tcp: %q", reason)
		}
		if _, err := s.Open(r.t.Context(), mux.Open{Service: "serial"}); transport.ReasonOf(err) != transport.Unsupported {
			t.Errorf("a service that this build does not have: %v", err)
		}
	})
}

func TestSessionsOutliveTheControlConnection(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		r.access.Down()
		p.await(StateDial, time.Second)
		time.Sleep(time.Hour)
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatalf("stream: %s", reason)
		}
		echoes(t, stream)
		if n := len(p.Status().Sessions); n != 1 {
			t.Errorf("%d sessions", n)
		}
		r.access.Up()
		p.await(StateAttached, 2*time.Minute)
		s.Close()
		var end wire.EndSession
		r.next(<-r.access.Links, wire.TypeEndSession, &end) // told on the new one
		if end.Session != "s1" {
			t.Errorf("end %+v", end)
		}
	})
}

// In each case a stream is open whose machine never ends its direction: that
// must not keep the session.
func TestSessionsEndWhenSomebodySaysSo(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(l *accesstest.Link, m *manager)
		want transport.Reason
	}{
		"end-session": {func(l *accesstest.Link, _ *manager) {
			wire.WriteJSON(l, wire.TypeEndSession, wire.EndSession{Session: "s1", Reason: transport.Closed})
		}, transport.Closed},
		"revoked": {func(l *accesstest.Link, m *manager) {
			wire.WriteJSON(l, wire.TypeRevoked, wire.Revoked{SPKI: []identity.SPKI{{7}, identity.CertSPKI(m.cert.Leaf)}})
		}, transport.Revoked},
		"the Manager vanishes": {func(_ *accesstest.Link, m *manager) { m.r.net.Stall(managerAddr, relayAddr) }, transport.LinkLost},
	} {
		t.Run(name, func(t *testing.T) {
			attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
				s := m.open(l, p, "s1", "tcp")
				stream, reason := openTCP(r, s, "192.168.10.20:503")
				if reason != "" {
					t.Fatalf("stream: %s", reason)
				}
				stream.Write([]byte("x"))
				stream.CloseWrite()
				time.Sleep(time.Second)
				// What names others changes nothing.
				wire.WriteJSON(l, wire.TypeEndSession, wire.EndSession{Session: "s2", Reason: transport.Closed})
				wire.WriteJSON(l, wire.TypeRevoked, wire.Revoked{SPKI: []identity.SPKI{{7}}})
				time.Sleep(time.Second)
				if n := len(p.Status().Sessions); n != 1 {
					t.Fatalf("%d sessions", n)
				}
				tt.end(l, m)
				begin := time.Now()
				var end wire.EndSession
				r.next(l, wire.TypeEndSession, &end)
				if end != (wire.EndSession{Session: "s1", Reason: tt.want}) || time.Since(begin) > 20*time.Second {
					t.Errorf("end %+v after %v", end, time.Since(begin))
				}
				if s.Close(); len(p.Status().Sessions) != 0 {
					t.Error("it is still listed")
				}
				r.net.Heal(managerAddr, relayAddr)
			})
		})
	}
}

func TestASeventeenthSessionIsRefused(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		for n := range maxSessions {
			o, _ := m.offers(fmt.Sprintf("s%d", n), p.self.Load().SPKI, "tcp")
			o.Peer = identity.UserName("plant", fmt.Sprintf("u%d", n)).String() // nobody has more than another one
			if reason := r.offer(l, o); reason != "" {
				t.Fatalf("session %d: %s", n, reason)
			}
			time.Sleep(10 * time.Millisecond)
		}
		twice, _ := m.offers("s3", p.self.Load().SPKI, "tcp")
		if reason := r.offer(l, twice); reason != transport.Protocol {
			t.Errorf("the same session again: %q", reason)
		}
		more, _ := m.offers("more", p.self.Load().SPKI, "tcp")
		if reason := r.offer(l, more); reason != transport.Busy {
			t.Errorf("one more: %q", reason)
		}
		ids := []string{}
		for _, s := range p.Status().Sessions {
			ids = append(ids, s.ID)
		}
		if len(ids) != maxSessions || ids[0] != "s0" || ids[15] != "s15" || ids[2] != "s2" {
			t.Errorf("sessions %q, want the oldest first", ids)
		}
		// No Manager came: the relay or the Runtime gives up, and there is room again.
		r.until(time.Minute, "room", func() bool { return len(p.Status().Sessions) == 0 })
		if reason := nextAck(r, l).offer(l, more); reason != "" {
			t.Errorf("after that: %q", reason)
		}
	})
}

// nextAck drops the end-session frames that are queued.
func nextAck(r *rig, l *accesstest.Link) *rig {
	synctest.Wait()
	for len(l.Frames) > 0 {
		<-l.Frames
	}
	return r
}

func TestStoppingTheAgentEndsItsSessions(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		stream, reason := openTCP(r, s, "192.168.10.20:503")
		if reason != "" {
			t.Fatalf("stream: %s", reason)
		}
		stalled, _ := m.offers("s2", p.self.Load().SPKI, "tcp") // and one that waits for its peer
		if reason := r.offer(l, stalled); reason != "" {
			t.Fatalf("offer: %s", reason)
		}
		p.cancel()
		<-s.Done()
		if b, err := stream.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes of a stream that is over", b)
		}
	})
}

func TestAWrongPeerGetsNoSession(t *testing.T) {
	t.Attr("id", "A1-refuse")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		runtime, own := m.offers("s1", p.self.Load().SPKI, "tcp")
		runtime.PeerSPKI = identity.SPKI{1}
		if reason := r.offer(l, runtime); reason != "" {
			t.Fatalf("offer: %s", reason)
		}
		s, err := m.join(own)
		if err == nil {
			_, err = s.Open(r.t.Context(), mux.Open{Service: wire.ServiceTCP, Target: "192.168.10.20:502"})
			s.Close()
		}
		if err == nil {
			t.Errorf("a Manager with another key got a stream: %v", err)
		}
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end)
		if end.Reason != transport.WrongPeer || slices.Contains(r.notes.values("session up", "session"), "s1") {
			t.Errorf("end %+v", end)
		}
	})
}

// Who opens and resets streams again and again must not make a gateway dial as often at a time.
func TestADialEndsWithItsStream(t *testing.T) {
	var dialing atomic.Int32
	attachedRigWith(t, func(r *rig) {
		dial := r.opts.DialContext
		r.opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "192.168.10.21:502" {
				dialing.Add(1)
				defer dialing.Add(-1)
			}
			return dial(ctx, network, addr)
		}
	}, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		if _, err := s.Open(ctx, mux.Open{Service: wire.ServiceTCP, Target: "192.168.10.21:502"}); err == nil {
			t.Fatal("no such machine")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := dialing.Load(); n != 0 {
			t.Errorf("%d dials under way", n)
		}
		s.Close()
	})
}
