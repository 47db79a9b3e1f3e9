package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
)

// FirstContact is what an operator types for the first contact. What is empty
// is taken from the configuration file. The fields are text as typed, so that an error can name
// its flag.
type FirstContact struct {
	Access   []string // HOST or HOST:PORT
	Ports    []uint
	Code     string // the owner's code for this device
	RootFile string
	Pin      string   // SHA-256 of the root's public key, in hex
	Proxy    []string // auto, none, or URLs without name and password
	Private  bool     // the infrastructure has private addresses
}

// serversCode refuses a code that no Manager of the owner has made. The server knows everything of such a code, so that it
// could give the gateway to whom it likes.
type serversCode struct{ fault error }

func (serversCode) Error() string {
	return "it is a code of a server, for the founder of a domain or for a relay, and no gateway takes one"
}

func (e serversCode) Unwrap() error { return e.fault }

// Prepare checks f and merges it into cfg. An error is a mistake of the operator.
// It reads the root certificate and uses no network.
func (f FirstContact) Prepare(cfg *Config) (e EnrollOptions, err error) {
	if e.Code, err = identity.ParseOwnerCode(f.Code); err != nil {
		if _, server := identity.ParseCode(f.Code); server == nil {
			err = serversCode{err}
		}
		return e, fmt.Errorf("--code: %w", err)
	}
	e.Pin, err = f.Reach(cfg)
	return e, err
}

// Reach is Prepare without the code: it settles the servers and the root of trust.
// The pin is zero when cfg has roots.
func (f FirstContact) Reach(cfg *Config) (pin identity.SPKI, err error) {
	// Flags replace the list of the file and do not add to it: a gateway that moves to another infrastructure must not
	// keep an address of the old one.
	if len(f.Access) > 0 {
		cfg.Access = nil
	}
	for _, h := range f.Access {
		host, err := transport.ParseHost(h)
		if err != nil {
			return pin, fmt.Errorf("--access: %w", err)
		}
		cfg.Access = append(cfg.Access, host)
	}
	if len(cfg.Access) == 0 {
		return pin, errors.New("no Access Server is named: give --access HOST")
	}
	if err := f.ports(cfg); err != nil {
		return pin, err
	}
	if err := f.proxy(cfg); err != nil {
		return pin, err
	}
	if f.Private && !cfg.Private && cfg.File != "" {
		return pin, fmt.Errorf("--private: enroll leaves %s as it is, and the agent reads that: put private_infrastructure: true into it", cfg.File)
	}
	cfg.Private = cfg.Private || f.Private
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

// proxy refuses what the agent would not find again: a file that is there stays as it is.
func (f FirstContact) proxy(cfg *Config) error {
	if len(f.Proxy) == 0 {
		return nil
	}
	s, err := transport.ParseProxyFlag(f.Proxy, "agent.yaml (proxy: URL), a provisioning file (agent proxy: URL), or the environment of this command, as https_proxy")
	if err == nil && cfg.File != "" && s.String() != cfg.Proxy.String() {
		err = fmt.Errorf("--proxy: enroll leaves %s as it is, and the agent reads that: put proxy: %q into it", cfg.File, s.Words())
	}
	if err == nil {
		cfg.Proxy = s
	}
	return err
}

func (f FirstContact) trust(cfg *Config) (pin identity.SPKI, err error) {
	switch {
	// A root wins over a pin: it is complete, while with a pin the root is whatever chain is shown that hashes to it.
	case f.RootFile != "":
		cfg.Roots, err = LoadRoots(f.RootFile)
	// A pin that was typed beats the root of the file, since it was typed now.
	case f.Pin != "":
		cfg.Roots = nil
		if pin, err = identity.ParsePin(f.Pin); err != nil {
			err = fmt.Errorf("--pin: %w", err)
		}
	case cfg.Roots == nil && !cfg.Pin.IsZero():
		pin = cfg.Pin
	case cfg.Roots == nil:
		err = errors.New("nothing says whom to trust: give --root FILE or --pin SHA256, as hawser-server init printed them")
	}
	return pin, err
}

// WriteConfig writes a configuration file for an agent that has just enrolled,
// unless there is one already. The root is the one in the state directory. An existing file is never touched: it is the
// owner's, with his rules and comments.
func WriteConfig(file string, cfg Config) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := fileFor(cfg)
	if err != nil {
		return err
	}
	return durable.WriteFile(file, b, 0o644)
}
