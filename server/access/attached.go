package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// onlineMember is a device or relay that has a control connection, to this node or to another one. It is a copy: what
// changes later is not in it. So nobody holds a lock of a link while he works with it, and those of other nodes look
// alike.
type onlineMember struct {
	name     identity.Name
	spki     identity.SPKI
	instance string
	session  int      // version of sessions that a Runtime speaks
	hosts    []string // of a relay, as are ports and load
	ports    []transport.Port
	load     wire.Load
	address  string // of its control connection
	since    time.Time
	hints    map[string]string

	link *link  // nil: the connection is another node's
	node string // that other node; empty: this one
}

// presenceBody is the body of a presence row: what other nodes have to know of an onlineMember (access §9).
type presenceBody struct {
	SPKI     identity.SPKI     `json:"spki"`
	Instance string            `json:"instance"`
	Session  int               `json:"session_version,omitempty"`
	Hosts    []string          `json:"hosts,omitempty"`
	Ports    []transport.Port  `json:"ports,omitempty"`
	Load     wire.Load         `json:"load"`
	Address  string            `json:"address"`
	Hints    map[string]string `json:"hints,omitempty"`
}

func (a *onlineMember) peer() identity.Peer { return identity.Peer{Name: a.name, SPKI: a.spki} }

// speaks reports whether a Runtime has the one version of sessions (session §1). To offer it a session would only cost
// the technician the time until the two ends find out.
func (a *onlineMember) speaks() bool { return a.session == wire.SessionVersion }

// relay returns where a relay can be reached.
func (a *onlineMember) relay() wire.Relay {
	return wire.Relay{Name: a.name.ID, Hosts: a.hosts, Ports: a.ports}
}

// member returns who is behind a link.
func (l *link) member() *onlineMember {
	return &onlineMember{
		name: l.peer.Name, spki: l.peer.SPKI, instance: l.hello.Instance, session: l.hello.SessionVersion,
		hosts: l.hello.Hosts, ports: l.hello.Ports, load: l.currentLoad(),
		address: l.from.String(), since: l.since, hints: l.hints, link: l,
	}
}

// presenceRow makes the row with which this node, in its process run, tells the others.
func (a *onlineMember) presenceRow(node, run string) (*store.Presence, error) {
	body, err := json.Marshal(presenceBody{a.spki, a.instance, a.session, a.hosts, a.ports, a.load, a.address, a.hints})
	return &store.Presence{Name: a.name.String(), Node: node, Run: run, Since: a.since, Body: body}, err
}

// parsePresence reads a row that another node has written.
func parsePresence(p store.Presence) (*onlineMember, error) {
	var b presenceBody
	name, err := identity.ParseName(p.Name)
	if err == nil {
		err = json.Unmarshal(p.Body, &b)
	}
	if err != nil {
		return nil, fmt.Errorf("read presence: %w", err)
	}
	return &onlineMember{
		name: name, spki: b.SPKI, instance: b.Instance, session: b.Session, hosts: b.Hosts, ports: b.Ports, load: b.Load,
		address: b.Address, since: p.Since, hints: b.Hints, node: p.Node,
	}, nil
}

// locate finds an identity at any node; nil means that it is offline. The error is ErrAway while this node has no
// lease: then others take it for dead, and it cannot know who is online.
func (s *Server) locate(ctx context.Context, name identity.Name) (*onlineMember, error) {
	found, err := s.locateMany(ctx, []identity.Name{name})
	return found[name], err
}

// locateAll is locate for a list of members, with one look into the store. A look for each device of a page would be up
// to 1000 transactions.
func (s *Server) locateAll(ctx context.Context, list []store.Member) (map[identity.Name]*onlineMember, error) {
	var names []identity.Name
	for _, m := range list {
		names = append(names, m.Identity())
	}
	return s.locateMany(ctx, names)
}

// locateMany asks the memory first, which is always right about this node, and the store only for the rest, if there
// are other nodes. Without a lease nothing is known: others may have taken the devices over.
func (s *Server) locateMany(ctx context.Context, names []identity.Name) (map[identity.Name]*onlineMember, error) {
	c := &s.cluster
	if !c.holds() {
		return nil, fmt.Errorf("look for who is online: the lease of this Access Server %w", store.ErrAway)
	}
	found := make(map[identity.Name]*onlineMember)
	var elsewhere []identity.Name
	for _, name := range names {
		if l := s.presence.find(name); l != nil {
			found[name] = l.member()
		} else {
			elsewhere = append(elsewhere, name)
		}
	}
	if !c.state.hasOthers() || len(elsewhere) == 0 {
		return found, nil
	}
	return found, c.store.View(ctx, func(tx *store.Tx) error {
		leases, err := tx.Leases()
		if err != nil {
			return err
		}
		for _, name := range elsewhere {
			p := store.Presence{Name: name.String()}
			err := tx.Get(&p)
			// A row of a process that has no lease any more was left by a node that died. A damaged one is written anew
			// when the device comes back.
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) || err == nil && leases[p.Node] != p.Run {
				continue
			} else if err != nil {
				return err
			}
			if found[name], err = parsePresence(p); err != nil {
				return err
			}
		}
		return nil
	})
}
