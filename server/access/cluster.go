package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/server/store"
)

// followEvery is how often a node reads what other nodes have written. Hints make that faster, but a hint may be lost.
// A revocation is known everywhere within it.
const followEvery = time.Second

// cluster is this node's part in being one Access Server with others (access §9). One goroutine, clusterLoop, writes
// who is attached here into the store and reads from it who is attached elsewhere. Everybody else only schedules work
// for it, and never waits for the store. It is safe for concurrent use. One goroutine, because lease, rows and changes
// belong to one order: a node that has just lost its lease must not write a row after it.
type cluster struct {
	lease
	bus   Bus       // nil: this node is the only one
	wake  wait.Bell // clusterLoop has work
	state clusterState

	// What clusterLoop alone uses.
	follower *store.Follower
	mirrored map[identity.Name]*link // whose row the store has
}

// clusterState is what is scheduled for clusterLoop, and what it has found. The lease's mutex is never locked while
// this one is held.
type clusterState struct {
	mu        sync.Mutex             // guards the rest
	others    map[string]string      // run of each other node that holds its lease
	dirty     map[identity.Name]bool // attached or detached since the last mirror
	followDue bool                   // others may have written something
	nodesDue  bool                   // nodes, or the relays attached to them, may have changed
}

func (c *cluster) init(cfg Config, st *records) {
	c.store, c.node, c.run = st, cfg.Store.Node(), cfg.Store.Run()
	c.bus, c.wake = cfg.Bus, wait.NewBell()
	c.alone = !cfg.Shared
	c.follower = cfg.Store.Follow()
	c.state.dirty, c.mirrored = make(map[identity.Name]bool), make(map[identity.Name]*link)
}

// join starts to receive hints and orders of other nodes.
func (c *cluster) join(s *Server) (leave func(), err error) {
	if c.alone {
		return func() {}, nil
	}
	return c.bus.Join(c.node, BusHandler{Hint: func() { c.schedule(&c.state.followDue) }, Answer: s.serveOrder})
}

// markDirty schedules a new row for an identity that was attached or detached.
func (c *cluster) markDirty(names ...identity.Name) {
	if c.alone {
		return // nobody reads the rows
	}
	c.state.markDirty(names)
	c.wake.Ring()
}

func (c *clusterState) markDirty(names []identity.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		c.dirty[n] = true
	}
}

// unwritten is how many rows wait for clusterLoop.
func (c *clusterState) unwritten() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.dirty)
}

// schedule raises a flag of state and wakes clusterLoop.
func (c *cluster) schedule(flag *bool) {
	c.state.raise(flag)
	c.wake.Ring()
}

// raise is schedule for clusterLoop itself, which must not wake itself at once when the store has failed.
func (c *clusterState) raise(flag *bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*flag = true
}

// takeFlag returns a flag and lowers it.
func (c *clusterState) takeFlag(flag *bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, *flag = *flag, false
	return was
}

// hasOthers reports whether there was another node when clusterLoop looked last.
func (c *clusterState) hasOthers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.others) > 0
}

// setOthers notes the other nodes, and reports whether one is among them that was not there before.
func (c *clusterState) setOthers(others map[string]string) (more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, run := range others {
		more = more || c.others[node] != run
	}
	c.others = others
	return more
}

// liveNodes returns the other nodes that held their lease when clusterLoop looked last.
func (c *clusterState) liveNodes() (nodes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.others {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	return nodes
}

// clusterLoop renews the lease and keeps store and memory alike, until ctx ends. The error ErrInUse means that another
// process has taken this node's name; every other error is logged and retried, because the links stay useful meanwhile.
func (s *Server) clusterLoop(ctx context.Context) error {
	if s.cluster.alone {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(followEvery)
	defer timer.Stop()
	renewed, healthy := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return nil
		// A burst of devices rings once: mirror writes up to 64 rows in one transaction.
		case <-s.cluster.wake:
		case <-timer.C:
			s.cluster.state.raise(&s.cluster.state.followDue)
			timer.Reset(followEvery)
		}
		// After a failure at each turn, so that the lease is back within a second of the database.
		due := !healthy || time.Since(renewed) >= leaseEvery
		if due {
			renewed = time.Now()
		}
		err := s.clusterStep(ctx, due)
		// The one error that ends the server: two processes with one name would each write the other's audit chain.
		if errors.Is(err, store.ErrInUse) {
			return err
		}
		if was := healthy; was != (err == nil) && ctx.Err() == nil {
			if healthy = err == nil; was {
				s.logFailure("the other Access Servers are not followed", err)
			}
		}
	}
}

// clusterStep does what is due. What fails stays due.
func (s *Server) clusterStep(ctx context.Context, renew bool) error {
	c := &s.cluster
	if c.alone {
		return nil
	}
	if renew {
		regained, err := c.renew(ctx)
		if err != nil {
			return err
		}
		if regained {
			err = s.announce(ctx)
		}
		c.state.raise(&c.state.nodesDue) // a lease of another node may have ended, which nobody announces
		if err != nil {
			return err
		}
	}
	// Follow first: what another node wrote decides which rows mirror writes.
	return errors.Join(s.follow(ctx), s.mirror(ctx), s.refreshNodes(ctx))
}

// announce tells the others that this node is there. While it had no lease they may have replaced its rows, so it
// writes all of them again.
func (s *Server) announce(ctx context.Context) error {
	c := &s.cluster
	if c.alone {
		return nil
	}
	clear(c.mirrored)
	c.markDirty(s.presence.names()...)
	c.schedule(&c.state.followDue)
	c.schedule(&c.state.nodesDue)
	err := c.store.UpdateAlways(ctx, func(tx *store.Tx) error { return s.publish(tx, changeNode, c.node) })
	s.hint()
	return err
}

