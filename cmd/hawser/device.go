package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/manager"
	"hawser/transport/api"
)

// device groups the commands about gateways.
func (a *app) device() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Manage the gateways of the domain",
	}
	cmd.AddCommand(a.deviceAdd(), a.deviceClaim(), a.deviceList(), a.deviceCode(),
		a.deviceConfirm(), a.deviceAccept(), a.deviceShow(), a.deviceRevoke(),
		a.statedDevice("release DEVICE", "Let a device go: its gateway forgets who it is, and waits for a code", 1,
			func(account *manager.Account, ctx context.Context, args []string) (api.Device, error) {
				return account.ReleaseDevice(ctx, args[0])
			}),
		a.statedDevice("rename DEVICE NAME", "Give a device another name", 2,
			func(account *manager.Account, ctx context.Context, args []string) (api.Device, error) {
				return account.RenameDevice(ctx, args[0], args[1])
			}),
		a.statedDevice("move DEVICE FOLDER", `Put a device into another folder, or into none with ""`, 2,
			func(account *manager.Account, ctx context.Context, args []string) (api.Device, error) {
				return account.MoveDevice(ctx, args[0], args[1])
			}))
	return cmd
}

// deviceAdd prints the activation code: the only time that anybody sees it.
func (a *app) deviceAdd() *cobra.Command {
	var phrase passphrase
	var folder string
	var await bool
	var out string
	batch, days := 0, 0
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "State a device, and make the code with which its gateway enrolls",
		Long: `State a device, and make the code with which its gateway enrolls.

With --batch N it states N devices, NAME-01 and so on, and makes one code for all of them: it goes into one image or
provisioning file, and each gateway that enrolls gets the next device. Whoever has the image has the code, so their keys are
confirmed by hawser device confirm --batch, after a look. A run that was cut off is finished by the same command.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("batch") {
				return a.addBatch(cmd, &phrase, out, func(account *manager.Account) (manager.NewBatch, error) {
					return account.AddBatch(cmd.Context(), args[0], folder, batch, days)
				})
			}
			return a.newCode(cmd, &phrase, out, func(account *manager.Account) (manager.NewDevice, error) {
				return account.AddDeviceIn(cmd.Context(), args[0], folder)
			}, func(account *manager.Account, d manager.NewDevice) error {
				if !await {
					return nil
				}
				seen, err := account.AwaitDevice(cmd.Context(), d)
				if err != nil {
					return err
				}
				return a.print(cmd, seen, func() error { return manager.WriteDevice(cmd.OutOrStdout(), seen) })
			})
		},
	}
	outFlag(cmd, &out)
	cmd.Flags().BoolVar(&await, "wait", false, "wait until the gateway has enrolled, and confirm its key; ^C leaves it for the next command that signs")
	cmd.Flags().StringVar(&folder, "folder", "", "`FOLDER` of the device, as north/hall: users can be limited to folders")
	cmd.Flags().IntVar(&batch, "batch", 0, "make `N` devices, at most 1000, with one code for the gateways of all")
	cmd.Flags().IntVar(&days, "days", 30, "`N` days until the code of a batch ends, at most 30")
	cmd.MarkFlagsMutuallyExclusive("batch", "wait")
	phrase.flags(cmd, false)
	return cmd
}

// deviceCode prints another code.
func (a *app) deviceCode() *cobra.Command {
	var phrase passphrase
	var out string
	cmd := &cobra.Command{
		Use:   "code DEVICE",
		Short: "Make another code for a device: for new hardware, or after a lost one",
		Long: `Make another code for a device: for new hardware, or because the last code was lost.

The gateway that enrolls with it is the device from then on, with its UID, name and folder, and the old one gets nothing
any more. The next command of an admin confirms the new key and lists the old one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.newCode(cmd, &phrase, out, func(account *manager.Account) (manager.NewDevice, error) {
				return account.DeviceCode(cmd.Context(), args[0])
			}, nil)
		},
	}
	outFlag(cmd, &out)
	phrase.flags(cmd, false)
	return cmd
}

func outFlag(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVar(out, "out", "", "write a provisioning `FILE` with the code, for hawser-agent enroll --file, and do not print the code")
}

