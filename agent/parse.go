package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"

	"hawser/agent/clock"
	"hawser/identity"
	"hawser/internal/strictyaml"
	"hawser/transport"
)

// rawConfig is agent.yaml as it is written. Each value is text, which is parsed
// beside the thing that it configures. Text also where YAML has numbers: a port 0443 is octal to YAML and 443 to a
// person, and an error should quote what is in the file.
type rawConfig struct {
	Access []string `yaml:"access"`
	Ports  []string `yaml:"ports"`
	Root   string   `yaml:"root"`
	Pin    string   `yaml:"pin"`
	Data   string   `yaml:"data"`
	DNS    struct {
		Servers []string `yaml:"servers"`
	} `yaml:"dns"`
	Time struct {
		Servers        []string `yaml:"servers"`
		SetSystemClock string   `yaml:"set_system_clock"`
	} `yaml:"time"`
	Allow    []rawRule `yaml:"allow"`
	Private  bool      `yaml:"private_infrastructure"`
	Change   string    `yaml:"domain_change"`
	Watchdog string    `yaml:"watchdog"`
	LEDs     struct {
		Status  string `yaml:"status"`
		Session string `yaml:"session"`
	} `yaml:"leds"`
	KeySwitch *rawKeySwitch `yaml:"key_switch"`
	Heartbeat struct {
		Budget string `yaml:"budget_mb_per_month"`
	} `yaml:"heartbeat"`
	Limits  rawLimits   `yaml:"limits"`
	Session rawLifetime `yaml:"session"`
	Log     string      `yaml:"log"`

	Proxy strictyaml.OneOrMore `yaml:"proxy"`
}

// parseConfig turns the bytes of a file into a checked Config. It reads nothing
// but the root certificate that the file names.
func parseConfig(b []byte, file string, roots func(string) (*identity.Roots, error)) (Config, error) {
	var r rawConfig
	doc, err := strictyaml.Decode(b, &r)
	if err != nil {
		return Config{}, doc.Locate(file, err)
	}
	c, err := r.check(filepath.Dir(file), roots)
	if err != nil {
		return Config{}, doc.Locate(file, err)
	}
	return c, nil
}

// check turns what is written into what is meant. Paths are relative to dir. How roots are loaded is a parameter, since
// netcheck goes on without those that its user may not read.
func (r rawConfig) check(dir string, roots func(string) (*identity.Roots, error)) (Config, error) {
	path := func(s string) (string, error) {
		if !filepath.IsAbs(s) {
			s = filepath.Join(dir, s)
		}
		return s, nil
	}
	c := Config{Ports: transport.DefaultPorts(), SystemClock: clock.Auto, Private: r.Private, Proxy: transport.AutoProxies(),
		Limits: DefaultLimits(), Session: DefaultLifetime()}
	level := func(s string) (struct{}, error) { return struct{}{}, c.Log.UnmarshalText([]byte(s)) }
	var rootFile string
	// All are checked before anything is opened, so that config check needs no rights on devices.
	err := errors.Join( // the first is told
		items("access", r.Access, transport.ParseHost, &c.Access),
		items("ports", r.Ports, parsePort, &c.Ports),
		value("root", r.Root, path, &rootFile),
		value("root", rootFile, roots, &c.Roots),
		value("pin", r.Pin, identity.ParsePin, &c.Pin),
		value("data", r.Data, path, &c.Data),
		items("dns.servers", r.DNS.Servers, parseServer, &c.DNS),
		items("time.servers", r.Time.Servers, transport.ParseHost, &c.Time),
		value("time.set_system_clock", r.Time.SetSystemClock, clock.ParsePolicy, &c.SystemClock),
		parseRules(r.Allow, &c.Allow),
		value("domain_change", r.Change, parseDomainChange, &c.OwnerOnly),
		value("watchdog", r.Watchdog, parseWatchdog, &c.Watchdog),
		value("leds.status", r.LEDs.Status, parseLED, &c.LEDs.Status),
		value("leds.session", r.LEDs.Session, parseLED, &c.LEDs.Session),
		r.KeySwitch.check(&c.KeySwitch),
		value("heartbeat.budget_mb_per_month", r.Heartbeat.Budget, parseBudget, &c.Budget),
		proxies(r.Proxy, &c.Proxy),
		r.Limits.check(&c.Limits),
		r.Session.check(&c.Session),
		value("log", r.Log, level, new(struct{})),
	)
	// An empty list of ports would be a search that ends at once with nothing tried.
	if err == nil && len(c.Ports) == 0 {
		err = strictyaml.At("ports", errors.New("none is left; leave the key out for the default"))
	}
	return c, err
}

// value parses what is written for a key; empty: the file does not have it, and
// what is there stays.
func value[T any](key, text string, parse func(string) (T, error), to *T) error {
	if text == "" {
		return nil
	}
	v, err := parse(text)
	if err != nil {
		return strictyaml.At(key, err)
	}
	*to = v
	return nil
}

// items is value for a list; nil: the file does not have it. An empty one means
// something else. allow: [] lets nobody reach anything, and without the key the LAN side counts: they must stay apart.
func items[T any](key string, list []string, parse func(string) (T, error), to *[]T) error {
	if list == nil {
		return nil
	}
	*to = make([]T, len(list))
	for i, text := range list {
		v, err := parse(text)
		if err != nil {
			return strictyaml.AtItem(key, i, err)
		}
		(*to)[i] = v
	}
	return nil
}

// proxies reads auto, none or a list of URLs.
func proxies(written strictyaml.OneOrMore, to *transport.ProxySetting) error {
	if written == nil {
		return nil
	}
	setting, item, err := transport.ParseProxySetting(written)
	if err != nil {
		return strictyaml.AtItem("proxy", item, err)
	}
	*to = setting
	return nil
}

// parsePort refuses 0: a search would dial it, and the system would answer with an error that names no key.
func parsePort(s string) (transport.Port, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.64q: want a port, 1 to 65535", s)
	}
	return transport.Port(n), nil
}

// parseServer reads IP or IP:PORT, port 53 by default. No names: a resolver that has to be resolved first would find
// nobody to ask.
func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("%.64q: want IP or IP:PORT", s)
	}
	return a, nil
}
