package server

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/server/access"
	"hawser/server/relay"
	"hawser/transport"
)

// Bounds and defaults of the configuration.
const (
	maxConfigBytes   = 64 << 10
	maxList          = 64 // hosts, ports, addresses
	defaultHeartbeat = 120 * time.Second
	minHeartbeat     = 5 * time.Second
	maxHeartbeat     = 20 * time.Minute // wire §4.6
	maxPipes         = 1 << 20
)

// Config is a checked server.yaml. Its paths are absolute.
type Config struct {
	File   string           // where it was read
	Hosts  []string         // names or IP literals at which clients reach this server
	Ports  []transport.Port // on which it listens, and clients reach it
	Listen []netip.Addr     // addresses it listens on; empty: all
	Root   string           // PEM file of the pinned roots
	Access *AccessConfig    // nil: this server is no Access Server
	Relay  *RelayConfig     // nil: this server is no Relay Server
	Level  slog.Level
}

// AccessConfig is the section access.
type AccessConfig struct {
	Name      identity.Name
	Dir       string // keys and store
	Heartbeat time.Duration
	ClockSet  time.Time   // when an operator has put a wrong clock right; zero: never
	NATS      access.NATS // where the store is, when it has URLs; else in Dir
}

// RelayConfig is the section relay.
type RelayConfig struct {
	Name     string
	Dir      string           // key and identity
	Access   []string         // HOST or HOST:PORT of Access Servers; its own one when none is named
	Ports    []transport.Port // of the hosts without a port
	Code     string           // activation code; empty: the file code in Dir
	MaxPipes int              // sessions that it carries at most
}

// A ConfigError says what is wrong with a configuration, and where.
type ConfigError struct {
	File string
	Line int // 0: not on one line
	Text string
}

// Error is one line: FILE:LINE: what is wrong.
func (e *ConfigError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if where == "" {
		return e.Text
	}
	return where + ": " + e.Text
}

// raw is server.yaml as it is written.
type raw struct {
	Hosts  []string         `yaml:"hosts"`
	Ports  []transport.Port `yaml:"ports"`
	Listen []string         `yaml:"listen,omitempty"`
	Root   string           `yaml:"root"`
	Access *rawAccess       `yaml:"access,omitempty"`
	Relay  *rawRelay        `yaml:"relay,omitempty"`
	Log    rawLog           `yaml:"log,omitempty"`
}

type rawAccess struct {
	Name      string        `yaml:"name"`
	Dir       string        `yaml:"dir"`
	Heartbeat time.Duration `yaml:"heartbeat,omitempty"`
	ClockSet  string        `yaml:"clock_set,omitempty"`
	NATS      *rawNATS      `yaml:"nats,omitempty"`
}

type rawNATS struct {
	URL         string `yaml:"url"`
	Credentials string `yaml:"credentials,omitempty"`
}

type rawRelay struct {
	Name     string           `yaml:"name"`
	Dir      string           `yaml:"dir"`
	Access   []string         `yaml:"access,omitempty"`
	Ports    []transport.Port `yaml:"ports,omitempty"`
	Code     string           `yaml:"code,omitempty"`
	MaxPipes int              `yaml:"max_pipes,omitempty"`
}

type rawLog struct {
	Level string `yaml:"level,omitempty"`
}

// Load reads and checks the configuration in path. It looks at no other file.
// The error is a *ConfigError.
func Load(path string) (Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Config{}, &ConfigError{File: path, Text: err.Error()}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, &ConfigError{Text: fmt.Sprintf("read config: %v", err)}
	}
	return Parse(path, b)
}

// Parse checks the configuration b, which was read from the absolute path
// file: relative paths in it are relative to that. It touches nothing. The
// error is a *ConfigError.
func Parse(file string, b []byte) (Config, error) {
	r, err := decode(file, b)
	if err != nil {
		return Config{}, err
	}
	c, err := r.check(filepath.Dir(file))
	if err != nil {
		return Config{}, &ConfigError{File: file, Text: err.Error()}
	}
	c.File = file
	return c, nil
}