// refreshNodes reads which nodes there are, and which relays are attached to them. Only when a change says so and at
// each renewal of the lease: it reads every relay of the others.
func (s *Server) refreshNodes(ctx context.Context) error {
	c := &s.cluster
	if !c.state.takeFlag(&c.state.nodesDue) {
		return nil
	}
	others, relays, err := s.readNodes(ctx)
	if err != nil {
		c.state.raise(&c.state.nodesDue)
		return err
	}
	if c.state.setOthers(others) {
		s.hint() // a node that does not know this one yet sends it no hints
	}
	s.presence.setOthers(relays)
	return nil
}

func (s *Server) readNodes(ctx context.Context) (others map[string]string, relays []*onlineMember, err error) {
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if others, err = tx.Leases(); err != nil {
			return err
		}
		delete(others, s.cluster.node)
		if len(others) == 0 {
			return nil
		}
		list, err := tx.RelaysElsewhere(s.cluster.node)
		if err != nil {
			return err
		}
		for _, p := range list {
			// A row of a process that died is there until somebody writes over it; its lease says that it does not
			// count.
			if p.Run == "" || others[p.Node] != p.Run {
				continue
			}
			a, err := parsePresence(p)
			if err != nil {
				return err
			}
			relays = append(relays, a)
		}
		return nil
	})
	return others, relays, err
}

// leaveCluster releases the lease, so that the others need not wait 15 s for its end.
func (s *Server) leaveCluster(ctx context.Context) {
	if s.cluster.alone {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error { return s.publish(tx, changeNode, s.cluster.node) })
	if err = errors.Join(err, s.cluster.release(ctx)); err != nil {
		s.log.Error("the others wait for the lease to end", "err", fmt.Errorf("leave cluster: %w", err))
	}
	s.hint()
}

// The changes that nodes publish to each other through the store (access §9).
const (
	changeRevoked  = "revoked"  // a key: its SPKI
	changeSession  = "session"  // a session: sessionChange in JSON
	changeAttached = "attached" // a device or relay that was attached, changed or detached: its name URI
	changeNode     = "node"     // a node that came or leaves
	changeCloned   = "cloned"   // a device of which there are two, or whose owner has chosen one of them: its name URI

	changeStatements = "statements" // what an owner has stated: statementsChange in JSON
)

// publish adds a change for the other nodes to the transaction that makes it: either both are committed or neither. A
// message beside the database could arrive before the commit, or for one that failed.
func (s *Server) publish(tx *store.Tx, kind, subject string) error {
	if !s.cluster.alone {
		tx.Note(kind, subject)
	}
	return nil
}

func (s *Server) publishSession(tx *store.Tx, n *sessionChange) error {
	if s.cluster.alone {
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("tell of session: %w", err)
	}
	return s.publish(tx, changeSession, string(b))
}

// publishSessionNow publishes what this node alone knows of a session. The others work without it: an error is logged.
func (s *Server) publishSessionNow(ctx context.Context, id string) {
	n := s.sessions.changeOf(id)
	if n == nil || s.cluster.alone {
		return
	}
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		now := store.Session{ID: id}
		if err := tx.Get(&now); err != nil || !now.Ended.IsZero() || now.Epoch != n.Record.Epoch {
			return err // news of what is over would bring it to life again
		}
		return s.publishSession(tx, n)
	})
	if err != nil {
		s.logFailure("the other Access Servers are not told", err)
	}
	s.hint()
}

// hint makes the others read the changes at once instead of within followEvery.
func (s *Server) hint() {
	if !s.cluster.alone {
		s.cluster.bus.Hint()
	}
}

// follow applies what other nodes have written. If it may have missed a change, it reads everything again.
func (s *Server) follow(ctx context.Context) error {
	c := &s.cluster
	if !c.state.takeFlag(&c.state.followDue) {
		return nil
	}
	changes, missed, err := c.follower.Next(ctx)
	if err == nil && missed {
		c.state.raise(&c.state.nodesDue)
		s.owners.drop("")
		err = errors.Join(s.loadRevoked(ctx), s.loadSessions(ctx))
		s.tellLists(ctx, "")
	}
	if err != nil {
		c.state.raise(&c.state.followDue)
		return err
	}
	for _, change := range changes {
		if err := s.apply(ctx, change); err != nil {
			// Logged and passed by: a change that this version does not understand must not stop all that follow it.
			s.log.Error("a change of another Access Server", "kind", change.Kind, "err", err)
		}
	}
	return nil
}

func (s *Server) apply(ctx context.Context, change store.Change) error {
	switch change.Kind {
	case changeRevoked:
		spki, err := identity.ParseSPKI(change.Subject)
		if err == nil {
			s.presence.revoke(spki, s.now())
		}
		return err
	case changeSession:
		var n sessionChange
		if err := json.Unmarshal([]byte(change.Subject), &n); err != nil {
			return err
		}
		s.sessions.apply(n, time.Now())
		s.dueChanged.Ring()
	case changeAttached:
		name, err := identity.ParseName(change.Subject)
		if err != nil {
			return err
		}
		if s.presence.find(name) != nil { // both nodes have a link of it: the row decides which is newer
			s.cluster.markDirty(name)
		}
		if name.Kind == identity.KindRelay {
			s.cluster.state.raise(&s.cluster.state.nodesDue)
		}
	case changeCloned:
		name, err := identity.ParseName(change.Subject)
		if err == nil {
			err = s.applyCloned(ctx, name)
		}
		return err
	case changeStatements:
		return s.applyStatements(ctx, change.Subject)
	case changeNode:
		s.cluster.state.raise(&s.cluster.state.nodesDue)
	}
	return nil
}
