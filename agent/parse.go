package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"hawser/transport"
)

// keys are the keys that a configuration file may have; laterKeys those that
// the format reserves and this build does not have. A dot joins a section and
// its key.
func keys() []string {
	return []string{"access", "ports", "root", "data", "dns", "dns.servers", "time", "time.servers",
		"time.set_system_clock", "allow", "private_infrastructure", "watchdog", "leds", "leds.status",
		"leds.session", "key_switch", "key_switch.chip", "key_switch.line", "key_switch.active_low", "key_switch.allow",
		"key_switch.bias", "log"}
}

func laterKeys() []string { return []string{"proxy", "heartbeat"} }

// parser fills a Config from the nodes of a file in dir. Nodes and not structs,
// so that each error can say on which line of which key it is.
type parser struct {
	c       Config
	dir     string
	keyLine bool // the key switch has the number of a line
}

// parseConfig turns the bytes of a file in dir into a checked Config. It reads
// nothing but the root certificate that the file names.
func parseConfig(b []byte, dir string) (Config, error) {
	doc, err := parseYAML(b)
	if err != nil {
		return Config{}, oneLine(err)
	}
	p := parser{dir: dir}
	p.c.Ports, p.c.SystemClock = transport.DefaultPorts(), SystemClockAuto
	for _, n := range doc.Content { // one or none
		if err := checkAliases(n); err != nil {
			return Config{}, err
		}
		if err := p.section(n, ""); err != nil {
			return Config{}, oneLine(err)
		}
	}
	return p.c, nil
}

// parseYAML wants one document or none: what stands behind a second --- would
// count for nothing.
func parseYAML(b []byte) (doc yaml.Node, err error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err = d.Decode(&doc); err == io.EOF {
		return yaml.Node{}, nil
	}
	if err == nil && d.Decode(new(yaml.Node)) != io.EOF {
		err = errors.New("more than one document")
	}
	return doc, err
}

// oneLine keeps an error of the YAML library on one line.
func oneLine(err error) error {
	if text := err.Error(); strings.ContainsAny(text, "\r\n") {
		return errors.New(strings.Join(strings.Fields(text), " "))
	}
	return err
}

// checkAliases refuses what lets a small file stand for a large one.
func checkAliases(n *yaml.Node) error {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: anchors and aliases are not supported", n.Line)
	}
	for _, c := range n.Content {
		if err := checkAliases(c); err != nil {
			return err
		}
	}
	return nil
}

// section reads KEY: VALUE lines. A key that is unknown or stands twice is an
// error: a typing error must not silently leave a default in force.
func (p *parser) section(n *yaml.Node, prefix string) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want KEY: VALUE lines", n.Line)
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := prefix + k.Value
		switch {
		case slices.Contains(laterKeys(), key):
			return fmt.Errorf("line %d: key %q is not supported by this version", k.Line, key)
		case k.Kind != yaml.ScalarNode || !slices.Contains(keys(), key):
			return fmt.Errorf("line %d: unknown key %.64q (known: %s)", k.Line, key, strings.Join(keys(), ", "))
		case slices.Contains(seen, key):
			return fmt.Errorf("line %d: key %q stands twice", k.Line, key)
		}
		seen = append(seen, key)
		if err := p.set(key, v); err != nil {
			return err
		}
	}
	return nil
}

// set reads the value of one key.
func (p *parser) set(key string, v *yaml.Node) error {
	c := &p.c
	switch key {
	case "access":
		return list(key, v, &c.Access, parseHost)
	case "ports":
		return p.ports(key, v)
	case "root":
		return scalar(key, v, func(s string) (err error) { c.Roots, err = LoadRoots(p.path(s)); return err })
	case "data":
		return scalar(key, v, func(s string) error { c.Data = p.path(s); return nil })
	case "dns", "time", "leds":
		return p.section(v, key+".")
	case "dns.servers":
		return list(key, v, &c.DNS, parseServer)
	case "time.servers":
		return list(key, v, &c.Time, parseHost)
	case "allow":
		return list(key, v, &c.Allow, ParseRule)
	case "private_infrastructure":
		return scalar(key, v, func(s string) (err error) { c.Private, err = parseBool(s); return err })
	case "time.set_system_clock":
		return scalar(key, v, func(s string) (err error) { c.SystemClock, err = parseSystemClock(s); return err })
	case "watchdog":
		return scalar(key, v, func(s string) (err error) { c.Watchdog, err = parseWatchdog(s); return err })
	case "leds.status":
		return scalar(key, v, func(s string) (err error) { c.LEDs.Status, err = parseLED(s); return err })
	case "leds.session":
		return scalar(key, v, func(s string) (err error) { c.LEDs.Session, err = parseLED(s); return err })
	case "key_switch":
		return p.keySwitch(key, v)
	case "key_switch.chip", "key_switch.line", "key_switch.active_low", "key_switch.allow", "key_switch.bias":
		return scalar(key, v, func(s string) error { return p.setKeySwitch(key, s) })
	case "log":
		return scalar(key, v, func(s string) error { return c.Log.UnmarshalText([]byte(s)) })
	}
	return fmt.Errorf("line %d: %s: cannot be set", v.Line, key)
}

func (p *parser) ports(key string, v *yaml.Node) error {
	if err := list(key, v, &p.c.Ports, parsePort); err != nil {
		return err
	}
	if len(p.c.Ports) == 0 {
		return fmt.Errorf("line %d: %s: none is left; leave the key out for the default", v.Line, key)
	}
	return nil
}

// path is s seen from the file's directory.
func (p *parser) path(s string) string {
	if filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(p.dir, s)
}

// scalar reads one value that is not empty.
func scalar(key string, n *yaml.Node, take func(string) error) error {
	if n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null" || n.Tag == "!!binary" {
		return fmt.Errorf("line %d: %s: want one value", n.Line, key)
	}
	if err := take(n.Value); err != nil {
		return fmt.Errorf("line %d: %s: %w", n.Line, key, err)
	}
	return nil
}

// list reads a list into to; it is not nil afterwards, also when it is empty.
func list[T any](key string, n *yaml.Node, to *[]T, parse func(string) (T, error)) error {
	if n.Kind != yaml.SequenceNode {
		return fmt.Errorf("line %d: %s: want a list", n.Line, key)
	}
	*to = make([]T, 0, len(n.Content))
	for _, e := range n.Content {
		err := scalar(key, e, func(s string) error {
			v, err := parse(s)
			*to = append(*to, v)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, fmt.Errorf("%.64q: want true or false", s)
	}
	return s == "true", nil
}

func parsePort(s string) (transport.Port, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.64q: want a port, 1 to 65535", s)
	}
	return transport.Port(n), nil
}

func parseHost(s string) (string, error) {
	_, _, err := transport.SplitHost(s)
	return s, err
}

// parseServer reads IP or IP:PORT, port 53 by default.
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
