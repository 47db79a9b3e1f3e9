package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/manager"
	"hawser/transport/api"
)

// addBatch prints the code of a batch, or writes its file, when the server has all of it. Then it is forgotten here.
func (a *app) addBatch(cmd *cobra.Command, phrase *passphrase, out string, add func(*manager.Account) (manager.NewBatch, error)) error {
	if out != "" {
		if err := manager.CheckOut(out); err != nil {
			return err
		}
	}
	return a.signing(cmd, phrase, func(account *manager.Account) error {
		b, err := add(account)
		if err != nil {
			return err
		}
		var failed error
		if out != "" {
			failed = account.WriteBatch(&b, out)
		}
		if err := errors.Join(failed, a.print(cmd, b, func() error { return account.WriteNewBatch(cmd.OutOrStdout(), b) })); err != nil {
			return err
		}
		return account.CloseBatch(b)
	})
}

// deviceClaim shows which gateway waits, and stays until it has its identity.
func (a *app) deviceClaim() *cobra.Command {
	var phrase passphrase
	var code cli.Code
	var folder string
	var await bool
	cmd := &cobra.Command{
		Use:   "claim [CODE] NAME",
		Short: "State the device whose gateway shows a code, and wait until it has its identity",
		Long: `State a device, and give it the code that its gateway shows: hawser-agent identity show, status, or its console.

The gateway asks every minute whether somebody has claimed it, after a day every hour, and at once when it is switched on. Its
key is confirmed when it comes. ^C leaves that to the next command that signs.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := code.Take(args[:len(args)-1]); err != nil {
				return err
			}
			typed, err := code.Read(cmd)
			if err != nil {
				return err
			}
			parsed, err := manager.ParseClaim(typed)
			if err != nil {
				return err
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				waiting, err := account.Waiting(cmd.Context(), parsed)
				switch {
				case err == nil:
					a.terminal.show("")
					manager.WriteClaim(cmd.ErrOrStderr(), waiting) // stdout has the answer
				case !await || !manager.IsNotFound(err):
					return err
				}
				d, err := account.ClaimDevice(cmd.Context(), parsed, args[len(args)-1], folder)
				if err != nil {
					return err
				}
				seen, err := account.AwaitDevice(cmd.Context(), d)
				if err != nil {
					return err
				}
				return a.print(cmd, seen, func() error { return manager.WriteDevice(cmd.OutOrStdout(), seen) })
			})
		},
	}
	code.Flags(cmd, "that the gateway shows")
	cmd.Flags().StringVar(&folder, "folder", "", "`FOLDER` of the device, as north/hall: users can be limited to folders")
	cmd.Flags().BoolVar(&await, "wait", false, "claim it also when no gateway waits with the code now")
	phrase.flags(cmd, false)
	return cmd
}

// deviceRevoke is for one device, or for what is left of a batch.
func (a *app) deviceRevoke() *cobra.Command {
	batch := ""
	cmd := a.statedDevice("revoke DEVICE", "Take a device's identity away for good, and end its sessions", 1, func(account *manager.Account, ctx context.Context, args []string) (api.Device, error) {
		return account.RevokeDevice(ctx, args[0])
	})
	one := cmd.RunE
	cmd.Use, cmd.Args = "revoke (DEVICE | --batch LOOKUP)", cobra.MaximumNArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (batch == "") == (len(args) == 0) {
			return answer.Usage("device revoke: give DEVICE, or --batch LOOKUP")
		}
		if batch == "" {
			return one(cmd, args)
		}
		return a.account(func(account *manager.Account) error {
			ended, err := account.EndBatch(cmd.Context(), batch)
			if err != nil {
				return err
			}
			return a.print(cmd, ended, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "the code %s is worth nothing any more, %d devices without a gateway are revoked\n", batch, ended.Devices)
				return err
			})
		})
	}
	cmd.Flags().StringVar(&batch, "batch", "", "end the batch `LOOKUP`: its code, and the devices that wait for a gateway; those that have one stay")
	return cmd
}

// deviceConfirm shows the keys of batches before they are confirmed, and prints how each device stands then, also when one of
// them could not be confirmed.
func (a *app) deviceConfirm() *cobra.Command {
	var phrase passphrase
	batch, all, yes := "", false, false
	cmd := &cobra.Command{
		Use:   "confirm (DEVICE... | --batch LOOKUP | --all)",
		Short: "Confirm the keys of gateways that have enrolled",
		Long: `Confirm the keys of gateways that have enrolled, so that they last, and say how each stands.

Every command that signs does so for all that wait with a code of their own. Those of a batch are shown first: the code is in
every copy of an image, so compare hints and keys with the gateways (hawser-agent identity show). Of two keys that came with one
code none is confirmed: somebody has copied it, and another code (device code) settles it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && batch == "" && !all {
				return answer.Usage("device confirm: give DEVICE, --batch LOOKUP or --all")
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				waiting, err := account.BatchKeys(cmd.Context(), args, batch, all)
				if err != nil {
					return err
				}
				if len(waiting) > 0 && !yes {
					if err := a.askForKeys(cmd, waiting); err != nil {
						return err
					}
				}
				devices, err := account.ConfirmDevices(cmd.Context(), args, waiting)
				if devices == nil {
					return err
				}
				return errors.Join(a.print(cmd, devices, func() error { return manager.WriteDevices(cmd.OutOrStdout(), devices) }), err)
			})
		},
	}
	cmd.Flags().StringVar(&batch, "batch", "", "the keys of the batch `LOOKUP`, as hawser device add has named it")
	cmd.Flags().BoolVar(&all, "all", false, "the keys of all batches")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	phrase.flags(cmd, false)
	return cmd
}

// askForKeys lets a person look. Without one the keys wait: --yes says that somebody has.
func (a *app) askForKeys(cmd *cobra.Command, waiting []manager.StatedDevice) error {
	a.terminal.show("")
	if err := manager.WriteKeys(cmd.ErrOrStderr(), waiting); err != nil {
		return err
	}
	if !somebody(cmd) {
		return answer.Usage("device confirm: nobody is asked without a terminal: compare these keys, and give --yes")
	}
	if a.ask(cmd, fmt.Sprintf("Are these %d your gateways? [y/N]", len(waiting))) != "y" {
		return answer.Usage("device confirm: nothing is confirmed")
	}
	return nil
}
