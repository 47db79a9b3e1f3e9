//go:build linux

package e2e

import (
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"hawser/server/store/storetest"
	"hawser/transport/api"
)

// The store goes to PostgreSQL and back while gateways are online, with the commands that an operator has. Nobody touches
// a gateway, and nothing is forgotten: who is enrolled, who is revoked, and the audit, which still verifies from where it
// was verified before.
func TestTheStoreMovesUnderAFleet(t *testing.T) {
	t.Attr("id", "S-move")
	postgres := new(storetest.Cluster).Server(t)
	in := newInfra(t)
	var fleet []*gateway
	target := machine(t, func(c net.Conn) { io.Copy(c, c) })
	for _, name := range []string{"press-1", "press-2", "press-3"} {
		g := in.addDevice(name, target)
		g.enroll()
		g.run()
		fleet = append(fleet, g)
	}
	gone := in.addDevice("press-4", target)
	gone.enroll()
	command(t, nil, "hawser", "--home", in.home, "device", "revoke", "press-4")
	command(t, nil, "hawser", "--home", in.home, "audit", "--verify", "--json")

	config := in.path("server/server.yaml")
	for _, to := range []string{postgres.URL(t), "local"} {
		command(t, nil, "hawser-server", "store", "move", "--config", config, to)
		in.server.stop()
		in.serve()
		for _, g := range fleet {
			g.agent.line("online " + g.uid)
		}
		session, addr := fleet[0].connect(target)
		if err := roundTrip(addr); err != nil {
			t.Errorf("at %s: %v", to, err)
		}
		session.stop()
		var list []api.Device
		command(t, &list, "hawser", "--home", in.home, "device", "list", "--json")
		var states []api.DeviceState
		for _, d := range list {
			states = append(states, d.State)
		}
		if !slices.Equal(states, []api.DeviceState{api.StateEnrolled, api.StateEnrolled, api.StateEnrolled, api.StateRevoked}) {
			t.Errorf("at %s: %v", to, states)
		}
		command(t, nil, "hawser", "--home", in.home, "audit", "--verify", "--json")
		command(t, nil, "hawser-server", "check", "--config", config)
	}
	if left, _ := filepath.Glob(in.path("server/access/store/store.db-until-*")); len(left) == 0 {
		t.Error("the SQLite store of before the first move was not kept")
	}
}
