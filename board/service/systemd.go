package service

import (
	"fmt"
	"path/filepath"
	"strings"
)

// unit renders the systemd unit (systemd.exec(5) explains what each line forbids).
//
// systemd starts the agent again 5 s after every end, without limit, except after exit status 2: a wrong configuration is
// still wrong after a restart. The agent runs as root, which owns its files, without any capability. Setting the clock and
// opening devices needs a drop-in (docs/install.md §1.1).
//
// Of what looks like too much: AF_NETLINK is what LinkUp hears, AF_UNIX is for sd_notify and the status, and
// ProcSubset=pid leaves /proc/self, from which routes are read.
func (l launch) unit() (string, error) {
	home, extra := "yes", ""
	for _, path := range []string{l.executable, l.configFile, l.data} {
		if path != "" && within(path, "/tmp", "/var/tmp", "/dev", "/run") {
			return "", fmt.Errorf("path %s: gone after the next start: move it to a lasting place", path)
		}
		if path != "" && within(path, "/home", "/root") {
			home = "read-only"
		}
	}
	if l.data != "" {
		extra = "ReadWritePaths=" + quote(l.data) + "\n"
	}
	words := []string{quote(l.executable)}
	for _, arg := range l.arguments() {
		words = append(words, strings.ReplaceAll(quote(arg), "$", "$$")) // ExecStart alone expands variables
	}
	return strings.NewReplacer(
		"@DESCRIPTION@", description,
		"@EXEC@", strings.Join(words, " "),
		"@HOME@", home,
		"@EXTRA@\n", extra,
	).Replace(unitText), nil
}

// within reports whether path is one of dirs or below it.
func within(path string, dirs ...string) bool {
	for _, dir := range dirs {
		if path == dir || strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// quote quotes s as one word, and escapes backslashes and specifiers (systemd.syntax(7), systemd.unit(5)).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(s) + `"`
}

const unitText = `[Unit]
Description=@DESCRIPTION@
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=@EXEC@
Restart=always
RestartSec=5
RestartPreventExitStatus=2
WatchdogSec=60
TimeoutStopSec=15
StateDirectory=hawser
StateDirectoryMode=0700
RuntimeDirectory=hawser
ConfigurationDirectory=hawser
UMask=0077
@EXTRA@
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=@HOME@
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
KeyringMode=private
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`
