// Package service installs the agent as a service of systemd, procd (OpenWrt) or Windows, controls it, and runs under
// it.
//
// kardianos/service talks to the service managers. Its unit and init script do not suit an unattended gateway, so this
// package renders both and passes them on as finished text:
//
//   - its procd script gives up after five quick crashes, and does not start the agent when the WAN comes up;
//   - its systemd unit waits 120 s between starts, stops after ten, and has neither readiness, watchdog nor sandbox;
//   - since its version 1.3 scripts are templates whose quoting does not handle '%', '$' and '\';
//   - on Windows it registers no action on failure by default, and only one if asked; its stop may never return; and a
//     service starts in system32.
//
// Other service managers are refused (ErrUnsupported), because they would not start a crashed agent again.
package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	kardianos "github.com/kardianos/service"
)

// Name is the service's name for every service manager.
const Name = "hawser-agent"

// Errors that callers branch on, with errors.Is.
var (
	// ErrNotInstalled: the service manager does not know the service.
	ErrNotInstalled = errors.New("not installed")
	// ErrUnsupported: the machine has no service manager that this package knows.
	ErrUnsupported = errors.New("no supported service manager")
)

// A State is the state of the service, as its manager reports it.
type State string

// The states.
const (
	Running State = "running" // or starting
	Stopped State = "stopped"
)

// Options say how the service starts the agent. Relative paths are made absolute, since a service starts in another
// directory.
type Options struct {
	Executable string // empty: the program that runs now
	Config     string // the agent's --config; empty: its default
	Data       string // the agent's --data; empty: its default
}

// A Service is the agent's service on this machine. Its methods block until the service manager has answered, which
// for Stop and Restart is when the agent has stopped; on Windows they fail after 30 s.
type Service struct {
	control  kardianos.Service
	packaged []string // where a package would have put the unit; see Install
	root     func() bool
}

// The platforms' names in kardianos/service.
const (
	systemd = "linux-systemd"
	procd   = "linux-procd"
	windows = "windows-service"
)

// New prepares the service and changes nothing on the machine.
func New(o Options) (*Service, error) {
	l, err := newLaunch(o)
	if err != nil {
		return nil, fmt.Errorf("prepare service: %w", err)
	}
	config, err := l.config(kardianos.Platform())
	if err != nil {
		return nil, fmt.Errorf("prepare service: %w", err)
	}
	control, err := kardianos.New(nil, config)
	if err != nil {
		return nil, fmt.Errorf("prepare service: %w", err)
	}
	s := &Service{control: completed(control), root: isRoot}
	if control.Platform() == systemd {
		s.packaged = []string{"/usr/lib/systemd/system/" + Name + ".service", "/lib/systemd/system/" + Name + ".service"}
	}
	return s, nil
}

// isRoot is true on Windows, which has no user 0 and checks rights itself.
func isRoot() bool { return os.Geteuid() <= 0 }

// Install registers the service to start with the machine; it does not start it now. It returns an error if a package has
// installed a unit, which the new one would hide, also after updates of the package.
func (s *Service) Install() error {
	for _, unit := range s.packaged {
		if _, err := os.Stat(unit); err == nil {
			return fmt.Errorf("install service %s: a package owns %s: use `systemctl enable --now %s`", Name, unit, Name)
		}
	}
	return s.do("install", s.control.Install)
}

// Uninstall stops the service and removes it. The agent's identity and configuration stay.
func (s *Service) Uninstall() error {
	return s.do("uninstall", func() error {
		// Service managers remove a running service without stopping it.
		if state, err := s.control.Status(); err == nil && state == kardianos.StatusRunning {
			if err := s.control.Stop(); err != nil {
				return err
			}
		}
		return s.control.Uninstall()
	})
}

// Start starts the service.
func (s *Service) Start() error { return s.do("start", s.control.Start) }

// Stop stops the service until the machine starts again, or until Start.
func (s *Service) Stop() error { return s.do("stop", s.control.Stop) }

// Restart stops the service, if it runs, and starts it.
func (s *Service) Restart() error { return s.do("restart", s.control.Restart) }

// Status returns the state of the service. Every user may call it. The state "failed" of systemd is an error.
func (s *Service) Status() (State, error) {
	status, err := s.control.Status()
	switch {
	case errors.Is(err, kardianos.ErrNotInstalled):
		return "", fmt.Errorf("ask for service %s: %w: install it with `%s service install`", Name, ErrNotInstalled, Name)
	case err != nil:
		return "", fmt.Errorf("ask for service %s: %w", Name, err)
	case status == kardianos.StatusRunning:
		return Running, nil
	}
	return Stopped, nil
}

// do adds advice to an error.
func (s *Service) do(verb string, action func() error) error {
	if !s.root() {
		return fmt.Errorf("%s service %s: %w: run it as root, for instance with sudo", verb, Name, fs.ErrPermission)
	}
	err := action()
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s service %s: %w: run it as administrator", verb, Name, err)
	}
	if err != nil {
		return fmt.Errorf("%s service %s: %w", verb, Name, err)
	}
	return nil
}

// A launch is a checked Options: how to start the agent, all paths absolute.
type launch struct {
	executable, configFile, data string // the last two may be empty
}

// newLaunch refuses paths that a template, a unit or a script could take for something else: they are written into
// files that root runs.
func newLaunch(o Options) (launch, error) {
	l := launch{executable: o.Executable, configFile: o.Config, data: o.Data}
	if l.executable == "" {
		self, err := os.Executable()
		if err != nil {
			return launch{}, fmt.Errorf("find this program: %w", err)
		}
		l.executable = self
	}
	for _, path := range []*string{&l.executable, &l.configFile, &l.data} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return launch{}, err
		}
		if strings.ContainsFunc(absolute, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.Contains(absolute, "{{") {
			return launch{}, fmt.Errorf("path %q: a service manager cannot take it", absolute)
		}
		*path = absolute
	}
	return l, nil
}

// arguments are those of the command line, after the executable.
func (l launch) arguments() []string {
	args := []string{"run"}
	if l.configFile != "" {
		args = append(args, "--config", l.configFile)
	}
	if l.data != "" {
		args = append(args, "--data", l.data)
	}
	return args
}

// config is the configuration of kardianos/service for a platform.
func (l launch) config(platform string) (*kardianos.Config, error) {
	c := &kardianos.Config{
		Name:        Name,
		DisplayName: "Hawser Runtime",
		Description: description,
		Executable:  l.executable,
		Arguments:   l.arguments(),
	}
	switch platform {
	case systemd:
		unit, err := l.unit()
		if err != nil {
			return nil, err
		}
		c.Option = kardianos.KeyValue{"SystemdScript": unit}
	case procd:
		c.Option = kardianos.KeyValue{"SysvScript": l.initScript()}
	case windows:
		c.Option = kardianos.KeyValue{"StartType": "automatic"} // the rest is set by completed
	default:
		return nil, fmt.Errorf("%w here (found %q): start `%s` from yours", ErrUnsupported, platform, strings.Join(append([]string{l.executable}, l.arguments()...), " "))
	}
	return c, nil
}

const description = "Hawser Runtime: reaches out so that a technician can reach the machine"
