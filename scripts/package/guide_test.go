//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// systemctlStub starts a service as its unit says, as its user, and stops it. It has systemd's patience: until it is up.
const systemctlStub = `#!/bin/sh
set -e
verb=$1 unit=${2%.service} log=/var/log/${2%.service}.log
case $verb in
start)
	[ "$unit" != hawser-agent ] || state=/var/lib/hawser
	[ -z "${state-}" ] || [ "$(stat -c %U "$state")" = "$unit" ] || chown -R "$unit:$unit" "$state"
	[ -z "${state-}" ] || install -d -o "$unit" /run/hawser
	: >"$log"
	command=$(sed -n 's/^ExecStart=//p' "/usr/lib/systemd/system/$unit.service" | tr -d '"')
	runuser -u "$unit" -- $command >"$log" 2>&1 &
	for i in $(seq 600); do
		! grep -qE '^(ready|online) ' "$log" || exit 0
		sleep 0.1
	done
	cat "$log"
	exit 1
	;;
stop)
	pids=$(pidof "$unit")
	kill $pids
	for i in $(seq 600); do
		pidof "$unit" >/dev/null || exit 0
		sleep 0.1
	done
	exit 1
	;;
esac
`

// blocks returns the commands of a section of a guide: its indented lines, up to the next heading.
func blocks(t *testing.T, guide, section string) string {
	t.Helper()
	_, text, found := strings.Cut(contents(t, "../../docs/"+guide), "\n"+section)
	if !found {
		t.Fatalf("docs/%s has no %q", guide, section)
	}
	var b strings.Builder
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, section[:2]) { // the next heading of its kind
			break
		}
		if command, ok := strings.CutPrefix(l, "    "); ok {
			b.WriteString(command)
		}
	}
	return b.String()
}

// value is what follows a key in the answer of one of our programs.
func value(t *testing.T, answer, key string) string {
	t.Helper()
	for l := range strings.Lines(answer) {
		if rest, ok := strings.CutPrefix(l, key+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatalf("no %q in %s", key, answer)
	return ""
}

// The guides of operator and technician, as they are written: server, root offline, login, gateway, session, backup and
// restore, all on one machine, whose name is the guides'.
func TestGuidesDoWhatTheySay(t *testing.T) {
	t.Attr("id", "I1-guides")
	run(t, exec.Command("ip", "link", "set", "lo", "up"))
	// No program dials this machine because a name leads there (wire §8.3): the server has an address as on the internet.
	run(t, exec.Command("ip", "address", "add", "203.0.113.10/32", "dev", "lo"))
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o644); err != nil { // CAP_NET_BIND_SERVICE of the unit
		t.Fatal(err)
	}
	d := newDebian(t)
	d.install(deb(t, "packages", "hawser-agent"), deb(t, "packages", "hawser-server"), deb(t, "packages", "hawser"))
	put(t, d.path("usr/local/bin/systemctl"), systemctlStub, 0o755)
	put(t, d.path("etc/hosts"), "127.0.0.1 localhost\n203.0.113.10 hawser.example.com\n", 0o644)
	for _, dir := range []string{"media/stick-1", "media/stick-2", "media/stick-3", "var/backups"} {
		if err := os.MkdirAll(d.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	commands := 0
	follow := func(script string, oldnew ...string) string {
		t.Helper()
		commands += strings.Count(script, "\n")
		script = strings.NewReplacer(oldnew...).Replace(script)
		return d.run("bash", "-c", "export PATH=/usr/local/bin:$PATH\nset -eux\n"+script)
	}
	t.Cleanup(func() { follow("systemctl stop hawser-agent; systemctl stop hawser-server") })

	made := follow(blocks(t, "server.md", "## 2. Init"))
	pin := value(t, made, "root sha256")
	follow(blocks(t, "server.md", "## 3. The root"))
	d.wantGone("/var/lib/hawser-server/root")
	// A program asks a person at a terminal for the code, and for the passphrase of the domain key.
	login, export, enroll := "hawser login ", "hawser domain export ", "hawser-agent enroll "
	const phrase = "--passphrase-file /root/phrase "
	put(t, d.path("root/phrase"), "correct horse battery staple\n", 0o600)
	typed := func(code string) string { return "--code - <<<" + code + " " }
	follow(blocks(t, "technician.md", "**1. Log in**"), login, login+phrase+typed(value(t, made, "admin code")),
		export, export+phrase, "ROOT-SHA256", pin)
	added := follow(blocks(t, "technician.md", "**2. Add"))
	status := follow(blocks(t, "technician.md", "**3. Enroll"), enroll, enroll+typed(value(t, added, "code")), "ROOT-SHA256", pin)
	if !strings.Contains(status, "state     attached") {
		t.Errorf("status of the gateway: %s", status)
	}
	connect := blocks(t, "technician.md", "**5. Connect")
	if out := follow(connect, "hawser connect", "timeout --foreground --preserve-status -s INT 2 hawser connect"); !strings.Contains(out, "forward 127.0.0.1:5020 -> 192.168.10.20:502") {
		t.Errorf("connect: %s", out)
	}
	table := contents(t, "../../docs/technician.md")
	for _, command := range []string{"hawser device show press-4", "hawser ping press-4", "hawser relays press-4", "hawser audit"} {
		if !strings.Contains(table, "`"+command+"`") {
			t.Errorf("the guide does not have %s", command)
		}
		follow(command + "\n")
	}
	follow(blocks(t, "server.md", "## 4. Backup"))
	follow("for i in $(seq 300); do ! hawser device list | grep ' yes ' || exit 0; sleep 0.2; done; exit 1\n") // it comes back by itself
	follow(blocks(t, "technician.md", "**7. Afterwards"))
	t.Attr("count", fmt.Sprintf("commands of the guides followed=%d", commands))
}
