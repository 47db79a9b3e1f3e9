package main

import (
	"github.com/spf13/cobra"

	"hawser/manager"
)

// login is the only command that works without an account.
func (a *app) login() *cobra.Command {
	var l manager.Login
	cmd := &cobra.Command{
		Use:   "login SERVER --code CODE (--root FILE | --pin SHA256)",
		Short: "Log in with a code",
		Long: `Log in at SERVER (HOST, HOST:PORT or https://HOST[:PORT]) with a login code.

The server must prove itself: by the root certificate in FILE, or by a root whose SHA-256 of the public key is
--pin. Without both, the root of the earlier login is used.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.Server = args[0]
			m, err := a.manager()
			if err != nil {
				return err
			}
			info, err := m.Login(cmd.Context(), l)
			if err != nil {
				return err
			}
			return a.print(cmd, info, func() error { return manager.WriteInfo(cmd.OutOrStdout(), info) })
		},
	}
	cmd.Flags().StringVar(&l.Code, "code", "", "login code")
	cmd.Flags().StringVar(&l.User, "user", "admin", "user name")
	cmd.Flags().StringVar(&l.RootFile, "root", "", "file with the root certificate")
	cmd.Flags().StringVar(&l.Pin, "pin", "", "SHA-256 of the root's public key, in hex")
	return cmd
}

// audit prints the records of the domain.
func (a *app) audit() *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what happened in the domain, newest last",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				records, err := account.Audit(cmd.Context(), limit)
				if err != nil {
					return err
				}
				return a.print(cmd, records, func() error { return manager.WriteRecords(cmd.OutOrStdout(), records) })
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many records, at most 1000")
	return cmd
}
