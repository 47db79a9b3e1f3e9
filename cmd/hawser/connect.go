package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hawser/manager"
)

// connect parses every -L first: a typing error must not cost a session.
func (a *app) connect() *cobra.Command {
	var specs []string
	cmd := &cobra.Command{
		Use:   "connect DEVICE -L [BIND:]PORT:HOST:PORT...",
		Short: "Forward local ports to addresses behind a gateway, until ^C",
		Long: `Open a session with DEVICE (a UID or name) and forward local ports to addresses as seen from its gateway.

BIND is 127.0.0.1 unless given, PORT 0 picks a free port, HOST is an IP address, IPv6 in brackets. One line for each forward
is printed when it is ready. A session that is lost moves to another relay, or is replaced, by itself.`,
		Example: "  hawser connect press-4 -L 8080:192.168.1.10:80 -L 0:[fd00::10]:502",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var forwards []manager.Forward
			for _, spec := range specs {
				f, err := manager.ParseForward(spec)
				if err != nil {
					return err
				}
				forwards = append(forwards, f)
			}
			return a.account(func(account *manager.Account) error {
				return account.Connect(cmd.Context(), args[0], forwards, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	cmd.Flags().StringArrayVarP(&specs, "forward", "L", nil, "`[BIND:]PORT:HOST:PORT`; may be given more than once")
	return cmd
}

// ping prints each round as it comes, or with --json the summary only.
func (a *app) ping() *cobra.Command {
	count := 0
	cmd := &cobra.Command{
		Use:   "ping DEVICE",
		Short: "Measure the path to a device, end to end",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error { return a.pingDevice(cmd, account, args[0], count) })
		},
	}
	cmd.Flags().IntVar(&count, "count", 4, "how many rounds")
	return cmd
}

// pingDevice prints the result even when the path broke before the last round.
func (a *app) pingDevice(cmd *cobra.Command, account *manager.Account, device string, count int) error {
	var each func(int, time.Duration)
	if !a.json {
		each = func(round int, rtt time.Duration) {
			fmt.Fprintf(cmd.OutOrStdout(), "%d: %.1f ms\n", round, float64(rtt)/float64(time.Millisecond))
		}
	}
	result, err := account.Ping(cmd.Context(), device, count, each)
	// Nothing was measured: a summary of zeros would look like an answer.
	if result.Sent == 0 {
		return err
	}
	printed := a.print(cmd, result, func() error { return manager.WritePing(cmd.OutOrStdout(), result) })
	if err == nil {
		err = printed
	}
	return err
}
