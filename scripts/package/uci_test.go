//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A uci is a configuration as UCI hands it to a shell.
type uci struct{ text strings.Builder }

func (u *uci) option(name, value string) {
	fmt.Fprintf(&u.text, "CONFIG_agent_%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
}

func (u *uci) list(name string, values ...string) {
	u.option(name+"_LENGTH", fmt.Sprint(len(values)))
	for i, v := range values {
		u.option(fmt.Sprintf("%s_ITEM%d", name, i+1), v)
	}
}

// rendered is what came of one: a path of "" says that it was refused.
type rendered struct {
	path, yaml, log string
}

// render runs the package's script in a shell, with paths of its own in place of the system's.
func (u *uci) render(t *testing.T, shell ...string) rendered {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	script, err := files.ReadFile("files/openwrt/uci.sh")
	if err != nil {
		t.Fatal(err)
	}
	put(t, at("uci.sh"), string(script), 0o644)
	put(t, at("functions.sh"), strings.NewReplacer("/uci/", dir+"/config-", "/log", at("log")).Replace(functionsStub), 0o644)
	put(t, at("config-hawser"), u.text.String(), 0o644)
	cmd := exec.Command(shell[0], append(shell[1:], "-euc",
		`. ./functions.sh; . ./uci.sh; hawser_etc=$PWD/etc hawser_rendered=$PWD/var/agent.yaml; hawser_config || echo REFUSED`)...)
	cmd.Dir = dir
	out := strings.TrimSpace(run(t, cmd))
	yaml, _ := os.ReadFile(at("var/agent.yaml"))
	log, _ := os.ReadFile(at("log"))
	made, err := filepath.Glob(at("*"))
	if want := []string{at("config-hawser"), at("functions.sh"), at("log"), at("uci.sh"), at("var")}; err != nil ||
		slices.ContainsFunc(made, func(name string) bool { return !slices.Contains(want, name) }) {
		t.Errorf("something made files: %q", made)
	}
	if out == "REFUSED" {
		out = ""
	}
	return rendered{out, string(yaml), string(log)}
}

var shells = map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}}

// hostile are values that mean something to a shell, to YAML, to sed or to printf. Each has to arrive as it is.
var hostile = []string{
	"", " ", "  two  spaces ", "it's", "'", "''", `"`, `\`, `\n`, `\'`, "$(touch pwned)", "`touch pwned`", "; touch pwned", "| touch pwned",
	"$HOME", "${IFS}", "a: b", "- a", "# no comment", "a #b", "{a: b}", "[a, b]", ",", "&a", "*a", "!!binary x", "%s%n", "%YAML", "---", "...",
	"-n", "-e x", "null", "~", "true", "0x10", "|", ">", "?", "@", "*", "/*", "[!-~]", "Grüße", "\u202e", "a\u00a0b", strings.Repeat("x", 5000),
}

func TestUCIValuesArriveAsTheyAre(t *testing.T) {
	t.Attr("id", "I2-uci")
	values := slices.Clone(hostile)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := make([]byte, random.IntN(12))
		for i := range b {
			b[i] = byte(' ' + random.IntN(95))
		}
		values = append(values, string(b))
	}
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			var u uci
			u.list("access", values...)
			u.list("allow", values...)
			u.list("time_servers", values...)
			u.option("log", "it's $(touch pwned): #")
			u.option("budget_mb_per_month", "5}, log: 'x")
			r := u.render(t, shell...)
			var got struct {
				Access, Allow []string
				Log           string
				Heartbeat     map[string]string
				Time          struct {
					Servers []string
					Set     string `yaml:"set_system_clock"`
				}
			}
			if err := yaml.Unmarshal([]byte(r.yaml), &got); err != nil {
				t.Fatalf("%v\n%s", err, r.yaml)
			}
			for key, list := range map[string][]string{"access": got.Access, "allow": got.Allow, "time": got.Time.Servers} {
				if !slices.Equal(list, values) {
					t.Errorf("%s arrived as %q", key, list)
				}
			}
			if budget := got.Heartbeat["budget_mb_per_month"]; len(got.Heartbeat) != 1 || budget != "5}, log: 'x" {
				t.Errorf("the budget arrived as %q", got.Heartbeat)
			}
			if got.Log != "it's $(touch pwned): #" || got.Time.Set != "never" || r.log != "" {
				t.Errorf("%+v, log %q", got, r.log)
			}
		})
	}
	t.Attr("count", fmt.Sprintf("values of UCI taken literally=%d", len(values)))
}

