package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/strictyaml"
	"hawser/server/relay"
	"hawser/server/store"
	"hawser/transport"
)

// Bounds and defaults of the configuration.
const (
	maxList          = 64 // hosts, ports, addresses
	defaultHeartbeat = 120 * time.Second
	minHeartbeat     = 5 * time.Second
	maxHeartbeat     = 20 * time.Minute // wire §4.6
	maxPipes         = 1 << 20
	maxMbit          = 1_000_000
	mbit             = 1_000_000 / 8 // bytes
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

	Metrics netip.AddrPort // where they are served; zero: nowhere
}

// AccessConfig is the section access of server.yaml.
type AccessConfig struct {
	Name      identity.Name
	Dir       string // keys and store
	Heartbeat time.Duration
	ClockSet  time.Time // when an operator has put a wrong clock right; zero: never
	Audit     store.Retention
	Store     string // URL of the PostgreSQL database with the store; empty: it is in Dir
}

// RelayConfig is the section relay.
type RelayConfig struct {
	Name     string
	Dir      string           // key and identity
	Access   []string         // HOST or HOST:PORT of Access Servers; its own one when none is named
	Ports    []transport.Port // of the hosts without a port
	Code     identity.Code    // activation code; zero: the file code in Dir
	MaxPipes int              // sessions that it carries at most
	Limits   relay.Limits     // of what sessions carry
	Proxy    transport.ProxySetting
}

// A ConfigError says what is wrong with a configuration or with an option, and where.
type ConfigError = strictyaml.Error

func configError(format string, args ...any) error {
	return &ConfigError{Err: fmt.Errorf(format, args...)}
}

// at says what is wrong with the value of a key. The line is added by Locate, which alone knows the document.
func at(key, format string, args ...any) error {
	return strictyaml.At(key, fmt.Errorf(format, args...))
}

// raw is server.yaml as it is written. The fields are in the order in which init writes the file. Raw and checked are
// two types, so that no default can be taken for what somebody wrote.
type raw struct {
	Hosts  []string         `yaml:"hosts"`
	Ports  []transport.Port `yaml:"ports"`
	Listen []string         `yaml:"listen,omitempty"`
	Root   string           `yaml:"root"`
	Access *rawAccess       `yaml:"access,omitempty"`
	Relay  *rawRelay        `yaml:"relay,omitempty"`
	Log    rawLog           `yaml:"log,omitempty"`

	Metrics       string `yaml:"metrics,omitempty"`
	MetricsPublic bool   `yaml:"metrics_public,omitempty"`
}

type rawAccess struct {
	Name      string        `yaml:"name"`
	Dir       string        `yaml:"dir"`
	Heartbeat time.Duration `yaml:"heartbeat,omitempty"`
	ClockSet  string        `yaml:"clock_set,omitempty"`
	Store     *rawStore     `yaml:"store,omitempty"`
	Audit     *rawAudit     `yaml:"audit,omitempty"`
}

type rawRelay struct {
	Name     string           `yaml:"name"`
	Dir      string           `yaml:"dir"`
	Access   []string         `yaml:"access,omitempty"`
	Ports    []transport.Port `yaml:"ports,omitempty"`
	Code     string           `yaml:"code,omitempty"`
	MaxPipes int              `yaml:"max_pipes,omitempty"`
	Limits   *rawLimits       `yaml:"limits,omitempty"`

	Proxy strictyaml.OneOrMore `yaml:"proxy,omitempty,flow"`
}

// rawLimits are in Mbit/s of both directions together.
type rawLimits struct {
	SessionMbit int `yaml:"session_mbit,omitempty"`
	TotalMbit   int `yaml:"total_mbit,omitempty"`
}

type rawLog struct {
	Level string `yaml:"level,omitempty"`
}

// Load reads and checks the configuration in path. It looks at no other file. The error is a *ConfigError. There is no
// second file, and no variable of the environment except those of proxies: what a server does stands in one place.
func Load(path string) (Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Config{}, configError("%w", err)
	}
	b, err := durable.ReadTrusted(path, strictyaml.MaxBytes)
	if err != nil {
		return Config{}, configError("read config: %w", err)
	}
	return Parse(path, b)
}

