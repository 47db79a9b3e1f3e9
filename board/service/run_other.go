//go:build !windows

package service

import (
	"context"
	"io"
	"log/slog"

	kardianos "github.com/kardianos/service"
)

// Run calls f and returns its error. Outside Windows a service is an ordinary process, which the caller's signal context
// stops; under the service manager of Windows its stop order ends ctx instead.
func Run(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

// Log returns the handler for what the agent logs: lines on w, which the service manager collects; under that of Windows,
// which does not, the Event Log.
func Log(w io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// Errors returns w; under the service manager of Windows, the Event Log, in which each Write is an event.
func Errors(w io.Writer) io.Writer { return w }

// completed returns s: here it lacks nothing.
func completed(s kardianos.Service) kardianos.Service { return s }
