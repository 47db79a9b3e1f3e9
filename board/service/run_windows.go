package service

import (
	"context"
	"fmt"

	kardianos "github.com/kardianos/service"
)

// Run calls f and returns its error. Under the service manager, ctx ends when that orders a stop. When f ends by itself
// Run returns although the service manager was told nothing: the process then ends as if it had crashed, which is what
// makes Windows start it again.
func Run(ctx context.Context, f func(context.Context) error) error {
	if kardianos.Interactive() {
		return f(ctx)
	}
	p := newProgram(ctx, f)
	s, err := kardianos.New(p, &kardianos.Config{Name: Name})
	if err != nil {
		return fmt.Errorf("run service: %w", err)
	}
	return p.run(s.Run)
}
