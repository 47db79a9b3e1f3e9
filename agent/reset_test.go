package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// another is an owner of the same domain with another key, and the root's word for it.
func (r *rig) another(sequence uint64) (*identitytest.Owner, []byte) {
	r.t.Helper()
	o := identitytest.NewOwner("plant")
	return o, must(identity.DomainReset{Domain: "plant", Key: o.Key, Sequence: sequence}.Sign(r.access.PKI.Root))(r.t)
}

// brings has the server send statements.
func (r *rig) brings(l *accesstest.Link, m wire.Statements) {
	r.t.Helper()
	if err := wire.WriteJSON(l, wire.TypeStatements, m); err != nil {
		r.t.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

// stands makes the Manager say what this owner states of its user.
func (m *manager) stands(o *identitytest.Owner) *manager {
	m.hello.DomainKey = o.Key.SPKI()
	m.hello.Statements = o.UserChain("ann", identity.RoleOperator, nil, m.cert.Leaf.PublicKey)
	return m
}

// enters opens a session and returns why that failed, or no reason.
func (m *manager) enters(l *accesstest.Link, p *process, id string, tell *wire.Statements) (*session.Session, transport.Reason) {
	m.r.t.Helper()
	s := m.open(l, p, id, "tcp")
	if tell != nil {
		if err := s.Tell(must(json.Marshal(tell))(m.r.t)); err != nil {
			m.r.t.Fatal(err)
		}
	}
	err := s.Ready(m.r.t.Context())
	if err == nil {
		return s, ""
	}
	var end wire.EndSession
	m.r.next(l, wire.TypeEndSession, &end)
	return s, transport.ReasonOf(err)
}

// The server brings the root's word: who was let in by the key before is out at once, and whom the new key states is in.
// Nothing that comes later takes it back, and no restart.
func TestAGatewayFollowsTheRootToAnotherDomainKey(t *testing.T) {
	t.Attr("id", "T-lost")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		was := r.owner
		next, reset := r.another(5)
		live, reason := m.enters(l, p, "s1", nil)
		if reason != "" {
			t.Fatal(reason)
		}
		thief := identitytest.NewOwner("plant")
		stolen := was.Sign(identity.DomainStatement{Domain: "plant", Old: was.Key, New: thief.Key, Serial: was.Serial()}).JWS
		strange := must(identity.DomainReset{Domain: "plant", Key: thief.Key, Sequence: 6}.Sign(identitytest.New(time.Now()).Root))(t)
		r.brings(l, wire.Statements{DomainReset: strange})
		if r.notes.count("the domain has another key, by the word of the root") != 0 || live.Err() != nil {
			t.Fatal("another root was believed")
		}
		own := next.DeviceChain(testUID, "gateway 7", p.self.Load().Cert.Leaf.PublicKey)
		r.brings(l, wire.Statements{Statements: append(own, stolen), DomainReset: reset})
		<-live.Done()
		if reason := transport.ReasonOf(live.Err()); reason != transport.NotStated {
			t.Errorf("the session by the key before: %v", live.Err())
		}
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end)
		older, lower := r.another(4)
		r.brings(l, wire.Statements{Statements: []string{stolen}, DomainReset: reset})
		r.brings(l, wire.Statements{DomainReset: lower})
		if n := r.notes.count("the domain has another key, by the word of the root"); n != 1 {
			t.Errorf("taken %d times", n)
		}
		for name, o := range map[string]*identitytest.Owner{"before": was, "thief": thief, "older": older} {
			if _, reason := m.stands(o).enters(l, p, name, nil); reason == "" {
				t.Errorf("let in by the key %s", name)
			}
		}
		s, reason := m.stands(next).enters(l, p, "s2", nil)
		if reason != "" {
			t.Fatalf("by the new key: %q", reason)
		}
		s.Close()
		// After a power cut.
		self := must(readSelf(r.dir))(t)
		if known := must(openOwner(r.dir, self))(t); known.Pinned().Key != next.Key || len(known.Reset(was.Key.SPKI())) != identity.DomainResetBytes {
			t.Error("it is not on the medium")
		}
	})
	t.Attr("cases", "6")
}

// Past a server that withholds it, the next technician brings it.
func TestATechnicianBringsTheRootsWord(t *testing.T) {
	t.Attr("id", "T-lost")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		next, reset := r.another(5)
		own := next.DeviceChain(testUID, "gateway 7", p.self.Load().Cert.Leaf.PublicKey)
		if _, reason := m.stands(next).enters(l, p, "s1", nil); reason == "" {
			t.Fatal("let in before")
		}
		s, reason := m.enters(l, p, "s2", &wire.Statements{Statements: own, DomainReset: reset})
		if reason != "" {
			t.Fatalf("with it: %q; log:\n%s", reason, r.notes)
		}
		s.Close()
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end)
		// A technician of the key before is told of it.
		s = m.stands(r.owner).open(l, p, "s3", "tcp")
		b, err := s.Told(r.t.Context()) // before the session is refused
		var told wire.Statements
		if err != nil || json.Unmarshal(b, &told) != nil || string(told.DomainReset) != string(reset) || s.Ready(r.t.Context()) == nil {
			t.Errorf("told %+v, %v", told, err)
		}
		r.next(l, wire.TypeEndSession, &end)
	})
	t.Attr("cases", "3")
}

// Where the configuration leaves the domain key to its owner alone, the root changes nothing, and the status says so.
func TestAGatewayOfWhichTheOwnerAloneChangesTheKey(t *testing.T) {
	t.Attr("id", "T-lost")
	attachedRigWith(t, func(r *rig) { r.opts.Config.OwnerOnly = true }, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		next, reset := r.another(5)
		for range 2 {
			r.brings(l, wire.Statements{DomainReset: reset})
		}
		if n := r.notes.count("a domain reset of the root is refused by domain_change: owner"); n != 1 {
			t.Errorf("said %d times", n)
		}
		if !slices.ContainsFunc(p.Status().Troubles, func(s string) bool { return strings.Contains(s, "domain_change: owner") }) {
			t.Errorf("status: %q", p.Status().Troubles)
		}
		if _, reason := m.stands(next).enters(l, p, "s1", &wire.Statements{DomainReset: reset}); reason == "" {
			t.Error("let in by the root's key")
		}
		s, reason := m.stands(r.owner).enters(l, p, "s2", nil)
		if reason != "" {
			t.Errorf("by the owner's: %q", reason)
		}
		s.Close()
	})
	t.Attr("cases", "2")
}
