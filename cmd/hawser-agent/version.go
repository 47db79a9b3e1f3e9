package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=…) in a release.
var version string

// info is the answer of the command version (docs/spec/cli.md §2).
type info struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Built    string `json:"built"` // time of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisVersion says what this binary is, as far as it knows.
func thisVersion() info {
	v := info{
		Program: "hawser-agent", Version: version, Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = new(debug.BuildInfo)
	}
	if v.Version == "" {
		v.Version = build.Main.Version
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "devel"
	}
	for _, s := range build.Settings {
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
	return v
}

func versionCommand() *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use: "version", Short: "say what this program is",
		Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			v := thisVersion()
			if json {
				return printJSON(c.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s %s %s %s %s\n", v.Program, v.Version, v.Commit, v.Go, v.Platform)
			return err
		}),
	}
	c.Flags().BoolVar(&json, "json", false, asJSON)
	return c
}