// Parse checks the configuration b, which was read from the absolute path file: relative paths in it are relative to
// that. It touches nothing. The error is a *ConfigError.
func Parse(file string, b []byte) (Config, error) {
	var r raw
	doc, err := strictyaml.Decode(b, &r)
	if err == nil && doc.Empty {
		err = errors.New("is empty")
	}
	if err != nil {
		return Config{}, doc.Locate(file, err)
	}
	c, err := r.check(filepath.Dir(file))
	if err != nil {
		return Config{}, doc.Locate(file, err)
	}
	c.File = file
	return c, nil
}

// check checks the raw values and fills in the defaults. The first fault is told, with its line; a list of all would
// begin with it anyway.
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
	if c.Metrics, err = r.checkMetrics(c.Ports); err != nil {
		return c, err
	}
	if r.Root == "" {
		return c, at("root", "missing")
	}
	c.Root = absolute(dir, r.Root)
	if r.Access == nil && r.Relay == nil {
		return c, configError("neither an access nor a relay section: nothing to do")
	}
	if c.Access, err = r.Access.check(dir); err != nil {
		return c, strictyaml.At("access", err)
	}
	if c.Relay, err = r.Relay.check(dir, c); err != nil {
		return c, strictyaml.At("relay", err)
	}
	if r.Log.Level != "" {
		if err := c.Level.UnmarshalText([]byte(r.Log.Level)); err != nil {
			return c, at("log.level", "%q is none of debug, info, warn, error", r.Log.Level)
		}
	}
	return c, nil
}

// A nil receiver is a file without the section.
func (r *rawAccess) check(dir string) (*AccessConfig, error) {
	if r == nil {
		return nil, nil
	}
	if err := identity.CheckLabel(r.Name); err != nil {
		return nil, strictyaml.At("name", err)
	}
	if r.Dir == "" {
		return nil, at("dir", "missing")
	}
	heartbeat := r.Heartbeat
	if heartbeat == 0 {
		heartbeat = defaultHeartbeat
	}
	// Below 5 s an idle gateway on a mobile tariff would pay for megabytes a day.
	if heartbeat < minHeartbeat || heartbeat > maxHeartbeat {
		return nil, at("heartbeat", "%v is not within %v and %v", heartbeat, minHeartbeat, maxHeartbeat)
	}
	var set time.Time
	if r.ClockSet != "" {
		var err error
		if set, err = time.Parse(time.RFC3339, r.ClockSet); err != nil {
			return nil, at("clock_set", "%.40q is not a time like 2006-01-02T15:04:05Z", r.ClockSet)
		}
	}
	url, err := r.Store.check()
	if err != nil {
		return nil, strictyaml.At("store", err)
	}
	audit, err := r.Audit.check()
	if err != nil {
		return nil, strictyaml.At("audit", err)
	}
	return &AccessConfig{identity.AccessName(r.Name), absolute(dir, r.Dir), heartbeat, set, audit, url}, nil
}

// check is checked after access, whose ports and address it uses when it names no Access Server.
func (r *rawRelay) check(dir string, c Config) (*RelayConfig, error) {
	if r == nil {
		return nil, nil
	}
	if err := identity.CheckLabel(r.Name); err != nil {
		return nil, strictyaml.At("name", err)
	}
	if r.Dir == "" {
		return nil, at("dir", "missing")
	}
	if r.MaxPipes < 0 || r.MaxPipes > maxPipes {
		return nil, at("max_pipes", "%d is not within 1 and %d", r.MaxPipes, maxPipes)
	}
	var code identity.Code
	var err error
	if r.Code != "" {
		if code, err = identity.ParseCode(r.Code); err != nil {
			return nil, strictyaml.At("code", err)
		}
	}
	out := &RelayConfig{
		Name: r.Name, Dir: absolute(dir, r.Dir), Access: r.Access, Ports: r.Ports, Code: code,
		MaxPipes: cmp.Or(r.MaxPipes, relay.DefaultMaxPipes),
	}
	if out.Limits, err = r.Limits.check(); err != nil {
		return nil, strictyaml.At("limits", err)
	}
	if out.Proxy, err = r.proxy(); err != nil {
		return nil, err
	}
	if len(r.Access) == 0 {
		if c.Access == nil {
			return nil, at("access", "no Access Server is named, and this is none")
		}
		// Its own Access Server, over loopback: behind a router, a server often cannot reach its own public name. No
		// proxy for loopback, whatever the environment says.
		out.Access, out.Ports, out.Proxy = []string{c.localAddr().String()}, c.Ports, transport.ProxySetting{}
		return out, nil
	}
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

// check takes a nil receiver for no limits.
func (r *rawLimits) check() (relay.Limits, error) {
	if r == nil {
		return relay.Limits{}, nil
	}
	for key, n := range map[string]int{"session_mbit": r.SessionMbit, "total_mbit": r.TotalMbit} {
		if n < 0 || n > maxMbit {
			return relay.Limits{}, at(key, "%d is not within 1 and %d", n, maxMbit)
		}
	}
	return relay.Limits{Session: int64(r.SessionMbit) * mbit, Total: int64(r.TotalMbit) * mbit}, nil
}

// proxy is auto unless the section says something else.
func (r *rawRelay) proxy() (transport.ProxySetting, error) {
	if r.Proxy == nil {
		return transport.AutoProxies(), nil
	}
	s, item, err := transport.ParseProxySetting(r.Proxy)
	if err != nil {
		err = strictyaml.AtItem("proxy", item, err)
	}
	return s, err
}

// localAddr is an address at which this server reaches itself. The unspecified address is where one listens and not
// where one dials.
func (c Config) localAddr() netip.Addr {
	if len(c.Listen) == 0 || c.Listen[0] == netip.IPv4Unspecified() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if c.Listen[0] == netip.IPv6Unspecified() {
		return netip.IPv6Loopback()
	}
	return c.Listen[0]
}

// encode writes a configuration for people to go on with. yaml and not a template: a path or a name with a colon must
// come out quoted.
func encode(r raw) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Hawser server. Relative paths are relative to this file. Roles: which of the sections access and relay are here.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	return b.Bytes(), nil
}

