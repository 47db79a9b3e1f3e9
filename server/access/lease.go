package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The lease of a node (access §9).
const (
	leaseTime  = 15 * time.Second // after its last renewal
	leaseEvery = 5 * time.Second  // it is renewed
	leaseAgain = time.Second      // after something failed
)

// nodeRecord is in bucket nodes.
type nodeRecord struct {
	Run string `json:"run"` // one process of the node
}

// lease is the right of a process to speak for a node: what it says of who is
// online counts as long as it holds. It is safe for concurrent use.
type lease struct {
	store Store
	node  string
	run   string
	alone bool // nobody else can have the store: there is nothing to renew

	mu       sync.Mutex // guards the rest
	until    time.Time
	revision uint64
}

// holds reports whether no other process can speak for the node now.
func (l *lease) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alone || time.Now().Before(l.until)
}

// take gets the lease. It waits for one that an earlier process has left to run
// out; one that lives on is another's: ErrInUse.
func (l *lease) take(ctx context.Context) error {
	if l.alone {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for late := time.Now().Add(leaseTime + leaseEvery); ; timer.Reset(leaseAgain) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := l.create(ctx)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if time.Now().After(late) {
			return l.taken()
		}
	}
}

func (l *lease) taken() error {
	return fmt.Errorf("the name %s of this Access Server is %w", l.node, ErrInUse)
}

func (l *lease) create(ctx context.Context) error {
	start := time.Now()
	value, err := encodeRecord(bucketNodes, l.node, nodeRecord{l.run})
	if err != nil {
		return err
	}
	revision, err := l.store.Create(ctx, bucketNodes, l.node, value)
	if err == nil {
		l.keep(revision, start)
	}
	return err
}

func (l *lease) keep(revision uint64, start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision, l.until = revision, start.Add(leaseTime)
}

// renew prolongs the lease. anew says that it had been lost meanwhile: others
// may have taken this node for dead. ErrInUse: another process has it.
func (l *lease) renew(ctx context.Context) (anew bool, err error) {
	if l.alone {
		return false, nil
	}
	start := time.Now()
	value, err := encodeRecord(bucketNodes, l.node, nodeRecord{l.run})
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	old := l.revision
	l.mu.Unlock()
	revision, err := l.store.Update(ctx, bucketNodes, l.node, value, old)
	if err == nil {
		l.keep(revision, start)
	}
	if !errors.Is(err, ErrConflict) {
		return false, err
	}
	found, revision, err := load[nodeRecord](ctx, l.store, bucketNodes, l.node)
	switch {
	case errors.Is(err, ErrNotFound):
		return true, l.create(ctx)
	case err != nil:
		return false, err
	case found.Run != l.run:
		return false, l.taken()
	}
	l.keep(revision, start.Add(leaseEvery-leaseTime)) // written before, its answer lost: renewed next time
	return false, nil
}

// drop gives the lease up, so that nobody has to wait for its end.
func (l *lease) drop(ctx context.Context) error {
	l.mu.Lock()
	old := l.revision
	l.until = time.Time{}
	l.mu.Unlock()
	if l.alone {
		return nil
	}
	return l.store.Delete(ctx, bucketNodes, l.node, old)
}
