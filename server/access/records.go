package access

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"hawser/internal/wait"
	"hawser/server/store"
)

// How long anybody waits for the store. An API request ends within 30 s: what a write waits for beside this is two
// commits at most, and the store bounds those.
const (
	viewTime  = 8 * time.Second
	queueTime = 8 * time.Second // until a write has its turn
	healEvery = 2 * time.Second // a store that did not work is tried again
)

// records is the store as this server uses it: no call waits for ever, and a store that does not work is logged once,
// not by every call. Whether a failed call has written anything is unknown, so memory is compared with the store when
// it works again. It is safe for concurrent use.
type records struct {
	*store.Store
	log    *slog.Logger
	failed wait.Bell // it does not work

	mu   sync.Mutex // guards down
	down bool
}

func newRecords(st *store.Store, log *slog.Logger) *records {
	return &records{Store: st, log: log, failed: wait.NewBell()}
}

// View is that of the store, within viewTime.
func (r *records) View(ctx context.Context, f func(*store.Tx) error) error {
	return r.within(ctx, viewTime, func(ctx context.Context) error { return r.Store.View(ctx, f) })
}

// Update is that of the store.
func (r *records) Update(ctx context.Context, f func(*store.Tx) error) error {
	return r.within(ctx, queueTime, func(ctx context.Context) error { return r.Store.Update(ctx, f) })
}

// UpdateAlways is that of the store.
func (r *records) UpdateAlways(ctx context.Context, f func(*store.Tx) error) error {
	return r.within(ctx, queueTime, func(ctx context.Context) error { return r.Store.UpdateAlways(ctx, f) })
}

// TakeLease is that of the store, within viewTime, as are RenewLease and DropLease.
func (r *records) TakeLease(ctx context.Context) error {
	return r.within(ctx, viewTime, r.Store.TakeLease)
}

// RenewLease is that of the store.
func (r *records) RenewLease(ctx context.Context) error {
	return r.within(ctx, viewTime, r.Store.RenewLease)
}

// DropLease is that of the store.
func (r *records) DropLease(ctx context.Context) error {
	return r.within(ctx, viewTime, r.Store.DropLease)
}

// within takes an error for the store's only when the limit was its own: a client that hangs up says nothing about the
// store.
func (r *records) within(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(bounded)
	if isAway(err) && ctx.Err() == nil { // else it is the client that went away
		r.note(err)
	}
	return err
}

// note logs the first failure only: while a database is away every request fails, and the log would be nothing else.
func (r *records) note(err error) {
	r.mu.Lock()
	was := r.down
	r.down = true
	r.mu.Unlock()
	if !was {
		r.log.Error("the store does not work: what needs it is refused", "err", err)
		r.failed.Ring()
	}
}

func (r *records) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// works writes something, and reports whether that is possible. Reading would not tell: a full disk is read from as
// before.
func (r *records) works(ctx context.Context) bool {
	return r.UpdateAlways(ctx, func(tx *store.Tx) error {
		tx.Note(changeNode, r.Node())
		return nil
	}) == nil
}

// heal tries a store that did not work, and makes memory what the store has. What failed may have been written all the
// same; memory that went on as if it had not would keep a revoked device attached.
func (s *Server) heal(ctx context.Context) {
	if !s.store.works(ctx) {
		return
	}
	// Before memory is compared: what fails from here on is compared again.
	s.store.mu.Lock()
	s.store.down = false
	s.store.mu.Unlock()
	s.owners.drop("")
	if err := errors.Join(s.unlessKnown(s.loadRevoked(ctx)), s.unlessKnown(s.loadSessions(ctx))); err != nil {
		if ctx.Err() == nil {
			s.store.note(err)
		}
		return
	}
	s.endRevoked(ctx)
	s.log.Info("the store works again")
}
