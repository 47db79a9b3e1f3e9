package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hawser/internal/version"
)

// linked is set by the linker (-X main.linked=…) in a release.
var linked = "dev"

// version answers without a home, so that a support call can begin with it.
func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version.Of("hawser", linked)
			return a.print(cmd, v, func() error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), v)
				return err
			})
		},
	}
}