func checkHosts(key string, hosts []string, port bool) ([]string, error) {
	if len(hosts) == 0 || len(hosts) > maxList {
		return nil, at(key, "1 to %d hosts are needed", maxList)
	}
	read := make([]string, len(hosts))
	for i, h := range hosts {
		host, err := transport.ParseHost(h)
		if err != nil {
			return nil, strictyaml.AtItem(key, i, err)
		}
		if _, p, err := transport.SplitHost(host); err != nil || p != 0 && !port {
			return nil, strictyaml.AtItem(key, i, fmt.Errorf("host %q: ports have a key of their own", h))
		}
		read[i] = host
	}
	return read, nil
}

// typed returns hosts as ParseHost reads them, for a file that is to have no URLs. What is no host stays, and checkHosts
// refuses it. It is for init and enroll: what they write must be what Load takes.
func typed(hosts []string) []string {
	hosts = slices.Clone(hosts)
	for i, h := range hosts {
		if host, err := transport.ParseHost(h); err == nil {
			hosts[i] = host
		}
	}
	return hosts
}

// A port that is there twice would fail at the second Listen, with an error that does not say why.
func checkPorts(key string, ports []transport.Port) ([]transport.Port, error) {
	if len(ports) == 0 {
		return transport.DefaultPorts(), nil
	}
	seen := map[transport.Port]bool{}
	for i, p := range ports {
		if p == 0 || seen[p] || len(ports) > maxList {
			return nil, strictyaml.AtItem(key, i, fmt.Errorf("%d is zero, or there twice, or one of too many", p))
		}
		seen[p] = true
	}
	return ports, nil
}

// ParseCode reads an activation code of a relay as a user gives it. The error is a *ConfigError. The code is not quoted
// in the error: it may be a good one with one wrong letter.
func ParseCode(s string) (identity.Code, error) {
	code, err := identity.ParseCode(s)
	if err != nil {
		return code, at("code", "%w: compare it with what hawser relay add printed", err)
	}
	return code, nil
}

// ParsePorts makes ports of numbers as a user gives them. The error is a *ConfigError.
func ParsePorts(numbers []uint) (ports []transport.Port, err error) {
	for _, n := range numbers {
		if n == 0 || n > math.MaxUint16 {
			return nil, at("ports", "%d is not 1 to 65535", n)
		}
		ports = append(ports, transport.Port(n))
	}
	return ports, nil
}

// checkListen takes addresses and no names or interfaces: a server must not wait for DNS to start.
func checkListen(listen []string) (addrs []netip.Addr, err error) {
	if len(listen) > maxList {
		return nil, at("listen", "more than %d addresses", maxList)
	}
	for i, s := range listen {
		a, err := netip.ParseAddr(strings.Trim(s, "[]"))
		if err != nil {
			return nil, strictyaml.AtItem("listen", i, fmt.Errorf("%q is not an IP address", s))
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
