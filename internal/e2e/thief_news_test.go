//go:build linux

package e2e

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/thieftest"
	"hawser/server"
	"hawser/transport"
	"hawser/transport/api"
)

// Ann is shut out, and the gateway has the list. Somebody who may sign was never shown it, and states her again: the thief has
// shown him what was before. What the owner has ended does not come back by that.
func TestAThiefGetsNobodyBackByWhoKnowsLess(t *testing.T) {
	t.Attr("id", "T-server")
	revoked := func(x *theft) []string {
		x.must("user revoke", x.founder.RevokeUser(x.t.Context(), "ann", false))
		return x.Statements()
	}
	renew := func(x *theft) {
		_, err := x.ada.RenewUsers(x.t.Context(), "ann")
		x.must("user renew", err)
	}
	for name, tt := range map[string]struct {
		end   func(*theft) []string
		again func(*theft)
	}{
		"revoked, and renewed": {revoked, renew},
		"revoked, and kept as somebody else goes": {revoked, func(x *theft) {
			// Nothing hangs on ada's word about the founder's people, so the founder's own key goes.
			x.must("user revoke", x.ada.RevokeUser(x.t.Context(), "admin", true))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTheft(t, nil)
				base := x.Statements()
				ann := identity.UserName(server.DefaultDomain, "ann")
				cert := x.PKI.Certify(x.key("ann", "key.pem"), ann, -time.Hour, 400*day)
				enter := func() error { return x.enter(cert, x.chain(ann, identity.CertSPKI(cert.Leaf))...) }
				time.Sleep(time.Minute)
				told := tt.end(x)
				x.Show(base)
				x.told(told...)
				x.refused("she", enter(), transport.Revoked)
				time.Sleep(time.Minute)
				tt.again(x)
				x.told(x.Statements()...)
				x.refused("she, stated again by who knows less", enter(), transport.Revoked)
			})
		})
	}
}

// The thief stops a gateway's clock. A technician whose certificate begins after that has to bring the list all the same: what
// docs/threats.md bounds by his next visit is bounded by nothing if he cannot visit.
func TestATechnicianVisitsAGatewayWhoseClockWasStopped(t *testing.T) {
	t.Attr("id", "T-server")
	synctest.Test(t, func(t *testing.T) {
		x := newTheft(t, nil)
		x.stop()
		said := time.Now()
		x.Server.Set(func() { x.Now = func() time.Time { return said } })
		time.Sleep(11 * day)
		x.Answer("POST /renew", func(r thieftest.Request) (any, error) {
			var m api.RenewRequest
			x.must("request", json.Unmarshal(r.Body, &m))
			pub, err := identity.ParseCSR(m.CSR)
			if err != nil {
				return nil, err
			}
			// As the true server does it: from now on.
			chain := x.PKI.Chain(pub, r.Peer, 0, 12*time.Hour)
			return api.RenewAnswer{Chain: string(identity.MarshalChain(chain))}, nil
		})
		x.up()
		x.within(10*time.Minute, "the gateway believes the server", func() bool { return x.agent.Status().State == "attached" })
		time.Sleep(time.Minute)
		x.pings("the founder", x.founder)
	})
}
