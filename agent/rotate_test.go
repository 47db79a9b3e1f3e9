package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/accesstest"
)

// successor is another domain key, and the word of a signer that it takes the place of the one here.
func (r *rig) successor(signer *identitytest.Owner) (*identitytest.Owner, string) {
	next := identitytest.NewOwner("plant")
	change := identity.DomainStatement{Domain: "plant", Old: r.owner.Key, New: next.Key, Serial: r.owner.Serial()}
	return next, signer.Sign(change).JWS
}

func TestAChangeOfTheDomainKeyComesByASession(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		old := m.open(l, p, "old", "tcp")
		if err := old.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		next, change := r.successor(r.owner)
		other := r.manager()
		other.hello.DomainKey = next.Key.SPKI()
		other.hello.Statements = next.UserChain("ann", identity.RoleOperator, nil, other.cert.Leaf.PublicKey)
		s := other.open(l, p, "new", "tcp")
		time.Sleep(time.Second)
		// What states the gateway itself has to come as well: the statements of the old key are worth nothing now.
		device := next.DeviceChain(testUID, "gateway 7", p.self.Load().Cert.Leaf.PublicKey)
		tells(t, s, append([]string{change}, device...)...)
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatalf("%v; log:\n%s", err, r.notes)
		}
		<-old.Done()
		if transport.ReasonOf(old.Err()) != transport.NotStated || !strings.Contains(old.Err().Error(), byOwner) {
			t.Errorf("a session by the old key: %v", old.Err())
		}
		if got := r.disk(); got.Pinned() != next.Pinned || !slices.Equal(got.Chain(), device) {
			t.Errorf("pinned %+v, chain of %d", got.Pinned(), len(got.Chain()))
		}
		s.Close()
	})
}

func TestAChangeOfTheDomainKeyByAnybodyElseIsNone(t *testing.T) {
	t.Attr("id", "A1-refuse")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		thief := identitytest.NewOwner("plant")
		next, change := r.successor(thief)
		m.hello.DomainKey = next.Key.SPKI()
		m.hello.Statements = next.UserChain("ann", identity.RoleAdmin, nil, m.cert.Leaf.PublicKey)
		s := m.open(l, p, "s1", "tcp")
		tells(t, s, append([]string{change}, next.DeviceChain(testUID, "gateway 7", p.self.Load().Cert.Leaf.PublicKey)...)...)
		if err := s.Ready(r.t.Context()); transport.ReasonOf(err) != transport.NotStated {
			t.Errorf("the thief: %v", err)
		}
		if got := r.disk(); got.Pinned() != r.owner.Pinned {
			t.Errorf("pinned %+v", got.Pinned())
		}
	})
}
