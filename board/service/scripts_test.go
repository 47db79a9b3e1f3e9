//go:build unix

package service

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// plain is what somebody has who named only a config file.
var plain = launch{executable: "/usr/bin/hawser-agent", configFile: "/etc/hawser/agent.yaml"}

// awkward has paths that each quoting rule bites on.
var awkward = launch{executable: `/opt/50% "off"/it's $HOME/hawser-agent`, configFile: `/srv/a b\c.yaml`, data: "/srv/my state"}

func TestScriptsAreGolden(t *testing.T) {
	for name, l := range map[string]launch{"plain": plain, "awkward": awkward} {
		unit, err := l.unit()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".service", unit)
		golden(t, name+".init", l.initScript())
	}
	unit, err := PackagedUnit()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "packaged.service", unit)
	golden(t, "packaged.init", PackagedInit("/usr/lib/hawser/uci.sh"))
}

// The traps of the library's own unit, and what an unattended gateway needs, as directives.
func TestUnitNeverGivesUpAndIsConfined(t *testing.T) {
	got := directives(t, plain)
	for key, want := range map[string]string{
		"Unit.Wants": "network-online.target", "Unit.After": "network-online.target", "Unit.StartLimitIntervalSec": "0",
		"Service.Type": "notify", "Service.NotifyAccess": "main", "Service.WatchdogSec": "60",
		"Service.Restart": "always", "Service.RestartSec": "5", "Service.RestartPreventExitStatus": "2",
		"Service.StateDirectory": "hawser", "Service.StateDirectoryMode": "0700", "Service.RuntimeDirectory": "hawser",
		"Service.CapabilityBoundingSet": "", "Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "strict",
		"Service.ProtectHome": "yes", "Service.MemoryDenyWriteExecute": "yes", "Service.PrivateDevices": "yes",
		"Service.RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX",
		"Service.ExecStart":               `"/usr/bin/hawser-agent" "run" "--config" "/etc/hawser/agent.yaml"`,
		"Install.WantedBy":                "multi-user.target",
	} {
		if values, ok := got[key]; !ok || !slices.Equal(values, []string{want}) {
			t.Errorf("%s=%q, want %q once", key, values, want)
		}
	}
	if filters := got["Service.SystemCallFilter"]; len(filters) != 2 || filters[0] != "@system-service" {
		t.Errorf("system call filters %q", filters)
	}
}

// directives parses a unit as systemd does: sections, keys, values.
func directives(t *testing.T, l launch) map[string][]string {
	t.Helper()
	unit, err := l.unit()
	if err != nil {
		t.Fatal(err)
	}
	found, section := make(map[string][]string), ""
	for line := range strings.Lines(unit) {
		line = strings.TrimSuffix(line, "\n")
		key, value, ok := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		case ok:
			found[section+"."+key] = append(found[section+"."+key], value)
		case line != "":
			t.Errorf("line %q is no directive", line)
		}
	}
	return found
}

func TestUnitFitsWhereThingsAre(t *testing.T) {
	home := directives(t, launch{executable: "/home/me/hawser-agent"})["Service.ProtectHome"]
	if !slices.Equal(home, []string{"read-only"}) {
		t.Errorf("a program below /home: ProtectHome=%q would hide it", home)
	}
	state := directives(t, launch{executable: "/usr/bin/hawser-agent", data: "/srv/state"})["Service.ReadWritePaths"]
	if !slices.Equal(state, []string{`"/srv/state"`}) {
		t.Errorf("another state directory: ReadWritePaths=%q would keep it read-only", state)
	}
	for _, l := range []launch{
		{executable: "/tmp/hawser-agent"}, {executable: "/usr/bin/hawser-agent", configFile: "/dev/shm/agent.yaml"},
		{executable: "/usr/bin/hawser-agent", data: "/run/hawser-state"},
	} {
		if _, err := l.unit(); err == nil {
			t.Errorf("%+v: would not start after a reboot", l)
		}
	}
}

func TestInitScriptNeverGivesUp(t *testing.T) {
	script := plain.initScript()
	for _, want := range []string{
		"#!/bin/sh /etc/rc.common\n", "USE_PROCD=1\n", "respawn 3600 5 0\n", "stdout 1\n", "stderr 1\n", "procd_add_interface_trigger",
		`procd_set_param command '/usr/bin/hawser-agent' 'run' '--config' '/etc/hawser/agent.yaml'` + "\n",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %q", want)
		}
	}
}
