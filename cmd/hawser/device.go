package main

import (
	"context"

	"github.com/spf13/cobra"

	"hawser/manager"
	"hawser/transport/api"
)

// device groups the commands about gateways.
func (a *app) device() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Manage the gateways of the domain",
	}
	cmd.AddCommand(a.deviceAdd(), a.deviceList(),
		a.oneDevice("show DEVICE", "Show a device, by UID or name", (*manager.Account).Device),
		a.oneDevice("revoke DEVICE", "Take a device's identity away for good, and end its sessions", (*manager.Account).RevokeDevice))
	return cmd
}

// deviceAdd prints the activation code: the only time that anybody sees it.
func (a *app) deviceAdd() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "State a device, and make the code with which its gateway enrolls",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				d, err := account.AddDevice(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return account.WriteNewDevice(cmd.OutOrStdout(), d) })
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

// deviceList prints a table.
func (a *app) deviceList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the devices",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				devices, err := account.Devices(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(cmd, devices, func() error { return manager.WriteDevices(cmd.OutOrStdout(), devices) })
			})
		},
	}
}

// oneDevice is a command that does something with one device and prints it.
func (a *app) oneDevice(use, short string, do func(*manager.Account, context.Context, string) (api.Device, error)) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				d, err := do(account, cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return manager.WriteDevice(cmd.OutOrStdout(), d) })
			})
		},
	}
}
