package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	kardianos "github.com/kardianos/service"
)

// A control records what the service manager is asked, in order.
type control struct {
	kardianos.Service // nil: what is not replaced below must not be called
	calls             []string
	status            kardianos.Status
	err               error
}

func (c *control) call(verb string) error            { c.calls = append(c.calls, verb); return c.err }
func (c *control) Install() error                    { return c.call("install") }
func (c *control) Uninstall() error                  { return c.call("uninstall") }
func (c *control) Start() error                      { return c.call("start") }
func (c *control) Stop() error                       { return c.call("stop") }
func (c *control) Restart() error                    { return c.call("restart") }
func (c *control) Status() (kardianos.Status, error) { return c.status, c.err }

func with(c *control) *Service { return &Service{control: c, root: func() bool { return true }} }

func TestVerbsReachTheServiceManager(t *testing.T) {
	for name, c := range map[string]struct {
		verb   func(*Service) error
		status kardianos.Status
		want   []string
	}{
		"install":                 {(*Service).Install, 0, []string{"install"}},
		"start":                   {(*Service).Start, 0, []string{"start"}},
		"stop":                    {(*Service).Stop, 0, []string{"stop"}},
		"restart":                 {(*Service).Restart, 0, []string{"restart"}},
		"uninstall while running": {(*Service).Uninstall, kardianos.StatusRunning, []string{"stop", "uninstall"}},
		"uninstall while stopped": {(*Service).Uninstall, kardianos.StatusStopped, []string{"uninstall"}},
	} {
		fake := &control{status: c.status}
		if err := c.verb(with(fake)); err != nil || !slices.Equal(fake.calls, c.want) {
			t.Errorf("%s: asked %q, %v; want %q", name, fake.calls, err, c.want)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	fake := &control{}
	s := with(fake)
	s.root = func() bool { return false }
	for _, verb := range []func() error{s.Install, s.Uninstall, s.Start, s.Stop, s.Restart} {
		err := verb()
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "run it as root") {
			t.Errorf("without rights: %v", err)
		}
	}
	if fake.calls != nil {
		t.Errorf("without rights the service manager was asked to %q", fake.calls)
	}
	if err := with(&control{err: fs.ErrPermission}).Start(); !strings.Contains(err.Error(), "administrator") {
		t.Errorf("refused: %v", err)
	}
	broken := errors.New("exit status 5")
	if err := with(&control{err: broken}).Start(); !errors.Is(err, broken) || !strings.Contains(err.Error(), "start service hawser-agent") {
		t.Errorf("broken: %v", err)
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status kardianos.Status
		err    error
		want   State
		wanted error
	}{
		{kardianos.StatusRunning, nil, Running, nil},
		{kardianos.StatusStopped, nil, Stopped, nil},
		{kardianos.StatusUnknown, kardianos.ErrNotInstalled, "", ErrNotInstalled},
		{kardianos.StatusUnknown, fs.ErrInvalid, "", fs.ErrInvalid},
	} {
		got, err := with(&control{status: c.status, err: c.err}).Status()
		if got != c.want || !errors.Is(err, c.wanted) {
			t.Errorf("%v, %v: %q, %v; want %q, %v", c.status, c.err, got, err, c.want, c.wanted)
		}
	}
}

// A service starts in another directory than the shell of its installer, on Windows in system32.
func TestPathsBecomeAbsolute(t *testing.T) {
	l, err := newLaunch(Options{Config: "agent.yaml", Data: "state"})
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"run", "--config", filepath.Join(here, "agent.yaml"), "--data", filepath.Join(here, "state")}
	if got := l.arguments(); !slices.Equal(got, want) || !filepath.IsAbs(l.executable) {
		t.Errorf("%s %q, want %q", l.executable, got, want)
	}
	if l, err = newLaunch(Options{}); err != nil || !slices.Equal(l.arguments(), []string{"run"}) {
		t.Errorf("defaults: %q, %v", l.arguments(), err)
	}
	for _, path := range []string{"/a\nExecStart=/b", "/a\x7f", "/a{{Name}}"} {
		if _, err := newLaunch(Options{Config: path}); err == nil {
			t.Errorf("took the path %q", path)
		}
	}
}

func TestEachPlatformIsToldItsOwn(t *testing.T) {
	l := launch{executable: "/usr/bin/hawser-agent"}
	for platform, key := range map[string]string{systemd: "SystemdScript", procd: "SysvScript", windows: "StartType"} {
		c, err := l.config(platform)
		if err != nil || c.Option[key] == nil || c.Executable != l.executable || c.Name != Name {
			t.Errorf("%s: %+v, %v", platform, c, err)
		}
	}
	for _, platform := range []string{"", "linux-upstart", "unix-systemv", "darwin-launchd"} {
		_, err := l.config(platform)
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "`/usr/bin/hawser-agent run`") {
			t.Errorf("%s: %v, want ErrUnsupported and what to start", platform, err)
		}
	}
}
