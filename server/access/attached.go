package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// attached is a device or relay that is online: at this node, or at another
// one as the store tells.
type attached struct {
	name     identity.Name
	spki     identity.SPKI
	instance string
	hosts    []string // of a relay, and so are ports and load
	ports    []transport.Port
	load     wire.Load
	address  string // of its control connection
	since    time.Time
	hints    map[string]string

	link *link  // nil: another node's
	node string // that other node
}

// presenceRecord is in bucket presence: what a node tells the others of who is
// attached to it.
type presenceRecord struct {
	Node     string            `json:"node"`
	Run      string            `json:"run"`
	Name     string            `json:"name"` // URI
	SPKI     identity.SPKI     `json:"spki"`
	Instance string            `json:"instance"`
	Hosts    []string          `json:"hosts,omitempty"`
	Ports    []transport.Port  `json:"ports,omitempty"`
	Load     wire.Load         `json:"load"`
	Address  string            `json:"address"`
	Since    time.Time         `json:"since"`
	Hints    map[string]string `json:"hints,omitempty"`
}

// presenceKey is the key in bucket presence.
func presenceKey(n identity.Name) string { return string(n.Kind) + "." + n.ID }

func (a *attached) peer() identity.Peer { return identity.Peer{Name: a.name, SPKI: a.spki} }

// relay returns where a relay answers.
func (a *attached) relay() wire.Relay {
	return wire.Relay{Name: a.name.ID, Hosts: a.hosts, Ports: a.ports}
}

// attached returns what there is to know of a link.
func (l *link) attached() *attached {
	return &attached{
		name: l.peer.Name, spki: l.peer.SPKI, instance: l.hello.Instance,
		hosts: l.hello.Hosts, ports: l.hello.Ports, load: l.carries(),
		address: l.from.String(), since: l.since, hints: l.hints, link: l,
	}
}

func (a *attached) record(node, run string) presenceRecord {
	return presenceRecord{node, run, a.name.String(), a.spki, a.instance, a.hosts, a.ports, a.load, a.address, a.since, a.hints}
}

func (r *presenceRecord) attached() (*attached, error) {
	name, err := identity.ParseName(r.Name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", bucketPresence, err)
	}
	return &attached{
		name: name, spki: r.SPKI, instance: r.Instance, hosts: r.Hosts, ports: r.Ports, load: r.Load,
		address: r.Address, since: r.Since, hints: r.Hints, node: r.Node,
	}, nil
}

// locate returns who has the live connection of an identity, at any node, or
// nil when it is offline. While this node's lease does not hold nobody can be
// sure of that: ErrAway.
func (s *Server) locate(ctx context.Context, name identity.Name) (*attached, error) {
	if !s.cluster.holds() {
		return nil, fmt.Errorf("locate %s: the lease of this Access Server %w", name, ErrAway)
	}
	if l := s.presence.find(name); l != nil {
		return l.attached(), nil
	}
	if s.cluster.solitary() {
		return nil, nil
	}
	r, _, err := load[presenceRecord](ctx, s.cfg.Store, bucketPresence, presenceKey(name))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if live, err := s.cluster.lives(ctx, r.Node, r.Run); !live || err != nil || r.Name != name.String() {
		return nil, err
	}
	return r.attached()
}