// newCode makes a code, prints it or writes it into the file out, and goes on with then, unless that is nil. A file that
// could not be written after all costs no code: it is printed.
func (a *app) newCode(cmd *cobra.Command, phrase *passphrase, out string, make func(*manager.Account) (manager.NewDevice, error),
	then func(*manager.Account, manager.NewDevice) error) error {
	if out != "" {
		if err := manager.CheckOut(out); err != nil {
			return err
		}
	}
	return a.signing(cmd, phrase, func(account *manager.Account) error {
		d, err := make(account)
		if err != nil {
			return err
		}
		var failed error
		if out != "" {
			failed = account.WriteProvisioning(&d, out)
		}
		err = errors.Join(failed, a.print(cmd, d, func() error { return account.WriteNewDevice(cmd.OutOrStdout(), d) }))
		if err != nil || then == nil {
			return err
		}
		return then(account, d)
	})
}

// deviceList prints a table.
func (a *app) deviceList() *cobra.Command {
	var folder, batch, state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the devices",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			states := []api.DeviceState{"", api.StatePending, api.StateEnrolled, api.StateReleased, api.StateRevoked}
			if !slices.Contains(states, api.DeviceState(state)) {
				return answer.Usage("device list: --state is pending, enrolled, released or revoked")
			}
			return a.account(func(account *manager.Account) error {
				devices, err := account.StatedDevices(cmd.Context(), folder)
				if err != nil {
					return err
				}
				devices = slices.DeleteFunc(devices, func(d manager.StatedDevice) bool {
					return state != "" && d.State != api.DeviceState(state) || batch != "" && d.Lookup != batch
				})
				return a.print(cmd, devices, func() error { return manager.WriteDevices(cmd.OutOrStdout(), devices) })
			})
		},
	}
	cmd.Flags().StringVar(&folder, "folder", "", "only those in `FOLDER` and below it")
	cmd.Flags().StringVar(&state, "state", "", "only those that are `STATE`: pending, enrolled, released or revoked")
	cmd.Flags().StringVar(&batch, "batch", "", "only those of the batch `LOOKUP`")
	return cmd
}

// statedDevice is a command that signs something about a device and prints it.
func (a *app) statedDevice(use, short string, args int, do func(*manager.Account, context.Context, []string) (api.Device, error)) *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				d, err := do(account, cmd.Context(), args)
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return manager.WriteDevice(cmd.OutOrStdout(), manager.StatedDevice{Device: d}) })
			})
		},
	}
	phrase.flags(cmd, false)
	if strings.HasPrefix(use, "revoke ") {
		trustClockFlag(cmd, &phrase)
	}
	return cmd
}

func (a *app) deviceShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show a device, by UID or name",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				d, err := account.StatedDevice(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return manager.WriteDevice(cmd.OutOrStdout(), d) })
			})
		},
	}
}

// deviceAccept asks which machine it is.
func (a *app) deviceAccept() *cobra.Command {
	var phrase passphrase
	words := ""
	cmd := &cobra.Command{
		Use:   "accept DEVICE",
		Short: "Say which of two machines with one identity is the device",
		Long: `Say which of two machines with one identity is the device.

Somebody has copied the key of a gateway, or its disk was written back from an old image: device list says cloned, and nobody
is let in. Each of the machines has made a fresh key. Have somebody at the gateway read its four words, which
hawser-agent identity show prints there, and give them here: that key is the device's from then on, and all others get nothing
any more. What else is shown of the machines is the server's word.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				d, err := account.AcceptDevice(cmd.Context(), args[0], func(machines []manager.Machine) (string, error) {
					if words != "" {
						return words, nil
					}
					return a.askedWords(cmd, machines)
				})
				if err != nil {
					return err
				}
				return a.print(cmd, d, func() error { return manager.WriteDevice(cmd.OutOrStdout(), manager.StatedDevice{Device: d}) })
			})
		},
	}
	cmd.Flags().StringVar(&words, "fingerprint", "", "the four `WORDS` that the gateway shows (default: ask)")
	phrase.flags(cmd, false)
	return cmd
}

// askedWords are those of a person at a terminal.
func (a *app) askedWords(cmd *cobra.Command, machines []manager.Machine) (string, error) {
	if !somebody(cmd) {
		return "", answer.Usage(`device accept: nobody is asked without a terminal: give --fingerprint "WORDS" of the gateway`)
	}
	a.terminal.show("")
	if err := manager.WriteMachines(cmd.ErrOrStderr(), machines); err != nil {
		return "", err
	}
	line := a.ask(cmd, "Words that hawser-agent identity show prints at the gateway:")
	if line == "" {
		return "", answer.Usage("device accept: nothing is changed")
	}
	return line, nil
}
