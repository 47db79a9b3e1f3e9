package agent

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"hawser/agent/clock"
	"hawser/internal/durable"
	"hawser/probe/netcheck"
	"hawser/transport"
)

// maxSiteTimes is how many of the site's time servers netcheck asks.
const maxSiteTimes = 2

// Known is what the configuration and the state directory say about the network of this gateway. It needs neither: what
// cannot be read is missing, so that netcheck works before enrollment and for every user. The agent may be running:
// nothing is locked and nothing is written.
func Known(o Options) netcheck.Known {
	c := o.Config
	floor, _ := clock.Window(o.Build)
	k := netcheck.Known{Hosts: c.Access, Ports: c.Ports, Roots: c.Roots, DNS: c.DNS, Time: c.Time,
		Dial: o.DialContext, Proxies: c.Proxy.Source(transport.ServiceProxies), Now: o.Board.Now, Floor: floor,
		At: func(leaf *x509.Certificate) time.Time { // as in the prelude, or a wrong clock would make open ports look closed
			if leaf.NotBefore.After(floor) {
				return leaf.NotBefore
			}
			return floor
		}}
	around, _ := Around(o.Board) // else it is checked without
	k.Bounds = c.Bounds(NewPolicy(c.Allow, around))
	k.Relays = netcheck.RelaysIn(remembered(c.Data), c.Access, c.Ports)
	if up, err := o.Board.Uplinks(); err == nil { // else it is checked without
		for _, i := range up {
			k.Uplinks = append(k.Uplinks, netcheck.Uplink{Name: i.Name, Addrs: i.Addrs()})
		}
	}
	site := o.Board.TimeServers()
	for _, a := range site[:min(len(site), maxSiteTimes)] {
		k.Time = append(k.Time, a.String())
	}
	var err error
	if k.Roots == nil { // an agent that enrolled with --pin has it there
		k.Roots, err = LoadRoots(filepath.Join(c.Data, rootFile))
	}
	if errors.Is(err, fs.ErrPermission) {
		k.Note = "this user cannot read the root certificate: what servers show is told and not verified; run it as root, or give --pin"
	}
	switch id, err := ShowIdentity(c.Data); {
	case err != nil:
		k.Unreadable = true
	case id.Enrolled:
		k.Gateway = id.UID + " in domain " + id.Domain
		k.Reach = reach(o)
	}
	return k
}

// reach is what sessions may reach now; nil where nobody can say.
func reach(o Options) *netcheck.Reach {
	if rules := o.Config.Allow; rules != nil {
		return &netcheck.Reach{To: texts(rules)}
	}
	around, err := Around(o.Board)
	if o.Config.File == "" || err != nil { // without the file there may be rules
		return nil
	}
	return &netcheck.Reach{To: texts(NewPolicy(nil, around).LAN()), LAN: true}
}

func texts[S fmt.Stringer](all []S) (texts []string) {
	for _, s := range all {
		texts = append(texts, s.String())
	}
	return texts
}

// remembered lists the hosts that the agent of a state directory reached before, as far as this user may read them.
// Sorted, so that two runs print the same sheet; a map has a new order each time.
func remembered(dir string) (good []netcheck.Good) {
	slots, err := durable.OpenSlots(dir, stateSlots)
	if err != nil {
		return nil
	}
	var s saved
	if b, err := slots.Load(); err != nil || json.Unmarshal(b, &s) != nil {
		return nil
	}
	for _, host := range slices.Sorted(maps.Keys(s.Good)) {
		if len(s.Good[host]) > 0 {
			good = append(good, netcheck.Good{Host: host, Port: s.Good[host][0].Candidate(host, time.Time{}).Port()})
		}
	}
	return good
}
