package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A Follower learns what other nodes have written. Their commits have numbers without gaps, one row of numbers for each
// node, because each has one writer: so nothing is skipped, in whatever order the database commits. It is not safe for
// concurrent use. One number for the commits of all nodes would lose some: who reads "number > last" misses a row whose
// transaction commits late (tried with PostgreSQL 15).
type Follower struct {
	store       *Store
	incarnation int64
	seen        map[string]int64 // the newest commit of each node that is known
}

// Follow returns a Follower that knows what there is at its first Next.
func (s *Store) Follow() *Follower { return &Follower{store: s} }

// Next returns what other nodes have written since the last call. missed says that something may not be among it: then
// everything has to be read anew, as after the first call.
func (f *Follower) Next(ctx context.Context) (changes []Change, missed bool, err error) {
	seen := make(map[string]int64)
	inc, known := f.incarnation, f.store.lastKnown()
	err = f.store.View(ctx, func(t *Tx) error {
		if err := t.gens(seen); err != nil {
			return err
		}
		if _, err := f.store.judgeAgain(t, known); err != nil {
			return err
		}
		// In a new incarnation numbers may have gone back: nothing that was seen says what is new.
		if inc = f.store.lastKnown().Incarnation; inc != f.incarnation || f.seen == nil {
			missed = true
			return nil
		}
		if err := f.store.goneAstray(f.behind(seen)); err != nil {
			return err
		}
		for node, gen := range seen {
			switch from := f.seen[node]; {
			case node == f.store.node || gen == from:
			// Half of what is kept: the rest is time for the writer, which may delete while this is read.
			case gen-from > keepGens/2:
				missed = true
			default:
				if changes, err = t.changes(changes, node, from); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		err = f.store.reread(ctx)
	}
	if err != nil {
		return nil, false, err
	}
	// Only now. After an error the next call reads the same again; a change that comes twice harms nobody, since it only
	// says what to read.
	f.seen, f.incarnation = seen, inc
	return changes, missed, nil
}

// behind says which commits of other nodes were there and are not, or "".
func (f *Follower) behind(now map[string]int64) string {
	for _, node := range slices.Sorted(maps.Keys(f.seen)) {
		if gone := f.seen[node] - now[node]; gone > 0 && node != f.store.node {
			return fmt.Sprintf("it went back in time while it was used: %d commits of server %s are missing", gone, node)
		}
	}
	return ""
}

// goneAstray notes what other nodes have lost, or that nothing is missing any more.
func (s *Store) goneAstray(why string) error {
	s.mu.Lock()
	before := s.astray
	s.astray = why
	s.mu.Unlock()
	if why == "" {
		return nil
	}
	if why != before {
		s.log.Error("the store has lost what it had acknowledged: nothing is granted until store accept", "store", s.engine.where, "err", why)
	}
	return fmt.Errorf("store %s %w: %s", s.engine.where, ErrDamaged, why)
}

// gens reads the number of the newest commit of each node, of the heads: they are one row a node, and each commit has
// changed its head in the same transaction.
func (t *Tx) gens(into map[string]int64) error {
	rows, err := t.query("SELECT node,gen FROM heads")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var node string
		var gen int64
		if err := rows.Scan(&node, &gen); err != nil {
			return t.check(err)
		}
		into[node] = gen
	}
	return t.check(errors.Join(rows.Err(), rows.Close()))
}

// changes appends what a node has noted after one of its commits, in the order in which it was written.
func (t *Tx) changes(list []Change, node string, after int64) ([]Change, error) {
	rows, err := t.query("SELECT kind,subject FROM changes WHERE node=? AND gen>? ORDER BY gen,i", node, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c Change
		if err := rows.Scan(&c.Kind, &c.Subject); err != nil {
			return nil, t.check(err)
		}
		list = append(list, c)
	}
	return list, t.check(errors.Join(rows.Err(), rows.Close()))
}
