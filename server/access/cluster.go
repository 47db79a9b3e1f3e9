package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hawser/identity"
)

// cluster is this node's part in being one Access Server with others (access
// §9). One goroutine, tend, mirrors who is attached here into the store, and
// learns from it who is elsewhere; whoever changes something only says so. It
// is safe for concurrent use.
type cluster struct {
	lease
	bus  Bus
	wake chan struct{} // tend has something to do

	mu     sync.Mutex // guards the rest; not held while lease.mu is taken
	others map[string]string
	dirty  map[identity.Name]bool // attached or detached since it was mirrored
	behind bool                   // news may have been missed
	moved  bool                   // nodes or their relays may have changed

	mirrored map[identity.Name]mirrored // of tend alone
}

func (c *cluster) init(cfg Config) {
	c.store, c.node, c.run = cfg.Store, cfg.Node, newID()
	c.bus, c.wake = cfg.Bus, make(chan struct{}, 1)
	if c.alone = c.bus == nil; c.alone {
		c.bus = NewBus()
	}
	c.dirty, c.mirrored = make(map[identity.Name]bool), make(map[identity.Name]mirrored)
}

// touch lets tend mirror an identity anew.
func (c *cluster) touch(names ...identity.Name) {
	c.note(func() {
		for _, n := range names {
			c.dirty[n] = true
		}
	})
}

// note changes what waits for tend, and wakes it.
func (c *cluster) note(change func()) {
	c.set(change)
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// set is note for tend itself.
func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// solitary reports whether no other node was there when tend looked last.
func (c *cluster) solitary() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.others) == 0
}

// lives reports whether a process holds the lease of a node.
func (c *cluster) lives(ctx context.Context, node, run string) (bool, error) {
	c.mu.Lock()
	known := c.others[node]
	c.mu.Unlock()
	if known == run || node == c.node {
		return known == run || run == c.run, nil
	}
	r, _, err := load[nodeRecord](ctx, c.store, bucketNodes, node)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return r.Run == run, err
}

// tend renews the lease and keeps store and memory alike, until ctx ends.
// ErrInUse: another process has taken this node's name.
func (s *Server) tend(ctx context.Context) error {
	timer := time.NewTimer(leaseEvery)
	defer timer.Stop()
	healthy := true
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-s.cluster.wake:
		case <-timer.C:
			due = true
		}
		err := s.tendOnce(ctx, due || !healthy)
		if errors.Is(err, ErrInUse) {
			return err
		}
		if healthy != (err == nil) && ctx.Err() == nil {
			healthy = err == nil
			s.logHealth(err)
		}
		switch {
		case !healthy:
			timer.Reset(leaseAgain)
		case due && !s.cluster.alone:
			timer.Reset(leaseEvery)
		}
	}
}

func (s *Server) logHealth(err error) {
	if err != nil {
		s.log.Error("no sessions are brokered: the store does not work", "err", err)
		return
	}
	s.log.Info("the store works again")
}

// tendOnce does what waits. What fails waits on.
func (s *Server) tendOnce(ctx context.Context, renew bool) error {
	c := &s.cluster
	c.mu.Lock()
	behind := c.behind
	c.mu.Unlock()
	if renew || behind {
		anew, err := c.renew(ctx)
		if err != nil {
			return err
		}
		if anew {
			s.introduce(ctx)
		}
		c.set(func() { c.moved = true })
	}
	return errors.Join(s.catchUp(ctx), s.mirror(ctx), s.lookAround(ctx))
}

// introduce tells the others that this node is there, and writes all anew that
// was perhaps forgotten.
func (s *Server) introduce(ctx context.Context) {
	clear(s.cluster.mirrored)
	s.cluster.touch(s.presence.names()...)
	s.cluster.note(func() { s.cluster.behind = true })
	s.tell(ctx, news{Node: s.cluster.node})
}

// catchUp reads again what news are about, after some may have been missed.
func (s *Server) catchUp(ctx context.Context) error {
	c := &s.cluster
	if !c.lower(&c.behind) {
		return nil
	}
	err := errors.Join(s.loadRevoked(ctx), s.loadSessions(ctx))
	if err != nil {
		c.set(func() { c.behind = true })
	}
	c.set(func() { c.moved = true })
	return err
}

// lower returns a flag and lowers it.
func (c *cluster) lower(flag *bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, *flag = *flag, false
	return was
}

// lookAround learns which nodes there are, and which relays they have.
func (s *Server) lookAround(ctx context.Context) error {
	c := &s.cluster
	if !c.lower(&c.moved) {
		return nil
	}
	others, relays, err := s.findOthers(ctx)
	if err != nil {
		c.set(func() { c.moved = true })
		return err
	}
	c.set(func() { c.others = others })
	s.presence.setOthers(relays)
	return nil
}

func (s *Server) findOthers(ctx context.Context) (others map[string]string, relays []*attached, err error) {
	nodes, err := s.cfg.Store.List(ctx, bucketNodes, "")
	if err != nil {
		return nil, nil, err
	}
	others = make(map[string]string)
	for _, e := range nodes {
		var r nodeRecord
		if err := decode(e, bucketNodes, &r); err != nil {
			return nil, nil, err
		}
		if e.Key != s.cluster.node {
			others[e.Key] = r.Run
		}
	}
	if len(others) == 0 {
		return others, nil, nil
	}
	records, err := list[presenceRecord](ctx, s.cfg.Store, bucketPresence, string(identity.KindRelay)+".")
	if err != nil {
		return nil, nil, err
	}
	for _, r := range records {
		if r.Run == "" || others[r.Node] != r.Run {
			continue
		}
		a, err := r.attached()
		if err != nil {
			return nil, nil, err
		}
		relays = append(relays, a)
	}
	return others, relays, nil
}

// leaveCluster gives up the lease.
func (s *Server) leaveCluster(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := s.cluster.drop(ctx)
	if err == nil {
		err = s.tell(ctx, news{Node: s.cluster.node})
	}
	if err != nil {
		s.log.Error("the others wait for the lease to end", "err", fmt.Errorf("leave cluster: %w", err))
	}
}
