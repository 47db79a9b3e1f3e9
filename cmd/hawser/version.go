package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

// build describes this binary; its keys are those of cli §1.
type build struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Built    string `json:"built"` // the commit's time
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild takes what the toolchain has stamped; a build without git has no commit.
func readBuild() build {
	b := build{Program: "hawser", Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Built = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				b.Commit += "-dirty"
			}
		}
	}
	return b
}

// version answers without a home, so that a support call can begin with it.
func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			return a.print(cmd, b, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s (%s, %s)\n", b.Program, b.Version, b.Go, b.Platform)
				return err
			})
		},
	}
}
