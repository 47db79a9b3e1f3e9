package access

import (
	"context"
	"errors"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// newLinkTime is how long a link counts as the newest of its identity, whatever another node's row says. Only after it
// the times of two nodes are compared, because their clocks differ.
const newLinkTime = 2 * time.Second

// mirrorBatchSize is how many identities share a transaction: after a restart of the server all its clients come back
// within a minute. Larger transactions did not end within the time of a commit on a slow line to the database.
const mirrorBatchSize = 64

// mirror writes the presence rows of who was attached or detached here. It comes after follow in each step: what
// another node wrote about the same device is known before this node writes.
func (s *Server) mirror(ctx context.Context) error {
	for {
		names := s.cluster.state.takeDirty(mirrorBatchSize)
		if len(names) == 0 {
			return nil
		}
		begun := time.Now()
		if err := s.mirrorBatch(ctx, names); err != nil {
			s.cluster.state.markDirty(names)
			return err
		}
		s.admission.wrote(len(names), time.Since(begun))
	}
}

// takeDirty returns up to most identities that need a new row, and takes them off the list.
func (c *clusterState) takeDirty(most int) (names []identity.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.dirty {
		if len(names) == most {
			break
		}
		names = append(names, n)
		delete(c.dirty, n)
	}
	return names
}

// mirrorBatch writes rows in one transaction. A link that another node has a newer one of is closed here.
func (s *Server) mirrorBatch(ctx context.Context, names []identity.Name) error {
	c := &s.cluster
	// Before the transaction: no lock of the presence is held while the database is asked.
	links := make(map[identity.Name]*link)
	for _, n := range names {
		links[n] = s.presence.find(n)
	}
	var replaced []*link
	err := c.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		// The transaction may run several times.
		replaced = nil
		leases, err := tx.Leases()
		if err != nil {
			return err
		}
		for _, n := range names {
			newer, err := s.mirrorOne(tx, n, links[n], leases)
			if err != nil {
				return err
			}
			if newer {
				replaced = append(replaced, links[n])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for n, l := range links {
		if c.mirrored[n] = l; l == nil {
			delete(c.mirrored, n)
		}
	}
	for _, l := range replaced {
		delete(c.mirrored, l.peer.Name)
		l.closeWith(&wire.Refusal{Reason: transport.Replaced})
	}
	s.hint()
	return nil
}

// mirrorOne writes the row of a link, or deletes it for no link. newer says that another live node has a newer link of
// this identity, whose row stays.
func (s *Server) mirrorOne(tx *store.Tx, name identity.Name, l *link, leases map[string]string) (newer bool, err error) {
	c := &s.cluster
	found := store.Presence{Name: name.String()}
	err = tx.Get(&found)
	there := err == nil || errors.Is(err, store.ErrDamaged)
	if err != nil && !there && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	if l == nil {
		if !there || found.Run != c.run { // now it is attached elsewhere
			return false, nil
		}
		return false, errors.Join(tx.Delete(&found), s.publish(tx, changeAttached, name.String()))
	}
	if there && found.Run != c.run && leases[found.Node] == found.Run {
		late := time.Since(l.began) > newLinkTime && found.Since.After(l.since)
		if c.mirrored[name] == l || late {
			return true, nil
		}
	}
	row, err := l.member().presenceRow(c.node, c.run)
	if err != nil {
		return false, err
	}
	return false, errors.Join(tx.Put(row), s.publish(tx, changeAttached, name.String()))
}
