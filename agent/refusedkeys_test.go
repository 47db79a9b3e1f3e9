package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/credential"
	"hawser/transport/wire"
)

// A gateway that has slept under the old issuing key comes back by itself: the list comes before the signed time, its own
// chain is renewed before it says hello, and what the old key issued is a stranger from then on, also after a power cut.
func TestAGatewayLeavesARefusedIssuingKey(t *testing.T) {
	t.Attr("id", "T-rotate")
	bubble(t, func(r *rig) {
		r.enrollNow()
		old := r.access.PKI.Issuing.Cert
		oldLeaf := r.access.Leaf
		fresh := must(r.access.PKI.Root.NewIssuing(identitytest.NewKey(), time.Now()))(t)
		r.access.PKI.Issuing = fresh
		r.access.Leaf = r.access.PKI.Leaf(r.access.PKI.Access, -time.Hour, 365*day)
		r.access.Certify(testName, 30*day)
		r.access.Refused = must(identity.RefusedKeys{Keys: []identity.SPKI{identity.CertSPKI(old)}, Sequence: 1}.Sign(r.access.PKI.Root))(t)
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		if got := r.access.Types(); got[0] != wire.TypeTimeRequest || got[1] != wire.TypeRenew || r.notes.count("identity renewed") != 1 {
			t.Errorf("it sent %v", got)
		}
		chain := must(identity.ParseChain(must(os.ReadFile(filepath.Join(r.dir, identityFile)))(t)))(t)
		if identity.CertSPKI(chain[1]) != identity.CertSPKI(fresh.Cert) {
			t.Error("the stored chain is under the old key")
		}
		p.stop(time.Second)

		// The thief, with the old key and a server that says nothing of lists.
		r.access.Set(func() { r.access.Refused, r.access.Leaf = nil, oldLeaf })
		r.access.Drop()
		p = r.start()
		time.Sleep(5 * time.Minute)
		if s := p.Status(); s.State == StateAttached {
			t.Errorf("attached to who has the refused key: %+v", s)
		}
		p.stop(time.Second)
		if b, err := os.ReadFile(filepath.Join(r.dir, credential.RefusedFile)); err != nil || len(b) == 0 {
			t.Errorf("%d bytes are kept, %v", len(b), err)
		}
		if err := Reset(r.dir); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(r.dir, credential.RefusedFile)); !os.IsNotExist(err) {
			t.Error("the list outlives a reset")
		}
	})
}
