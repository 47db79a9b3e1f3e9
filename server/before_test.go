package server

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestFirstEndsBeforeRestIsTold: and neither outlives the other's failure.
func TestFirstEndsBeforeRestIsTold(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name        string
		first, rest error // that end them after a minute
		want        error
		order       []string
	}{
		{"both stopped", nil, nil, nil, []string{"first", "rest"}},
		{"first fails", broken, nil, broken, []string{"first", "rest"}},
		{"rest fails", nil, broken, broken, []string{"rest", "first"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan string, 2)
				part := func(name string, fault error) task {
					return func(ctx context.Context) error {
						defer func() { ended <- name }()
						if fault != nil {
							time.Sleep(time.Minute)
							return fault
						}
						<-ctx.Done()
						time.Sleep(time.Second)
						return nil
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(time.Hour, cancel)
				err := before(part("first", c.first), part("rest", c.rest))(ctx)
				if order := []string{<-ended, <-ended}; !errors.Is(err, c.want) || !slices.Equal(order, c.order) {
					t.Errorf("got %v and %q, want %v and %q", err, order, c.want, c.order)
				}
			})
		})
	}
}
