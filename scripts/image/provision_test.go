package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	file "hawser/internal/provision"
)

// The image takes from a provisioning file what it needs (docs/image.md §2) and ignores the lines that other readers of
// the format need. It runs as on the board, with directories and commands of its own.
func TestProvisioningFileBecomesConfigurationAndIdentity(t *testing.T) {
	script, err := os.ReadFile("root/provision")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("etc/board", "LAN=eth1\nWATCHDOG=\n")
	put("run/resolv.conf", "nameserver 192.0.2.53\n")
	if err := os.MkdirAll(in("data/config"), 0o755); err != nil {
		t.Fatal(err)
	}
	pin := strings.Repeat("5f3c", 16)
	text := "# press 4, hall 2\r\naccess hawser.example.com\r\naccess\t192.0.2.10:8443\r\n\r\n" +
		"code XXXX-YYYY\r\npin " + pin + "\r\nrelay relay2.example.com\r\nrelay 192.0.2.20:443\r\nname press 4\r\n" +
		"lan 192.168.20.1/24\r\ntime ntp.example.com\r\nagent allow: [\"192.168.20.20:502\"]\r\n"
	put("data/provision", text)
	for _, name := range []string{"ip", "sync", "usleep"} {
		put("bin/"+name, "#!/bin/sh\n")
	}
	put("bin/hawser-agent", "#!/bin/sh\necho \"$@ <$(cat)\" >"+in("enrolled")+"\n")
	put("provision", strings.NewReplacer("/etc/board", in("etc/board"), "/data", in("data"), "/run/", in("run")+"/",
		"/var/lib/hawser", in("var/lib/hawser"), "/dev/console", in("console")).Replace(string(script)))

	run := func() {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", in("provision"))
		cmd.Env = append(os.Environ(), "PATH="+in("bin")+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := os.Stat(in("data/provision")); !os.IsNotExist(err) {
			t.Errorf("the provisioning file is still there (%v)", err)
		}
	}
	run()
	for name, want := range map[string]string{
		"data/config/agent.yaml": "access: [hawser.example.com,192.0.2.10:8443]\npin: \"" + pin + "\"\n" +
			"time: {servers: [ntp.example.com], set_system_clock: always}\nallow: [\"192.168.20.20:502\"]\n",
		"data/config/lan": "192.168.20.1/24\n",
		"enrolled":        "enroll --code - --pin " + pin + " <XXXX-YYYY\n",
	} {
		if got, err := os.ReadFile(in(name)); err != nil || string(got) != want {
			t.Errorf("%s has %q (%v), want %q", name, got, err, want)
		}
	}
	// Without a code nobody enrolls: the agent waits until somebody has claimed the gateway.
	if err := os.Remove(in("enrolled")); err != nil {
		t.Fatal(err)
	}
	put("data/provision", "access claim.example\npin "+pin+"\n")
	run()
	if got, _ := os.ReadFile(in("data/config/agent.yaml")); !strings.HasPrefix(string(got), "access: [claim.example]\npin: \""+pin+"\"\n") {
		t.Errorf("agent.yaml has %q", got)
	}
	if _, err := os.Stat(in("enrolled")); !os.IsNotExist(err) {
		t.Errorf("it enrolled without a code (%v)", err)
	}
	// The programs read the same in it.
	f, err := file.Parse([]byte(text))
	if err != nil || strings.Join(f.Access, ",") != "hawser.example.com,192.0.2.10:8443" || f.Code != "XXXX-YYYY" || f.Pin.String() != pin ||
		f.LAN.String() != "192.168.20.1/24" || strings.Join(f.Time, ",") != "ntp.example.com" || strings.Join(f.Agent, "\n") != `allow: ["192.168.20.20:502"]` ||
		strings.Join(f.Relays, ",") != "relay2.example.com,192.0.2.20:443" || f.Name != "press 4" {
		t.Errorf("%+v, %v", f, err)
	}
}
