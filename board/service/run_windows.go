package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	kardianos "github.com/kardianos/service"
	"golang.org/x/sys/windows/svc/eventlog"
)

// Run calls f and returns its error. Under the service manager, ctx ends when that stops the service. When f returns by
// itself, Run returns without reporting to the service manager: to Windows the process has crashed, and it starts it again.
//
// Run reports at once that the service runs, whatever f does first, because the service manager gives up after 30 s. It
// changes from system32, in which services start, to the program's directory, so that no file ends up there.
func Run(ctx context.Context, f func(context.Context) error) error {
	if kardianos.Interactive() {
		return f(ctx)
	}
	if err := leaveSystem32(); err != nil {
		return fmt.Errorf("run service: %w", err)
	}
	p := newProgram(ctx, f)
	s, err := kardianos.New(p, &kardianos.Config{Name: Name})
	if err != nil {
		return fmt.Errorf("run service: %w", err)
	}
	return p.run(s.Run)
}

func leaveSystem32() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return os.Chdir(filepath.Dir(self))
}

// Log returns the handler for the agent's log: lines on w; under the service manager the Event Log, with the source that
// Install has registered.
func Log(w io.Writer, level slog.Leveler) slog.Handler {
	if r := eventLog(); r != nil {
		return newEventHandler(r, level)
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
}

// Errors returns w; under the service manager, the Event Log, in which each Write is an event.
func Errors(w io.Writer) io.Writer {
	if r := eventLog(); r != nil {
		return eventWriter{r, failure}
	}
	return w
}

// eventLog returns nil if the process has a stderr that is read. The log stays open until the process ends.
func eventLog() report {
	if kardianos.Interactive() {
		return nil
	}
	log, err := eventlog.Open(Name)
	if err != nil {
		return nil
	}
	return reportTo(log)
}

func reportTo(log *eventlog.Log) report {
	return func(k kind, text string) error {
		switch k {
		case failure:
			return log.Error(uint32(k), text)
		case warning:
			return log.Warning(uint32(k), text)
		}
		return log.Info(uint32(k), text)
	}
}
