package main

import (
	"github.com/spf13/cobra"

	"hawser/manager"
)

// relay groups the commands that manage relays; relays shows those that a session can use.
func (a *app) relay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Manage the relays",
	}
	cmd.AddCommand(a.relayAdd())
	return cmd
}

// relayAdd prints the activation code: the only time that anybody sees it.
func (a *app) relayAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME",
		Short: "Make a relay and the code with which its server enrolls",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				r, err := account.AddRelay(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, r, func() error { return account.WriteNewRelay(cmd.OutOrStdout(), r) })
			})
		},
	}
}

// relays measures and prints a table.
func (a *app) relays() *cobra.Command {
	return &cobra.Command{
		Use:   "relays DEVICE",
		Short: "Measure the relays from both ends, and show which would be chosen",
		Long: `Measure every relay from here and from DEVICE (a UID or name), and show which one a session would take.

The score is in milliseconds, less is better: both round trips, and something for jitter, loss and load. The relay of the
last session stays unless another is clearly better.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				d, err := account.Relays(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return manager.WriteDecision(cmd.OutOrStdout(), d) })
			})
		},
	}
}
