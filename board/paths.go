package board

import (
	"io/fs"
	"path/filepath"
	"runtime"
)

// Paths are where things are unless a flag says otherwise; all absolute (cli §2).
type Paths struct {
	State  string // the state directory, mode 0700
	Config string // agent.yaml
	Socket string // where a running agent answers `status`: a socket of the file system, on Windows too (AF_UNIX)
}

// DefaultPaths returns the platform's paths. OpenWrt keeps only /etc over a reboot and an upgrade: its /var is in
// memory.
func (b *Board) DefaultPaths() Paths {
	_, err := fs.Stat(b.Root, "etc/openwrt_release")
	return defaultPaths(runtime.GOOS, err == nil, programData())
}

func defaultPaths(goos string, openwrt bool, programData string) Paths {
	if goos == "windows" {
		dir := programData + `\Hawser`
		return Paths{State: dir, Config: dir + `\agent.yaml`, Socket: dir + `\agent.sock`}
	}
	p := Paths{State: "/var/lib/hawser", Config: "/etc/hawser/agent.yaml", Socket: "/run/hawser/agent.sock"}
	if openwrt {
		p.State, p.Socket = "/etc/hawser", "/var/run/hawser/agent.sock"
	}
	return p
}

// WithState returns p for another state directory, as --data names it: the socket moves into it, so that two agents on
// one machine do not meet.
func (p Paths) WithState(dir string) Paths {
	p.State, p.Socket = dir, filepath.Join(dir, "agent.sock")
	return p
}
