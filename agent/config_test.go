package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/agent/clock"
	"hawser/board"
	"hawser/identity/identitytest"
	"hawser/internal/strictyaml"
	"hawser/transport"
)

func configFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write(t, file, text, 0o644)
	return file
}

func TestAFullConfigIsRead(t *testing.T) {
	file := configFile(t, `# the gateway of hall 3
access: [hawser.example.com, "192.0.2.10:8443", "[2001:db8::1]:443"]
ports: [443, 8443]
root: root.pem
data: state
dns:
  servers: [192.0.2.53, "192.0.2.54:5353", "2001:db8::53"]
time:
  servers: [ntp.example.com]
  set_system_clock: auto
allow:
  - 192.168.10.0/24:502
  - "[2001:db8:10::/64]:*"
private_infrastructure: true
watchdog: /dev/watchdog0
leds: {status: "green:status", session: led1}
key_switch: {chip: /dev/gpiochip0, line: 3, active_low: true, allow: open, bias: pull-up}
heartbeat: {budget_mb_per_month: 5}
limits: {streams: 100, per_target: 8, targets: ["192.168.10.20=2"], memory_mb: 64}
session: {max: 8h, idle: 30m}
proxy: ["http://proxy.example:3128", "socks5://192.0.2.9"]
log: debug
`)
	dir := filepath.Dir(file)
	pki := identitytest.New(time.Now())
	write(t, filepath.Join(dir, "root.pem"), string(pki.Roots.PEM()), 0o644)
	c := must(LoadConfig(file))(t)
	if c.Roots == nil || string(c.Roots.PEM()) != string(pki.Roots.PEM()) {
		t.Error("other roots")
	}
	c.Roots = nil
	proxy, _, err := transport.ParseProxySetting([]string{"http://proxy.example:3128", "socks5://192.0.2.9:1080"})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		File: file, Data: filepath.Join(dir, "state"),
		Access: []string{"hawser.example.com", "192.0.2.10:8443", "[2001:db8::1]:443"},
		Ports:  []transport.Port{443, 8443},
		DNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:5353"),
			netip.MustParseAddrPort("[2001:db8::53]:53")},
		Time:    []string{"ntp.example.com"},
		Allow:   []Rule{must(ParseRule("192.168.10.0/24:502"))(t), must(ParseRule("[2001:db8:10::/64]:*"))(t)},
		Private: true, Proxy: proxy, Log: slog.LevelDebug, Budget: 5_000_000,
		Limits:      Limits{100, 8, []Limit{{netip.MustParsePrefix("192.168.10.20/32"), 2}}, 64 << 20},
		Session:     Lifetime{8 * time.Hour, 30 * time.Minute},
		SystemClock: clock.Auto, Watchdog: "/dev/watchdog0", LEDs: LEDs{"green:status", "led1"},
		KeySwitch: &KeySwitch{Line: board.Line{Chip: "/dev/gpiochip0", Number: 3, ActiveLow: true, Bias: board.BiasPullUp}, AllowOpen: true},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "comment": "# nothing\n", "null": "~\n", "document mark": "---\n", "empty sections": "dns:\ntime:\nleds:\n"} {
		c, err := LoadConfig(configFile(t, text))
		if err != nil || !slices.Equal(c.Ports, transport.DefaultPorts()) || c.Allow != nil || c.Access != nil || c.Data != "" || c.Log != slog.LevelInfo || c.SystemClock != clock.Auto || c.Proxy.String() != "auto" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// To allow nothing is something else than to say nothing.
func TestAnEmptyAllowListAllowsNothing(t *testing.T) {
	c := must(LoadConfig(configFile(t, "allow: []\n")))(t)
	if c.Allow == nil || len(c.Allow) != 0 {
		t.Errorf("allow = %#v", c.Allow)
	}
}

func badConfigs() map[string]struct{ text, want string } {
	return map[string]struct{ text, want string }{
		"unknown key":            {"access: [a.example]\nacess: [b.example]\n", `2: unknown key "acess"`},
		"unknown key in section": {"dns:\n  server: [192.0.2.1]\n", `2: unknown key "dns.server"`},
		"section key outside":    {"dns.servers: [192.0.2.1]\n", `1: unknown key "dns.servers"`},
		"key twice":              {"log: info\n\nlog: debug\n", `3: key "log" stands twice`},
		"key twice in section":   {"time:\n  servers: []\n  servers: [a]\n", `3: key "time.servers" stands twice`},
		"no budget at all":       {"heartbeat:\n  budget_mb_per_month: 0\n", "2: heartbeat.budget_mb_per_month: \"0\": want whole megabytes"},
		"budget with its unit":   {"heartbeat: {budget_mb_per_month: 5MB}\n", "1: heartbeat.budget_mb_per_month: \"5MB\": want whole megabytes"},
		"proxy word":             {"proxy: always\n", "1: proxy: want http://[USER:PASSWORD@]HOST:PORT"},
		"proxy in TLS":           {"proxy:\n  - http://a\n  - https://ann:secret@a\n", "3: proxy: a proxy that is spoken to in TLS"},
		"proxy and a word":       {"proxy: [http://a, none]\n", "1: proxy: auto and none stand alone"},
		"no proxy":               {"proxy: []\n", "1: proxy: want auto, none, or at least one URL"},
		"proxy map":              {"proxy: {url: http://a}\n", "1: proxy: want a list"},
		"key that is a list":     {"[a, b]: 1\n", "1: unknown key"},
		"list for a scalar":      {"data: [a, b]\n", "1: data: want one value"},
		"scalar for a list":      {"\naccess: a.example\n", "2: access: want a list"},
		"null list":              {"allow:\n#  - 10.0.0.1:80\n", "1: allow: want a list"},
		"map in a list":          {"allow:\n  - {target: 10.0.0.1:80}\n", `2: unknown key "allow.1.target"`},
		"null in a list":         {"access:\n  - a.example\n  -\n", "3: access: want one value"},
		"binary":                 {"data: !!binary aGF3c2Vy\n", "1: data: want one value"},
		"text at the top":        {"hello\n", "1: want KEY: VALUE lines"},
		"list at the top":        {"- access\n", "1: want KEY: VALUE lines"},
		"scalar section":         {"dns: 192.0.2.1\n", "1: dns: want KEY: VALUE lines"},
		"bad CIDR":               {"allow:\n  - 10.0.0.0/24:80\n  - 10.0.0.1/24:80\n", `3: allow: "10.0.0.1/24:80": bits set behind the prefix`},
		"CIDR without port":      {"allow: [10.0.0.0/24]\n", `1: allow: "10.0.0.0/24": no port`},
		"port 0":                 {"ports: [443, 0]\n", "1: ports: \"0\": want a port"},
		"port 65536":             {"ports: [65536]\n", "1: ports: \"65536\": want a port"},
		"port in hex":            {"ports: [0x50]\n", "1: ports: \"0x50\": want a port"},
		"no port left":           {"ports: []\n", "1: ports: none is left"},
		"bad host":               {"access: [\"a b\"]\n", "1: access: host \"a b\""},
		"bad host port":          {"access: [\"a.example:0\"]\n", "1: access: host"},
		"bad time server":        {"time:\n  servers: [\"-\", \"a/b\"]\n", "2: time.servers: host"},
		"DNS server by name":     {"dns:\n  servers:\n    - 192.0.2.1\n    - dns.example\n", `4: dns.servers: "dns.example": want IP or IP:PORT`},
		"system clock":           {"time: {set_system_clock: maybe}\n", "1: time.set_system_clock: \"maybe\": want auto, always or never"},
		"relative watchdog":      {"watchdog: watchdog0\n", "1: watchdog: \"watchdog0\": want the absolute path of a device, or off"},
		"watchdog that is on":    {"watchdog: on\n", "1: watchdog: \"on\": want the absolute path"},
		"watchdog map":           {"watchdog: {device: /dev/watchdog0}\n", "1: watchdog: want one value"},
		"LED by path":            {"leds: {status: /sys/class/leds/led0}\n", "1: leds.status: \"/sys/class/leds/led0\": want the name of a LED"},
		"LED above":              {"leds:\n  session: ..\n", "2: leds.session: \"..\": want the name of a LED"},
		"LED for nothing":        {"leds: {power: led0}\n", "1: unknown key \"leds.power\""},
		"LED list":               {"leds: [led0]\n", "1: leds: want KEY: VALUE lines"},
		"no key switch":          {"log: info\nkey_switch:\n", "2: key_switch: it needs chip and line"},
		"key switch of nothing":  {"key_switch: {}\n", "1: key_switch: it needs chip and line"},
		"key switch, no line":    {"key_switch: {chip: /dev/gpiochip0}\n", "1: key_switch: it needs chip and line"},
		"key switch, no chip":    {"key_switch: {line: 3}\n", "1: key_switch: it needs chip and line"},
		"key switch off":         {"key_switch: off\n", "1: key_switch: want KEY: VALUE lines"},
		"chip by name":           {"key_switch: {chip: gpiochip0, line: 3}\n", "1: key_switch.chip: \"gpiochip0\": want the absolute path"},
		"line by name":           {"key_switch: {chip: /dev/gpiochip0, line: KEY}\n", "1: key_switch.line: \"KEY\": want the number of a line"},
		"line below zero":        {"key_switch: {chip: /dev/gpiochip0, line: -1}\n", "1: key_switch.line: \"-1\": want the number"},
		"key switch always":      {"key_switch: {chip: /dev/gpiochip0, line: 3, allow: always}\n", "1: key_switch.allow: \"always\": want closed or open"},
		"key switch by level":    {"key_switch: {chip: /dev/gpiochip0, line: 3, active_low: 1}\n", "1: key_switch.active_low: \"1\": want true or false"},
		"bias up":                {"key_switch: {chip: /dev/gpiochip0, line: 3, bias: up}\n", "1: key_switch.bias: \"up\": want as-is, pull-up"},
		"key switch key":         {"key_switch: {chip: /dev/gpiochip0, line: 3, debounce: 1}\n", "1: unknown key \"key_switch.debounce\""},
		"bad bool":               {"private_infrastructure: yes please\n", "1: private_infrastructure: \"yes please\": want true or false"},
		"bad level":              {"log: loud\n", "1: log: slog"},
		"missing root":           {"root: nowhere.pem\n", "1: root: read root"},
		"bad YAML":               {"access: [a\n", "1: no YAML: "},
		"tab":                    {"dns:\n\tservers: []\n", "2: no YAML: "},
		"NUL":                    {"access: [a\x00b]\n", " no YAML: control characters"},
		"not UTF-8":              {"data: \xff\xfe\xfa\n", " no YAML: "},
		"two documents":          {"log: info\n---\nallow: []\n", " more than one document"},
		"broken second document": {"log: info\n---\n[\n", " more than one document"},
		"anchor":                 {"data: &a x\n", "1: anchors and aliases are not supported"},
		"alias":                  {"access: &a [b.example]\ntime: {servers: *a}\n", "1: anchors and aliases are not supported"},
		"merge":                  {"<<: {log: info}\n", "1: unknown key \"<<\""},
		"alias bomb":             {aliasBomb(), "1: anchors and aliases are not supported"},
		"deep":                   {"access: " + strings.Repeat("[", 20000), " no YAML: exceeded max depth"},
		"deep blocks":            {strings.Repeat("- ", 30000), " no YAML: exceeded max depth"},
		"long key":               {strings.Repeat("k", 1000) + ": 1\n", "1: unknown key \"kkk"},
	}
}

func aliasBomb() string {
	text := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		text += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	return text
}

func TestABadConfigIsRefusedInOneLineThatSaysWhere(t *testing.T) {
	bad := badConfigs()
	t.Attr("id", "A1-input")
	t.Attr("cases", strconv.Itoa(len(bad)))
	for name, tt := range bad {
		file := configFile(t, tt.text)
		c, err := LoadConfig(file)
		if err == nil {
			t.Errorf("%s: read as %+v", name, c)
			continue
		}
		got := err.Error()
		if !strings.HasPrefix(got, file+":"+tt.want) {
			t.Errorf("%s: %s\nwant %s", name, got, tt.want)
		}
		if strings.ContainsAny(got, "\r\n\x00") || len(got) > 1000 {
			t.Errorf("%s: not one line: %.1000q", name, got)
		}
	}
}

func TestConfigFilesThatAreNotRead(t *testing.T) {
	t.Attr("id", "A1-input")
	t.Attr("cases", "4")
	full := strings.Repeat("#", strictyaml.MaxBytes)
	if _, err := LoadConfig(configFile(t, full)); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	if _, err := LoadConfig(configFile(t, full+"#")); err == nil || !strings.Contains(err.Error(), "over 65536 bytes") {
		t.Errorf("64 KiB + 1: %v", err)
	}
	if _, err := LoadConfig(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: %v", err)
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "agent.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestTheFileThatEnrollWritesReadsBack(t *testing.T) {
	dir := t.TempDir()
	pki := identitytest.New(time.Now())
	write(t, filepath.Join(dir, rootFile), string(pki.Roots.PEM()), 0o600)
	cfg := Config{Data: dir, Access: []string{"hawser.example.com", "[2001:db8::1]:443"}, Ports: []transport.Port{443, 8443}}
	file := filepath.Join(dir, "etc", "agent.yaml")
	if err := WriteConfig(file, cfg); err != nil {
		t.Fatal(err)
	}
	c := must(LoadConfig(file))(t)
	if !slices.Equal(c.Access, cfg.Access) || !slices.Equal(c.Ports, cfg.Ports) || c.Roots == nil {
		t.Errorf("read %+v", c)
	}
	before := must(os.ReadFile(file))(t)
	if err := WriteConfig(file, Config{Access: []string{"other.example"}}); err != nil {
		t.Fatal(err)
	}
	if after := must(os.ReadFile(file))(t); string(after) != string(before) {
		t.Error("an owner's file was replaced")
	}
}

func TestAPasswordThatOthersReadIsWarnedOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	for _, tt := range []struct {
		proxy string
		mode  os.FileMode
		warns bool
	}{
		{"http://ann:secret@p.example", 0o644, true}, {"http://ann:secret@p.example", 0o604, true},
		{"http://ann:secret@p.example", 0o640, false}, {"http://p.example", 0o644, false}, {"auto", 0o644, false},
	} {
		file := configFile(t, "access: [a.example]\nproxy: "+tt.proxy+"\n")
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		w := must(LoadConfig(file))(t).Warning()
		if tt.warns != strings.Contains(w, "chmod o-r "+file) || !tt.warns && w != "" || strings.Contains(w, "secret") {
			t.Errorf("%s, %v: %q", tt.proxy, tt.mode, w)
		}
	}
	if w := DefaultConfig().Warning(); w != "" {
		t.Errorf("without a file: %s", w)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, bad := range badConfigs() {
		if len(bad.text) < 4096 {
			f.Add([]byte(bad.text))
		}
	}
	f.Add([]byte("access: [a.example]\nports: [443]\nallow: [10.0.0.0/8:80-90]\ntime: {servers: [b.example]}\n"))
	file := filepath.Join(f.TempDir(), "agent.yaml")
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b, file, LoadRoots)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		if len(c.Ports) == 0 || slices.Contains(c.Ports, 0) {
			t.Errorf("ports %v", c.Ports)
		}
		for _, h := range slices.Concat(c.Access, c.Time) {
			if _, _, err := transport.SplitHost(h); err != nil {
				t.Errorf("host %q: %v", h, err)
			}
		}
	})
}
