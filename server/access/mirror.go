package access

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// mirrored is what tend has written of a link.
type mirrored struct {
	link     *link
	revision uint64
}

// justNow is how long a link counts as the newest of its identity without a
// look at others: the clocks of two nodes are not compared when one need not.
const justNow = 2 * time.Second

// mirror writes who is attached here.
func (s *Server) mirror(ctx context.Context) error {
	c := &s.cluster
	c.mu.Lock()
	waiting := slices.Collect(maps.Keys(c.dirty))
	clear(c.dirty)
	c.mu.Unlock()
	var errs []error
	for _, name := range waiting {
		if err := s.mirrorOne(ctx, name); err != nil {
			c.set(func() { c.dirty[name] = true })
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) mirrorOne(ctx context.Context, name identity.Name) error {
	c := &s.cluster
	l, before := s.presence.find(name), c.mirrored[name]
	if l == nil {
		delete(c.mirrored, name)
		if before.link == nil {
			return nil
		}
		err := c.store.Delete(ctx, bucketPresence, presenceKey(name), before.revision)
		if errors.Is(err, ErrConflict) { // it is attached elsewhere
			return nil
		} else if err != nil {
			c.mirrored[name] = before
			return err
		}
		return s.tellOf(ctx, name)
	}
	revision, newer, err := s.writePresence(ctx, l, before)
	switch {
	case err != nil:
		return err
	case newer:
		delete(c.mirrored, name)
		l.finish(&wire.Refusal{Reason: transport.Replaced})
		return nil
	}
	c.mirrored[name] = mirrored{l, revision}
	return s.tellOf(ctx, name)
}

// tellOf makes the others look at an identity.
func (s *Server) tellOf(ctx context.Context, name identity.Name) error {
	return s.tell(ctx, news{Attached: name.String(), Node: s.cluster.node})
}

// writePresence writes the record of a link, unless that of another live node
// is newer.
func (s *Server) writePresence(ctx context.Context, l *link, before mirrored) (revision uint64, newer bool, err error) {
	c, key := &s.cluster, presenceKey(l.peer.Name)
	value, err := encodeRecord(bucketPresence, key, l.attached().record(c.node, c.run))
	if err != nil {
		return 0, false, err
	}
	found, revision, err := load[presenceRecord](ctx, c.store, bucketPresence, key)
	if errors.Is(err, ErrNotFound) {
		revision, err = c.store.Create(ctx, bucketPresence, key, value)
		return revision, false, err
	} else if err != nil {
		return 0, false, err
	}
	if found.Run != c.run {
		live, err := c.lives(ctx, found.Node, found.Run)
		if err != nil {
			return 0, false, err
		}
		late := time.Since(l.since) > justNow && found.Since.After(l.since)
		if live && (before.link == l || late) {
			return 0, true, nil
		}
	}
	revision, err = c.store.Update(ctx, bucketPresence, key, value, revision)
	return revision, false, err
}
