package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"gopkg.in/yaml.v3"

	"hawser/agent/clock"
	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/strictyaml"
	"hawser/transport"
)

// Config is a checked configuration. LoadConfig makes one; docs/agent.md says
// what each key means. All of it is read once: a change needs a new start, so that no part of the agent runs on older
// settings than another.
type Config struct {
	File    string   // absolute path it was read from; empty: none
	Data    string   // the state directory
	Access  []string // HOST or HOST:PORT
	Ports   []transport.Port
	Roots   *identity.Roots // nil until enrolled when the file names none
	Pin     identity.SPKI   // of the root, for a gateway that has no identity and no root; zero: none
	DNS     []netip.AddrPort
	Time    []string
	Allow   []Rule // nil: the default policy; empty: nothing is allowed
	Private bool   // the infrastructure lives on private addresses (wire §8.3)
	// OwnerOnly refuses the root's domain resets: the domain key changes by its own word alone (identity §12.2).
	OwnerOnly bool
	Proxy     transport.ProxySetting
	Log       slog.Level
	Budget    int64 // bytes a month that an idle link may cost; 0: no limit
	Limits    Limits
	Session   Lifetime

	// SystemClock is auto when the file does not have the key. The zero value means
	// never, so that a test which makes a Config does not set the machine's clock.
	SystemClock clock.Policy
	Watchdog    string // device file of the hardware's watchdog; empty: off
	LEDs        LEDs
	KeySwitch   *KeySwitch // nil: there is none
}

// LoadConfig reads and checks a configuration file. Paths in it are relative to the
// file. An error is one line that names the file and, if one line is to blame, the
// line and the key. A missing file is fs.ErrNotExist.
func LoadConfig(file string) (Config, error) { return loadConfig(file, LoadRoots) }

// DefaultConfig is what counts without a file. Enroll and netcheck work before there is a file; at a site where only a
// proxy leads out they need it as well.
func DefaultConfig() Config {
	return Config{Proxy: transport.AutoProxies(), Limits: DefaultLimits(), Session: DefaultLifetime()}
}

// LoadOpenConfig is LoadConfig for a command that does without the root when this user may not read it: Roots is nil
// then. netcheck is such a command: whoever looks for the closed port is rarely root.
func LoadOpenConfig(file string) (Config, error) {
	return loadConfig(file, unlessDenied(LoadRoots))
}

// unlessDenied is a way to load roots that finds none where this user may not read them. Only that error: a root that
// is damaged must be told to every user.
func unlessDenied(load func(string) (*identity.Roots, error)) func(string) (*identity.Roots, error) {
	return func(file string) (*identity.Roots, error) {
		roots, err := load(file)
		if errors.Is(err, fs.ErrPermission) {
			err = nil
		}
		return roots, err
	}
}

// The path is made absolute first: a service has another working directory than the shell in which it was tried.
func loadConfig(file string, roots func(string) (*identity.Roots, error)) (Config, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return Config{}, err
	}
	b, err := durable.ReadTrusted(file, strictyaml.MaxBytes)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := parseConfig(b, file, roots)
	if err != nil {
		return Config{}, err
	}
	c.File = file
	return c, nil
}

// CheckData returns what New would refuse of the state directory. It changes nothing.
func (c Config) CheckData() error { return durable.CheckDir(c.Data) }

// LoadRoots reads pinned roots (PEM) from a file of at most 64 KiB. Roots are public: the file may lie
// anywhere, and others may read it.
func LoadRoots(file string) (*identity.Roots, error) {
	roots, err := credential.LoadPublic(file, identity.ParseRoots)
	if err != nil {
		return nil, fmt.Errorf("read root: %w", err)
	}
	return roots, nil
}

// fileFor returns the text of a new configuration file, as enroll writes it. Ports are written even when they are the
// defaults, so that an owner sees what his firewall has to let out; proxies only when there are some to name.
func fileFor(c Config) ([]byte, error) {
	var proxy []string
	if c.Proxy.String() != transport.AutoProxies().String() {
		proxy = c.Proxy.Words()
	}
	return yaml.Marshal(struct {
		Access  []string         `yaml:"access,flow"`
		Ports   []transport.Port `yaml:"ports,flow"`
		Root    string           `yaml:"root"`
		Private bool             `yaml:"private_infrastructure,omitempty"`
		Proxy   []string         `yaml:"proxy,flow,omitempty"`
	}{c.Access, c.Ports, filepath.Join(c.Data, rootFile), c.Private, proxy})
}

// Warning is what an owner should change in a configuration that works: one line, or empty. Windows has access lists in
// place of modes, which are not judged here.
func (c Config) Warning() string {
	info, err := os.Stat(c.File)
	if c.File == "" || err != nil || runtime.GOOS == "windows" || !c.Proxy.HasLogin() || info.Mode().Perm()&0o004 == 0 {
		return ""
	}
	return fmt.Sprintf("every user of this machine can read the proxy's password in %s: chmod o-r %[1]s", c.File)
}
