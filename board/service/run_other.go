//go:build !windows

package service

import (
	"context"
	"io"
	"log/slog"

	kardianos "github.com/kardianos/service"
)

// Run calls f and returns its error. Outside Windows a service is an ordinary process, and signals end the caller's
// context; under the service manager of Windows, its order to stop ends ctx.
func Run(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

// Log returns the handler for the agent's log: lines on w, which the service manager collects. That of Windows does not, so
// there it is the Event Log.
func Log(w io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// Errors returns w; under the service manager of Windows, the Event Log, in which each Write is an event.
func Errors(w io.Writer) io.Writer { return w }

// completed returns s: only Windows needs more than kardianos/service does.
func completed(s kardianos.Service) kardianos.Service { return s }
