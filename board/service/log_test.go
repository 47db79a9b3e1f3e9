package service

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// collect is an Event Log that can be read.
func collect(events *[]string) report {
	return func(k kind, text string) error {
		*events = append(*events, fmt.Sprintf("%d %s", k, text))
		return nil
	}
}

func TestEachRecordIsOneEventOfItsKind(t *testing.T) {
	var events []string
	log := slog.New(newEventHandler(collect(&events), slog.LevelInfo))
	log.Debug("way out open")
	log.Info("online", "uid", "u1")
	log.With("session", "s1").Warn("stream refused", "reason", "not allowed")
	log.WithGroup("g").Error("save state", "err", errors.New("disk full\nat once"), "time", 1)
	want := []string{
		"1 msg=online uid=u1",
		`2 msg="stream refused" session=s1 reason="not allowed"`,
		`3 msg="save state" g.err="disk full\nat once" g.time=1`,
	}
	if got := strings.Join(events, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("events\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// ReportEvent refuses texts that are too long or hold a NUL, and the viewer replaces %1.
func TestAnEventIsFitForTheEventLog(t *testing.T) {
	var events []string
	w := eventWriter{collect(&events), failure}
	for text, want := range map[string]string{
		"hawser-agent: wrong\n":               "3 hawser-agent: wrong",
		"addr=[fe80::1%1]:443 %%2 100% %":     "3 addr=[fe80::1% 1]:443 %% 2 100% %",
		strings.Repeat("x", maxEvent) + "y":   "3 " + strings.Repeat("x", maxEvent),
		strings.Repeat("x", maxEvent-1) + "é": "3 " + strings.Repeat("x", maxEvent-1),
		"":                                    "3 ",
	} {
		if n, err := w.Write([]byte(text)); n != len(text) || err != nil || events[len(events)-1] != want {
			t.Errorf("%.60q: %d, %v, event %.60q", text, n, err, events[len(events)-1])
		}
	}
	w.report = func(kind, string) error { return errors.ErrUnsupported }
	if _, err := w.Write([]byte("x")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a log that fails: %v", err)
	}
}
