package service

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// Windows has three failure actions; the last is also that of every later failure.
func TestEveryFailureStartsTheServiceAgain(t *testing.T) {
	actions := recovery()
	if len(actions) != 3 {
		t.Errorf("%d actions, want 3", len(actions))
	}
	for i, a := range actions {
		if a.Type != mgr.ServiceRestart || a.Delay <= 0 {
			t.Errorf("action %d: %+v, want a restart after a pause", i, a)
		}
	}
}

func TestAServiceThatIsNotInstalledCannotBeStopped(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Status(); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("status: %v, want ErrNotInstalled", err)
	}
	for name, verb := range map[string]func() error{"stop": s.Stop, "restart": s.Restart, "start": s.Start, "uninstall": s.Uninstall} {
		if err := verb(); err == nil || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want that there is none", name, err)
		}
	}
}

func TestTheEventLogTakesEachKind(t *testing.T) {
	log, err := eventlog.Open(Name)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, k := range []kind{information, warning, failure} {
		if _, err := (eventWriter{reportTo(log), k}).Write([]byte("msg=test addr=[fe80::1%1]:443\n")); err != nil {
			t.Errorf("kind %d: %v", k, err)
		}
	}
}
