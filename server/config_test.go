package server

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hawser/identity"
	"hawser/internal/strictyaml"
	"hawser/server/relay"
	"hawser/server/store"
	"hawser/transport"
)

const fullConfig = `
hosts: [hawser.example.com, 192.0.2.1]
ports: [8080, 8443]
listen: [192.0.2.1, "::1"]
root: root.pem
access:
  name: access1
  dir: access
  heartbeat: 60s
  clock_set: 2026-01-12T10:00:00Z
  audit: {days: 730, max_mb: 4096}
relay:
  name: relay1
  dir: /var/lib/relay
  access: [a1.example.com, "a2.example.com:443"]
  ports: [443]
  code: 0000-0000-0000-0000-0000-0000-0000-00000
  max_pipes: 500
  limits: {session_mbit: 20, total_mbit: 400}
  proxy: http://ann:secret@proxy.example:3128
log:
  level: warn
metrics: "[::1]:9464"
`

func TestConfigIsRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, configFile)
	must(t, os.WriteFile(file, []byte(fullConfig), 0o600))
	got, err := Load(file)
	must(t, err)
	code, err := identity.ParseCode("0000-0000-0000-0000-0000-0000-0000-00000")
	must(t, err)
	proxy, _, err := transport.ParseProxySetting([]string{"http://proxy.example:3128"})
	must(t, err)
	want := Config{
		File:   file,
		Hosts:  []string{"hawser.example.com", "192.0.2.1"},
		Ports:  []transport.Port{8080, 8443},
		Listen: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.IPv6Loopback()},
		Root:   filepath.Join(dir, "root.pem"),
		Access: &AccessConfig{identity.AccessName("access1"), filepath.Join(dir, "access"), time.Minute, time.Date(2026, 1, 12, 10, 0, 0, 0, time.UTC),
			store.Retention{Age: 730 * 24 * time.Hour, Bytes: 4096 << 20}, ""},
		Relay: &RelayConfig{
			Name: "relay1", Dir: "/var/lib/relay", Access: []string{"a1.example.com", "a2.example.com:443"},
			Ports: []transport.Port{443}, Code: code, MaxPipes: 500,
			Limits: relay.Limits{Session: 2_500_000, Total: 50_000_000},
			Proxy:  proxy,
		},
		Level: slog.LevelWarn, Metrics: netip.MustParseAddrPort("[::1]:9464"),
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, identity.Code{}),
		cmp.Comparer(func(a, b transport.ProxySetting) bool { return a.String() == b.String() })); diff != "" {
		t.Error(diff)
	}
}

func TestConfigHasDefaults(t *testing.T) {
	c, err := Parse("/etc/hawser/server.yaml", []byte(
		"hosts: [h]\nroot: root.pem\naccess: {name: a, dir: a}\nrelay: {name: r, dir: r}\n"))
	must(t, err)
	if diff := cmp.Diff(transport.DefaultPorts(), c.Ports); diff != "" {
		t.Error(diff)
	}
	if c.Access.Heartbeat != defaultHeartbeat || c.Level != slog.LevelInfo || len(c.Listen) != 0 {
		t.Errorf("heartbeat %v, level %v, listen %v", c.Access.Heartbeat, c.Level, c.Listen)
	}
	if c.Relay.MaxPipes != relay.DefaultMaxPipes || c.Relay.Limits != (relay.Limits{}) {
		t.Errorf("at most %d pipes, %+v", c.Relay.MaxPipes, c.Relay.Limits)
	}
	if diff := cmp.Diff([]string{"127.0.0.1"}, c.Relay.Access); diff != "" {
		t.Error("the relay of an Access Server goes to it over loopback\n" + diff)
	}
}

