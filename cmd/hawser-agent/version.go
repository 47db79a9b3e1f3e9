package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hawser/internal/version"
)

// linked is set by the linker (-X main.linked=…) in a release.
var linked = "dev"

func thisVersion() version.Info { return version.Of("hawser-agent", linked) }

func versionCommand() *cobra.Command {
	var json bool
	c := &cobra.Command{
		Use: "version", Short: "say what this program is",
		Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			if json {
				return printJSON(c.OutOrStdout(), thisVersion())
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), thisVersion())
			return err
		}),
	}
	c.Flags().BoolVar(&json, "json", false, asJSON)
	return c
}