func TestUCIRefusesWhatIsNoValue(t *testing.T) {
	t.Attr("id", "I2-uci")
	for name, shell := range shells {
		for _, value := range []string{"a\nroot: /x", "a\n", "\n", "a\tb", "a\rb", "a\x1b[2J", "a\x7f"} {
			var u uci
			u.list("access", "hawser.example.com")
			u.list("allow", "192.0.2.1:502", value)
			if r := u.render(t, shell...); r.path != "" || r.yaml != "" || !strings.Contains(r.log, "allow: a value holds a control character") {
				t.Errorf("%s: %q gives %+v", name, value, r)
			}
			u = uci{}
			u.list("access", value)
			if r := u.render(t, shell...); r.path != "" || !strings.Contains(r.log, "access") {
				t.Errorf("%s: access %q gives %+v", name, value, r)
			}
		}
		var u uci
		u.list("access", "hawser.example.com")
		u.option("limits_streams", "5\n")
		if r := u.render(t, shell...); r.path != "" || !strings.Contains(r.log, "limits_streams: a value holds a control character") {
			t.Errorf("%s: a limit gives %+v", name, r)
		}
		for _, port := range []string{"", "x", "443]", "4 43", "-1", "1000000", "443\n", "0x1bb"} {
			var u uci
			u.list("access", "hawser.example.com")
			u.list("ports", port)
			if r := u.render(t, shell...); r.path != "" || !strings.Contains(r.log, "ports: a value is no port") {
				t.Errorf("%s: port %q gives %+v", name, port, r)
			}
		}
	}
}

// The agent itself takes what an operator has in UCI.
func TestAgentTakesWhatUCISays(t *testing.T) {
	t.Attr("id", "I2-uci")
	var u uci
	u.list("access", "hawser.example.com", "192.0.2.10:8443")
	u.list("ports", "443", "8443")
	u.list("dns_servers", "192.0.2.53")
	u.list("time_servers", "ntp.example.com")
	u.option("set_system_clock", "auto")
	u.list("proxy", "http://ann:it's%20me@proxy.example:3128", "socks5://192.0.2.9")
	u.option("budget_mb_per_month", "5")
	u.option("limits_streams", "100")
	u.option("limits_per_target", "32")
	u.list("limits_targets", "192.168.10.20=8", "192.168.10.0/24=16")
	u.option("limits_memory_mb", "20")
	u.option("private_infrastructure", "1")
	u.option("allow_nothing", "1")
	u.option("log", "debug")
	r := u.render(t, "busybox", "sh")
	const want = "access: ['hawser.example.com', '192.0.2.10:8443']\nports: [443, 8443]\ndns: {servers: ['192.0.2.53']}\n" +
		"time: {servers: ['ntp.example.com'], set_system_clock: 'auto'}\nallow: []\n" +
		"proxy: ['http://ann:it''s%20me@proxy.example:3128', 'socks5://192.0.2.9']\nheartbeat: {budget_mb_per_month: '5'}\n" +
		"limits: {streams: '100', per_target: '32', memory_mb: '20', targets: ['192.168.10.20=8', '192.168.10.0/24=16']}\nprivate_infrastructure: true\nlog: 'debug'\n"
	if r.yaml != want {
		t.Errorf("rendered\n%s, want\n%s", r.yaml, want)
	}
	file := filepath.Join(t.TempDir(), "agent.yaml")
	put(t, file, r.yaml, 0o600)
	run(t, exec.Command(native("hawser-agent"), "config", "check", "--config", file))

	u = uci{}
	if r := u.render(t, "dash"); r.path != "" || !strings.Contains(r.log, "not enrolled") {
		t.Errorf("without an Access Server: %+v", r)
	}
}
