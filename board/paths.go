package board

import (
	"io/fs"
	"runtime"

	"hawser/board/local"
)

// Paths are the default places of the agent's files; all absolute (cli §2).
type Paths struct {
	State  string // the state directory, mode 0700
	Config string // agent.yaml
	Socket string // where a running agent answers `status` (package local): a Unix socket, on Windows a named pipe
}

// DefaultPaths returns the platform's paths. On OpenWrt the state is below /etc, because /var is in memory there. A
// state directory that is gone after the next start is an identity that is gone.
func (b *Board) DefaultPaths() Paths {
	_, err := fs.Stat(b.Root, "etc/openwrt_release")
	return defaultPaths(runtime.GOOS, err == nil, programData())
}

// The system is a parameter, so that one test looks at the paths of all systems.
func defaultPaths(goos string, openwrt bool, programData string) Paths {
	if goos == "windows" {
		dir := programData + `\Hawser`
		return Paths{State: dir, Config: dir + `\agent.yaml`, Socket: `\\.\pipe\hawser-agent`}
	}
	p := Paths{State: "/var/lib/hawser", Config: "/etc/hawser/agent.yaml", Socket: "/run/hawser/agent.sock"}
	if openwrt {
		p.State, p.Socket = "/etc/hawser", "/var/run/hawser/agent.sock"
	}
	return p
}

// WithState returns p with another state directory, as --data names it. The socket moves with it, so that two agents on
// one machine do not share one.
func (p Paths) WithState(dir string) Paths {
	p.State, p.Socket = dir, local.In(dir)
	return p
}
