package main

import (
	"github.com/spf13/cobra"

	"hawser/manager"
	"hawser/transport/api"
)

// relay groups the commands that manage relays; relays shows those that a session can use.
func (a *app) relay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Manage the relays",
	}
	cmd.AddCommand(a.relayAdd(), a.relayList(), a.relayRevoke())
	return cmd
}

// relayAdd prints the activation code: the only time that anybody sees it.
func (a *app) relayAdd() *cobra.Command {
	var hosts []string
	var ports []uint
	cmd := &cobra.Command{
		Use:   "add NAME --host HOST",
		Short: "Make a relay and the code with which its server enrolls",
		Long: `Make a relay and the code with which its server enrolls (hawser-server enroll).

--host and --ports say where gateways and technicians reach it. What the relay itself says of that does not count.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				given, err := manager.Ports(ports)
				if err != nil {
					return err
				}
				r, err := account.AddRelay(cmd.Context(), args[0], hosts, given)
				if err != nil {
					return err
				}
				return a.print(cmd, r, func() error { return account.WriteNewRelay(cmd.OutOrStdout(), r) })
			})
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "`HOST` at which clients reach the relay; may be repeated")
	cmd.Flags().UintSliceVar(&ports, "ports", nil, "`PORTS` on which it answers (default 443,5935,80)")
	return cmd
}

func (a *app) relayList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all relays, also those that are offline or revoked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				relays, err := account.RegisteredRelays(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(cmd, relays, func() error { return manager.WriteRelays(cmd.OutOrStdout(), relays) })
			})
		},
	}
}

func (a *app) relayRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Shut a relay out for good, and end what it carries",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				r, err := account.RevokeRelay(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, r, func() error { return manager.WriteRelays(cmd.OutOrStdout(), []api.RegisteredRelay{r}) })
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
