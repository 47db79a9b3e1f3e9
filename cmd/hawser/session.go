package main

import (
	"github.com/spf13/cobra"

	"hawser/manager"
)

// session groups the commands about open sessions.
func (a *app) session() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "See who is connected, and end it",
	}
	cmd.AddCommand(a.sessionList(), a.sessionEnd())
	return cmd
}

func (a *app) sessionList() *cobra.Command {
	return &cobra.Command{
		Use:   "list [DEVICE]",
		Short: "List the open sessions, of all devices or of one, by UID or name",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			device := ""
			if len(args) > 0 {
				device = args[0]
			}
			return a.account(func(account *manager.Account) error {
				sessions, err := account.Sessions(cmd.Context(), device)
				if err != nil {
					return err
				}
				return a.print(cmd, sessions, func() error { return manager.WriteSessions(cmd.OutOrStdout(), sessions) })
			})
		},
	}
}

func (a *app) sessionEnd() *cobra.Command {
	return &cobra.Command{
		Use:   "end SESSION",
		Short: "End a session: your own, or as an admin anybody's",
		Long: `End SESSION, which hawser session list shows: your own, or as an admin anybody's. The hawser connect at its other end is told
who it was, and ends.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.account(func(account *manager.Account) error {
				ended, err := account.EndSession(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, ended, func() error { return manager.WriteEnded(cmd.OutOrStdout(), ended) })
			})
		},
	}
}
