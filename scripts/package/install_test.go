//go:build linux

package main

import (
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const unitDir = "/usr/lib/systemd/system/"

func TestDebBringsWhatTheServiceNeeds(t *testing.T) {
	t.Attr("id", "I1")
	d := newDebian(t)
	d.install(deb(t, "packages", "hawser-agent"), deb(t, "packages", "hawser-server"), deb(t, "packages", "hawser"))
	for _, name := range []string{"hawser-agent", "hawser-server", "hawser"} {
		d.wantFile("/usr/bin/"+name, 0o755)
		for path := range strings.Lines(d.run("dpkg-query", "--listfiles", name)) {
			if path = strings.TrimSpace(path); path == "/." || path == "/usr/bin/"+name {
				continue
			}
			mode := fs.FileMode(0o644)
			if info, err := os.Lstat(d.path(path)); err == nil && info.IsDir() {
				mode = fs.ModeDir | 0o755
			}
			d.wantFile(path, mode)
		}
		if out := d.run("/usr/bin/"+name, "version"); !strings.HasPrefix(out, name+" ") {
			t.Errorf("%s says it is %s", name, out)
		}
	}
	for _, name := range []string{"hawser-agent", "hawser-server"} {
		d.user(name)
		if !exists(d.path("/etc/systemd/system/multi-user.target.wants", name+".service")) {
			t.Errorf("%s does not start with the machine", name)
		}
	}
	if info, err := os.Stat(d.path("/var/lib/hawser-server")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the server's directory: %v, %v", info, err)
	}
	d.wantGone("/etc/hawser/agent.yaml", "/var/lib/hawser") // enroll makes them
}

// systemd itself judges the units, as they are installed and with the drop-ins that come as examples.
func TestUnitsVerifyAndAreConfined(t *testing.T) {
	t.Attr("id", "I1")
	d := newDebian(t)
	d.install(deb(t, "packages", "hawser-agent"), deb(t, "packages", "hawser-server"))
	judge := func(name string) {
		t.Helper()
		if out := d.run("systemd-analyze", "verify", unitDir+name+".service"); out != "" {
			t.Errorf("systemd-analyze verify %s: %s", name, out)
		}
		// the threshold is in tenths: 2.5
		d.run("systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", unitDir+name+".service")
	}
	judge("hawser-agent")
	judge("hawser-server")
	examples := "/usr/share/doc/hawser-agent/examples/"
	dropIn := "/etc/systemd/system/hawser-agent.service.d/"
	for _, name := range []string{"clock.conf", "devices.conf"} {
		put(t, d.path(dropIn, name), contents(t, d.path(examples, name)), 0o644)
		if out := d.run("systemd-analyze", "verify", unitDir+"hawser-agent.service"); out != "" {
			t.Errorf("with %s: %s", name, out)
		}
		if err := os.Remove(d.path(dropIn, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Each can fail: a directive that there is not, and a unit that is confined by nothing.
	put(t, d.path("/etc/systemd/system/bad.service"), "[Service]\nExecStart=/usr/bin/true\nNoNewPrivilege=yes\n", 0o644)
	if out := d.run("systemd-analyze", "verify", "/etc/systemd/system/bad.service"); !strings.Contains(out, "NoNewPrivilege") {
		t.Errorf("systemd-analyze finds no fault in a bad unit: %s", out)
	}
	if err := d.command("systemd-analyze", "security", "--offline=true", "--threshold=25", "/etc/systemd/system/bad.service").Run(); err == nil {
		t.Error("systemd-analyze takes an unconfined service for confined")
	}
}

// A gateway from the first package to the purge, with a server from its own package beside it: each as its user.
func TestDebKeepsTheIdentityUntilPurge(t *testing.T) {
	t.Attr("id", "I1")
	run(t, exec.Command("ip", "link", "set", "lo", "up"))
	d := newDebian(t)
	d.install(deb(t, "packages", "hawser-agent"), deb(t, "packages", "hawser-server"), deb(t, "packages", "hawser"))
	const server, home = "/var/lib/hawser-server", "/root/technician"
	var made struct {
		Root  string `json:"root_file"`
		Admin string `json:"admin_code"`
	}
	d.json(&made, d.as("hawser-server", "hawser-server", "init", "--dir", server, "--host", "127.0.0.1", "--ports", "8443", "--json"))
	d.start(d.as("hawser-server", "hawser-server", "run", "--config", server+"/server.yaml"), "ready ")
	d.run("hawser", "--home", home, "login", "127.0.0.1:8443", "--code", made.Admin, "--root", made.Root, "--no-passphrase")
	enroll := func(name string) string {
		t.Helper()
		var device struct{ UID, Code string }
		d.json(&device, d.command("hawser", "--home", home, "device", "add", name, "--json"))
		d.run("sh", "-c", `umask 077 && exec hawser-agent enroll --access 127.0.0.1 --ports 8443 --code "$1" --root "$2"`, "sh", device.Code, made.Root)
		return device.UID
	}
	online := func(uid string) {
		t.Helper()
		agent := d.as("hawser-agent", "hawser-agent", "run")
		if err := os.MkdirAll(d.path("/run/hawser"), 0o755); err != nil { // systemd's RuntimeDirectory
			t.Fatal(err)
		}
		d.chown("hawser-agent", "/run/hawser")
		d.start(agent, "online "+uid)()
	}

	uid := enroll("press-4")
	d.chown("hawser-agent", "/var/lib/hawser")
	online(uid)
	// Enrolled again, by root, in what is the service's directory by now: systemd does not look at it again.
	d.run("hawser-agent", "identity", "reset", "--yes")
	uid = enroll("press-5")
	online(uid)

	kept := []string{"/etc/hawser", "/var/lib/hawser"}
	before := d.snapshot(kept...)
	same := func(when string) {
		t.Helper()
		if after := d.snapshot(kept...); after != before {
			t.Errorf("%s changed\n%sto\n%s", when, before, after)
		}
	}
	d.run("systemctl", "disable", "hawser-agent.service")
	d.install(deb(t, "next", "hawser-agent"))
	same("the upgrade")
	if exists(d.path("/etc/systemd/system/multi-user.target.wants/hawser-agent.service")) {
		t.Error("the upgrade enabled a service that was disabled")
	}
	online(uid)
	before = d.snapshot(kept...)
	d.run("dpkg", "--remove", "hawser-agent")
	same("the removal")
	d.wantGone("/usr/bin/hawser-agent", unitDir+"hawser-agent.service")
	d.install(deb(t, "next", "hawser-agent"))
	same("the new installation")
	online(uid)

	d.run("dpkg", "--purge", "hawser-agent")
	d.wantGone("/usr/bin/hawser-agent", "/etc/hawser", "/var/lib/hawser", "/run/hawser", "/etc/systemd/system/hawser-agent.service")
	purge := d.run("dpkg", "--purge", "hawser-server")
	if !strings.Contains(purge, "root key") || !exists(d.path(server, "root/root.key")) {
		t.Errorf("purge erased the root key: %s", purge)
	}
	d.install(deb(t, "next", "hawser-server"))
	d.run("rm", "-r", server+"/root") // taken offline
	d.run("dpkg", "--purge", "hawser-server")
	d.wantGone(server)
}
