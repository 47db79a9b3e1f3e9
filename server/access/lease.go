package access

import (
	"context"
	"errors"
	"sync"
	"time"

	"hawser/server/store"
)

// The lease of a node (access §9). The store ends it by the clock of the database. This node measures it by its own
// monotonic clock and stops earlier, so that two processes never both speak for one node.
const (
	leaseEvery = 5 * time.Second // between two renewals
	leaseAgain = time.Second     // until the next try, if another process has it
	leaseEarly = 5 * time.Second // before its end the node stops acting
)

// lease is the right of a process to speak for a node: the others believe its presence rows only as long as it holds.
// It is safe for concurrent use.
type lease struct {
	store *records
	node  string
	run   string
	alone bool // no other process can have the store, so no lease is needed

	held struct {
		mu    sync.Mutex // guards the rest
		until time.Time
	}
}

// holds reports whether this process may speak for the node now. It is asked before every act, not once for a request:
// a process that was stopped for a while must not go on where it was.
func (l *lease) holds() bool {
	l.held.mu.Lock()
	defer l.held.mu.Unlock()
	return l.alone || time.Now().Before(l.held.until)
}

// take gets the lease. A process that was killed has left its lease, so take waits until that has run out. If it is
// renewed meanwhile, another process has the node: ErrInUse.
func (l *lease) take(ctx context.Context) error {
	if l.alone {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for late := time.Now().Add(store.LeaseTime + leaseEvery); ; timer.Reset(leaseAgain) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := l.takeNow(ctx)
		if !errors.Is(err, store.ErrInUse) || time.Now().After(late) {
			return err
		}
	}
}

// takeNow counts from before the request: how long the answer took must not make the lease longer.
func (l *lease) takeNow(ctx context.Context) error {
	start := time.Now()
	err := l.store.TakeLease(ctx)
	if err == nil {
		l.extend(start)
	}
	return err
}

// extend counts the lease from before it was asked for: when the database began to count is not known here.
func (l *lease) extend(start time.Time) {
	l.held.mu.Lock()
	defer l.held.mu.Unlock()
	l.held.until = start.Add(store.LeaseTime - leaseEarly)
}

// renew extends the lease. regained says that it had been lost and was taken again: others may have taken this node for
// dead and replaced its rows. ErrInUse: another process has it.
func (l *lease) renew(ctx context.Context) (regained bool, err error) {
	start := time.Now()
	err = l.store.RenewLease(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return true, l.takeNow(ctx)
	}
	if err == nil {
		l.extend(start)
	}
	return false, err
}

// release ends the lease, so that nobody has to wait for its end.
func (l *lease) release(ctx context.Context) error {
	l.held.mu.Lock()
	l.held.until = time.Time{}
	l.held.mu.Unlock()
	return l.store.DropLease(ctx)
}
