// Package version says what a program of ours is: what its `version` command
// prints (cli §1), and when it was made, which is the least floor of a gateway's
// clock (time §6).
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// Info is the answer of the command version. Support begins with it: "+changes" tells a build that nobody else has.
type Info struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Commit   string `json:"commit"` // ends in "+changes" when the tree was not the commit's
	Built    string `json:"built"`  // time of the commit, RFC 3339; empty when it was built without git
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Of describes the program that runs. Linked is what the linker set
// (-X main.version=…).
func Of(program, linked string) Info {
	v := Info{Program: program, Version: linked, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if build, ok := debug.ReadBuildInfo(); ok {
		v.stamp(build.Settings)
	}
	return v
}

// stamp takes what the toolchain knows of the commit.
func (v *Info) stamp(settings []debug.BuildSetting) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value + v.Commit
		case "vcs.modified":
			if s.Value == "true" {
				v.Commit += "+changes"
			}
		case "vcs.time":
			v.Built = s.Value
		}
	}
}

// BuildTime is when this program was made: the time of its commit as the
// toolchain stamped it (RFC 3339), or else the date of the first release. It is
// the least floor of the clock (time §6).
func (v Info) BuildTime() time.Time {
	if t, err := time.Parse(time.RFC3339, v.Built); err == nil {
		return t
	}
	return time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
}

// String is one line for people.
func (v Info) String() string {
	s := v.Program + " " + v.Version
	if v.Commit != "" {
		s += " " + v.Commit
	}
	return fmt.Sprintf("%s (%s, %s)", s, v.Go, v.Platform)
}
