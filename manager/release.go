package manager

import (
	"context"
	"net/http"

	"hawser/identity"
	"hawser/transport/api"
)

// ReleaseDevice lets a device go: its gateway forgets its identity and its owner as soon as it hears of that, and waits for a
// code, of whomever. In the same request all that was stated of it is struck, so that nobody gets in from now on, and no
// statement brings it back.
func (a *Account) ReleaseDevice(ctx context.Context, typed string) (d api.Device, err error) {
	if err := checkTyped(typed); err != nil {
		return d, err
	}
	pool, p, stated, err := a.about(ctx, typed)
	if err != nil {
		return d, err
	}
	if stated.Serial, err = a.serial(pool, identity.Subject{UID: stated.UID}); err != nil {
		return d, err
	}
	stated.Seen, stated.Released = p.seen, true
	released, err := identity.Sign(stated, p.key)
	if err != nil {
		return d, err
	}
	op := "release device " + typed
	// Its keys are struck with it, and not by their hashes: the gateway makes a new one.
	entries := entriesOf(stated.UID, stated.Serial, nil)
	err = a.strike(ctx, op, p, entries, []string{released.JWS}, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, "/statements", api.Statements{Statements: texts}, nil)
	})
	if err != nil {
		return d, err
	}
	return d, a.do(ctx, op, http.MethodGet, pathOf(stated.UID), nil, &d)
}
