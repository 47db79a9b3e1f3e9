package service

import (
	"context"
	"log/slog"
	"strings"
)

// A kind is the severity of an event; its number is also the event id.
type kind uint32

const (
	information kind = iota + 1
	warning
	failure
)

// A report writes one event; it may be called from several goroutines.
type report func(k kind, text string) error

// An eventHandler makes one event of each record, with the message and the keys as text. Time and level are fields of the
// event.
type eventHandler struct {
	level slog.Leveler
	text  [failure]slog.Handler // by kind, from information upwards
}

func newEventHandler(r report, level slog.Leveler) *eventHandler {
	h := &eventHandler{level: level}
	for i := range h.text {
		h.text[i] = slog.NewTextHandler(eventWriter{r, information + kind(i)}, &slog.HandlerOptions{Level: level, ReplaceAttr: textOnly})
	}
	return h
}

func textOnly(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// Enabled implements slog.Handler.
func (h *eventHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler.
func (h *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	k := information
	switch {
	case r.Level >= slog.LevelError:
		k = failure
	case r.Level >= slog.LevelWarn:
		k = warning
	}
	return h.text[k-information].Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(t slog.Handler) slog.Handler { return t.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *eventHandler) WithGroup(name string) slog.Handler {
	return h.each(func(t slog.Handler) slog.Handler { return t.WithGroup(name) })
}

func (h *eventHandler) each(f func(slog.Handler) slog.Handler) *eventHandler {
	with := &eventHandler{level: h.level}
	for i, t := range h.text {
		with.text[i] = f(t)
	}
	return with
}

// An eventWriter makes one event from each Write.
type eventWriter struct {
	report report
	kind   kind
}

// maxEvent is below what ReportEvent takes, in bytes.
const maxEvent = 30000

// Write implements io.Writer.
func (w eventWriter) Write(b []byte) (int, error) {
	text := strings.TrimSpace(strings.ToValidUTF8(string(b[:min(len(b), maxEvent)]), ""))
	if err := w.report(w.kind, spaced(text)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// spaced puts a space between % and a digit, as in the zone of an IPv6 address, because the viewer replaces such a pair by
// another text. It drops NULs, which would end the text.
func spaced(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if i > 0 && s[i-1] == '%' && '0' <= s[i] && s[i] <= '9' {
			b.WriteByte(' ')
		}
		if s[i] != 0 {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
