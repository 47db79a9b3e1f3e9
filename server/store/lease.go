package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// LeaseTime is how long a lease holds after its last renewal, by the clock of the database. A node that crashed is
// taken for dead that much later; one that pauses for as long has to stop by itself, which is why it counts from before
// it asks.
const LeaseTime = 15 * time.Second

// setRun makes run the process that writes as node. Its commits are refused from then on if another process writes
// there too (advance).
func (t *Tx) setRun(node, run string) error {
	return t.exec("UPDATE heads SET run=? WHERE node=?", run, node)
}

// TakeLease makes this process the one that speaks for its node, for LeaseTime. ErrInUse: another process holds the
// lease now. The database's clock judges, because those of the nodes may be minutes apart.
func (s *Store) TakeLease(ctx context.Context) error {
	return s.transact(ctx, func(t *Tx) error {
		free, err := t.leaseIsFree(s.node, s.run)
		if err != nil {
			return err
		}
		if !free {
			return fmt.Errorf("the name %s of this Access Server is %w", s.node, ErrInUse)
		}
		// With the head, in one transaction: whoever holds the lease is the one whose commits are taken.
		err = t.exec("INSERT INTO leases (node,run,until) VALUES (?,?,"+t.engine.clock()+"+?) "+
			"ON CONFLICT (node) DO UPDATE SET run=excluded.run, until=excluded.until", s.node, s.run, LeaseTime.Microseconds())
		return errors.Join(err, t.setRun(s.node, s.run))
	})
}

// leaseIsFree counts a lease of the same process as free: an answer that was lost is asked for again.
func (t *Tx) leaseIsFree(node, run string) (bool, error) {
	var held int
	err := t.one("SELECT 1 FROM leases WHERE node=? AND run<>? AND until>"+t.engine.clock(), []any{node, run}, &held)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, err
}

// RenewLease prolongs the lease. ErrNotFound: it ran out or another process took it, so others may have taken this node
// for dead.
func (s *Store) RenewLease(ctx context.Context) error {
	return s.transact(ctx, func(t *Tx) error {
		var held int
		err := t.one("SELECT 1 FROM leases WHERE node=? AND run=? AND until>"+t.engine.clock(), []any{s.node, s.run}, &held)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		} else if err != nil {
			return err
		}
		return t.exec("UPDATE leases SET until="+t.engine.clock()+"+? WHERE node=? AND run=?", LeaseTime.Microseconds(), s.node, s.run)
	})
}

// DropLease gives the lease up, so that nobody has to wait for its end.
func (s *Store) DropLease(ctx context.Context) error {
	return s.transact(ctx, func(t *Tx) error {
		return t.exec("DELETE FROM leases WHERE node=? AND run=?", s.node, s.run)
	})
}

// Leases returns which process holds the lease of each node now.
func (t *Tx) Leases() (map[string]string, error) {
	rows, err := t.query("SELECT node,run FROM leases WHERE until>" + t.engine.clock())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	held := make(map[string]string)
	for rows.Next() {
		var node, run string
		if err := rows.Scan(&node, &run); err != nil {
			return nil, t.check(err)
		}
		held[node] = run
	}
	return held, t.check(errors.Join(rows.Err(), rows.Close()))
}