func TestRelayReachesItsOwnAccessServerWhereItListens(t *testing.T) {
	for listen, want := range map[string]string{
		`[127.5.5.5]`: "127.5.5.5", `["0.0.0.0"]`: "127.0.0.1", `["::"]`: "::1", `["[::1]"]`: "::1", `[]`: "127.0.0.1",
	} {
		c, err := Parse("/x/server.yaml", []byte("listen: "+listen+
			"\nhosts: [h]\nroot: r\naccess: {name: a, dir: a}\nrelay: {name: r, dir: r}\n"))
		must(t, err)
		if got := c.Relay.Access[0]; got != want {
			t.Errorf("listen %s: relay goes to %s, want %s", listen, got, want)
		}
	}
}

// TestBadConfigIsRefusedWithItsPlace: the error is one line with file, line
// (where there is one) and key.
func TestBadConfigIsRefusedWithItsPlace(t *testing.T) {
	t.Attr("id", "A1-input")
	const good = "hosts: [h]\nroot: r\n"
	tests := []struct {
		name, yaml, want string
	}{
		{"unknown key", good + "access: {name: a, dir: a}\nhots: [h]", `/x/server.yaml:4: unknown key "hots"`},
		{"unknown key in a section", good + "access:\n  name: a\n  dirr: a", `/x/server.yaml:5: unknown key "access.dirr"`},
		{"unknown key with a colour", good + "\"\\e[31m\": 1", `/x/server.yaml:3: unknown key "\x1b[31m"`},
		{"not YAML", "hosts: [h", "/x/server.yaml:1: no YAML: "},
		{"wrong type", "hosts: 5\n", "/x/server.yaml:1: hosts: want a list"},
		{"key twice", good + "root: r\n", "/x/server.yaml:3: key \"root\" stands twice"},
		{"port too large", good + "ports: [70000]", "/x/server.yaml:3: ports: \"70000\": want a number, at most 65535"},
		{"empty", "", "/x/server.yaml: is empty"},
		{"two documents", good + "---\n" + good, "more than one document"},
		{"too large", strings.Repeat("#", strictyaml.MaxBytes+1), "over 64 KiB"},
		{"no host", "root: r\n", "hosts: "},
		{"bad host", "hosts: [\"a b\"]\nroot: r\n", "hosts: "},
		{"host with port", "hosts: [\"h:443\"]\nroot: r\n", "ports have a key of their own"},
		{"port 0", good + "ports: [0]", "/x/server.yaml:3: ports: 0"},
		{"port twice", good + "ports:\n- 443\n- 443", "/x/server.yaml:5: ports: 443"},
		{"listen on a name", good + "listen: [localhost]", "listen: \"localhost\""},
		{"no root", "hosts: [h]\n", "root: missing"},
		{"no role", good, "neither an access nor a relay section"},
		{"access without name", good + "access: {dir: a}", "/x/server.yaml:3: access.name: "},
		{"access without dir", good + "access: {name: a}", "/x/server.yaml:3: access.dir: missing"},
		{"clock set to a word", good + "access: {name: a, dir: a, clock_set: now}", `/x/server.yaml:3: access.clock_set: "now" is not a time`},
		{"hasty heartbeat", good + "access: {name: a, dir: a, heartbeat: 1ms}", "/x/server.yaml:3: access.heartbeat: 1ms"},
		{"heartbeat without unit", good + "access: {name: a, dir: a, heartbeat: 60}", "/x/server.yaml:3: access.heartbeat: \"60\": want a time with its unit"},
		{"audit for no room", good + "access: {name: a, dir: a, audit: {max_mb: 1}}", "/x/server.yaml:3: access.audit.max_mb: 1 is not within"},
		{"audit of less than no days", good + "access: {name: a, dir: a, audit: {days: -1}}", "/x/server.yaml:3: access.audit.days: -1 is not within"},
		{"relay of nobody", good + "relay: {name: r, dir: r}", "/x/server.yaml:3: relay.access: no Access Server is named"},
		{"relay with bad name", good + "relay: {name: R!, dir: r, access: [h]}", "/x/server.yaml:3: relay.name: "},
		{"relay without dir", good + "relay: {name: r, access: [h]}", "/x/server.yaml:3: relay.dir: missing"},
		{"relay with bad access", good + "relay: {name: r, dir: r, access: [\"h:0\"]}", "/x/server.yaml:3: relay.access: "},
		{"relay for less than nobody", good + "relay: {name: r, dir: r, access: [h], max_pipes: -1}", "/x/server.yaml:3: relay.max_pipes: -1"},
		{"limit below none", good + "relay: {name: r, dir: r, access: [h], limits: {total_mbit: -1}}", "/x/server.yaml:3: relay.limits.total_mbit: -1"},
		{"limit that nobody has", good + "relay: {name: r, dir: r, access: [h], limits: {session_mbit: 1000001}}", "/x/server.yaml:3: relay.limits.session_mbit: "},
		{"unknown limit", good + "relay: {name: r, dir: r, access: [h], limits: {mbit: 1}}", "/x/server.yaml:3: "},
		{"metrics at a name", good + "metrics: localhost:9464", `/x/server.yaml:3: metrics: "localhost:9464" is not ADDRESS:PORT`},
		{"metrics without address", good + `metrics: ":9464"`, `/x/server.yaml:3: metrics: ":9464" is not ADDRESS:PORT`},
		{"metrics without port", good + "metrics: 127.0.0.1", `/x/server.yaml:3: metrics: "127.0.0.1" is not ADDRESS:PORT`},
		{"metrics at port 0", good + "metrics: 127.0.0.1:0", `/x/server.yaml:3: metrics: "127.0.0.1:0" is not ADDRESS:PORT`},
		{"metrics on a port of clients", good + "metrics: 127.0.0.1:443\nmetrics_public: true", "/x/server.yaml:3: metrics: port 443 is one on which clients are served"},
		{"metrics for everybody", good + "metrics: 0.0.0.0:9464", "/x/server.yaml:3: metrics: 0.0.0.0 is neither of this machine nor private"},
		{"metrics on the internet", good + "metrics: \"[2001:db8::1]:9464\"", "/x/server.yaml:3: metrics: 2001:db8::1 is neither of this machine nor private"},
		{"metrics on the internet, mapped", good + "metrics: \"[::ffff:192.0.2.1]:9464\"", "/x/server.yaml:3: metrics: 192.0.2.1 is neither of this machine nor private"},
		{"public without metrics", good + "metrics_public: true", "/x/server.yaml:3: metrics_public: there is no metrics key"},
		{"bad level", good + "access: {name: a, dir: a}\nlog: {level: loud}", "/x/server.yaml:4: log.level: \"loud\""},
	}
	t.Attr("cases", strconv.Itoa(len(tests)))
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("/x/server.yaml", []byte(c.yaml))
			e, ok := errors.AsType[*ConfigError](err)
			if !ok {
				t.Fatalf("got %v, want a *ConfigError", err)
			}
			if !strings.Contains(e.Error(), c.want) || strings.ContainsAny(e.Error(), "\n\x1b") {
				t.Errorf("got  %q\nwant %q, on one line", e, c.want)
			}
		})
	}
}

func TestMissingConfigIsAConfigError(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if _, ok := errors.AsType[*ConfigError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestWrittenConfigIsReadBack(t *testing.T) {
	o := Options{Dir: "/x", Hosts: []string{"127.0.0.1"}}
	dir, r, err := o.check()
	must(t, err)
	b, err := encode(r)
	must(t, err)
	c, err := Parse(filepath.Join(dir, configFile), b)
	must(t, err)
	if c.Access == nil || c.Relay == nil || c.Listen[0].String() != "127.0.0.1" || c.Relay.Access[0] != "127.0.0.1" {
		t.Errorf("got %+v from\n%s", c, b)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(fullConfig))
	f.Add([]byte("hosts: [h]\nhots: 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4<<10 {
			return
		}
		_, err := Parse("/x/server.yaml", b)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
