package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
	"hawser/transport"
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
				err := endFirst(part("first", c.first), part("rest", c.rest))(ctx)
				if order := []string{<-ended, <-ended}; !errors.Is(err, c.want) || !slices.Equal(order, c.order) {
					t.Errorf("got %v and %q, want %v and %q", err, order, c.want, c.order)
				}
			})
		})
	}
}

// TestRelayWaitsForThePortsOfItsAccessServer: which has to wait for its lease.
func TestRelayWaitsForThePortsOfItsAccessServer(t *testing.T) {
	const lease = 10 * time.Second
	for _, c := range []struct {
		name         string
		leased, fail bool
		want         time.Duration // until the relay runs; below 0: never
	}{
		{"it needs no lease", false, false, 0},
		{"it gets its lease", true, false, lease},
		{"its port is taken meanwhile", true, true, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(time.Hour, cancel)
				taken := errors.New("taken")
				host := memnet.New().Host(netip.MustParseAddr("192.0.2.1"))
				r := &running{Server: *serverOn(host, Config{Ports: []transport.Port{443}}, io.Discard)}
				if c.fail {
					r.Listen = func(string, string) (net.Listener, error) { return nil, taken }
				}
				if c.leased {
					leased := make(chan struct{})
					time.AfterFunc(lease, func() { close(leased) })
					r.leased = leased
				}
				began, ran := time.Now(), time.Duration(-1)
				r.relay = func(ctx context.Context) error {
					ran = time.Since(began)
					<-ctx.Done()
					return nil
				}
				if err := r.run(ctx); c.fail != errors.Is(err, taken) || !c.fail && err != nil {
					t.Error(err)
				}
				if ran != c.want {
					t.Errorf("the relay ran after %v, want %v", ran, c.want)
				}
			})
		})
	}
}