// check turns what is written into what is meant.
func (r raw) check(dir string) (c Config, err error) {
	if c.Hosts, err = checkHosts("hosts", r.Hosts, false); err != nil {
		return c, err
	}
	if c.Ports, err = checkPorts("ports", r.Ports); err != nil {
		return c, err
	}
	if c.Listen, err = checkListen(r.Listen); err != nil {
		return c, err
	}
	if r.Root == "" {
		return c, fmt.Errorf("root: missing")
	}
	c.Root = absolute(dir, r.Root)
	if r.Access == nil && r.Relay == nil {
		return c, fmt.Errorf("neither an access nor a relay section: nothing to do")
	}
	if c.Access, err = r.Access.check(dir); err != nil {
		return c, fmt.Errorf("access: %w", err)
	}
	if c.Relay, err = r.Relay.check(dir, c); err != nil {
		return c, fmt.Errorf("relay: %w", err)
	}
	if r.Log.Level != "" {
		if err := c.Level.UnmarshalText([]byte(r.Log.Level)); err != nil {
			return c, fmt.Errorf("log: level %q is none of debug, info, warn, error", r.Log.Level)
		}
	}
	return c, nil
}

func (r *rawAccess) check(dir string) (*AccessConfig, error) {
	if r == nil {
		return nil, nil
	}
	if err := identity.CheckLabel(r.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	if r.Dir == "" {
		return nil, fmt.Errorf("dir: missing")
	}
	heartbeat := r.Heartbeat
	if heartbeat == 0 {
		heartbeat = defaultHeartbeat
	}
	if heartbeat < minHeartbeat || heartbeat > maxHeartbeat {
		return nil, fmt.Errorf("heartbeat: %v is not within %v and %v", heartbeat, minHeartbeat, maxHeartbeat)
	}
	var set time.Time
	if r.ClockSet != "" {
		var err error
		if set, err = time.Parse(time.RFC3339, r.ClockSet); err != nil {
			return nil, fmt.Errorf("clock_set: %.40q is not a time like 2006-01-02T15:04:05Z", r.ClockSet)
		}
	}
	store, err := r.NATS.check(dir, r.Name)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return &AccessConfig{identity.AccessName(r.Name), absolute(dir, r.Dir), heartbeat, set, store}, nil
}

func (r *rawRelay) check(dir string, c Config) (*RelayConfig, error) {
	if r == nil {
		return nil, nil
	}
	if err := identity.CheckLabel(r.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	if r.Dir == "" {
		return nil, fmt.Errorf("dir: missing")
	}
	if r.MaxPipes < 0 || r.MaxPipes > maxPipes {
		return nil, fmt.Errorf("max_pipes: %d is not within 1 and %d", r.MaxPipes, maxPipes)
	}
	out := &RelayConfig{
		Name: r.Name, Dir: absolute(dir, r.Dir), Access: r.Access, Ports: r.Ports, Code: r.Code,
		MaxPipes: cmp.Or(r.MaxPipes, relay.DefaultMaxPipes),
	}
	if len(r.Access) == 0 {
		if c.Access == nil {
			return nil, fmt.Errorf("access: no Access Server is named, and this is none")
		}
		// Its own one: over loopback, since the way from here to the own
		// public name often does not exist.
		out.Access, out.Ports = []string{c.near().String()}, c.Ports
		return out, nil
	}
	var err error
	if out.Access, err = checkHosts("access", r.Access, true); err != nil {
		return nil, err
	}
	if len(r.Ports) == 0 {
		out.Ports = transport.DefaultPorts()
		return out, nil
	}
	out.Ports, err = checkPorts("ports", r.Ports)
	return out, err
}

// near is an address at which this server reaches itself.
func (c Config) near() netip.Addr {
	if len(c.Listen) == 0 || c.Listen[0] == netip.IPv4Unspecified() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if c.Listen[0] == netip.IPv6Unspecified() {
		return netip.IPv6Loopback()
	}
	return c.Listen[0]
}
