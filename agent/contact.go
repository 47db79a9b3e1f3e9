package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
)

// FirstContact is what an operator types for the first contact. What is empty
// is taken from the configuration file.
type FirstContact struct {
	Access   []string // HOST or HOST:PORT
	Ports    []uint
	Code     string // activation code
	RootFile string
	Pin      string // SHA-256 of the root's public key, in hex
}

// Prepare checks f and merges it into cfg; its errors are the operator's to
// mend. It reads the root certificate and touches no network.
func (f FirstContact) Prepare(cfg *Config) (e EnrollOptions, err error) {
	e.Code = f.Code
	if _, err := identity.ParseCode(f.Code); err != nil {
		return e, fmt.Errorf("--code: %w", err)
	}
	e.Pin, err = f.Reach(cfg)
	return e, err
}

// Reach is Prepare without the code: where the servers are, and whom to trust.
// The pin is zero when cfg has roots.
func (f FirstContact) Reach(cfg *Config) (pin identity.SPKI, err error) {
	if len(f.Access) > 0 {
		cfg.Access = f.Access
	}
	if len(cfg.Access) == 0 {
		return pin, errors.New("no Access Server is named: give --access HOST")
	}
	for _, h := range cfg.Access {
		if _, _, err := transport.SplitHost(h); err != nil {
			return pin, fmt.Errorf("--access: %w", err)
		}
	}
	if err := f.ports(cfg); err != nil {
		return pin, err
	}
	return f.trust(cfg)
}

func (f FirstContact) ports(cfg *Config) error {
	if len(f.Ports) > 0 {
		cfg.Ports = nil
	}
	for _, p := range f.Ports {
		if p == 0 || p > 65535 {
			return fmt.Errorf("--ports: %d is not 1 to 65535", p)
		}
		cfg.Ports = append(cfg.Ports, transport.Port(p))
	}
	if len(cfg.Ports) == 0 {
		cfg.Ports = transport.DefaultPorts()
	}
	return nil
}

func (f FirstContact) trust(cfg *Config) (pin identity.SPKI, err error) {
	switch {
	case f.RootFile != "":
		cfg.Roots, err = LoadRoots(f.RootFile)
	case f.Pin != "":
		cfg.Roots = nil
		if pin, err = identity.ParseSPKI(f.Pin); err != nil {
			err = fmt.Errorf("--pin: %w", err)
		}
	case cfg.Roots == nil:
		err = errors.New("nothing says whom to trust: give --root FILE or --pin SHA256, as hawser-server init printed them")
	}
	return pin, err
}

// WriteConfig writes a configuration file for an agent that has just enrolled,
// unless there is one already. The root is the one in the state directory.
func WriteConfig(file string, cfg Config) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := FileFor(cfg.Access, cfg.Ports, filepath.Join(cfg.Data, rootFile))
	if err != nil {
		return err
	}
	return durable.WriteFile(file, b, 0o644)
}

// BuildTime is when this program was made: the time of its commit as the
// toolchain stamped it (RFC 3339), or else the date of the first release. It is
// the least floor of the clock (time §6).
func BuildTime(stamped string) time.Time {
	if t, err := time.Parse(time.RFC3339, stamped); err == nil {
		return t
	}
	return time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
}
