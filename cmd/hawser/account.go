package main

import (
	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/manager"
)

// login is the only command that works without an account.
func (a *app) login() *cobra.Command {
	var l manager.Login
	var code cli.Code
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "login SERVER (--root FILE | --pin SHA256)",
		Short: "Log in with a code",
		Long: `Log in at SERVER (HOST, HOST:PORT or https://HOST[:PORT]) with a code.

The server must prove itself: by the root certificate in FILE, or by a root whose SHA-256 of the public key is
--pin. Without both, the root of the earlier login is used.

With a code of hawser-server init this is the founder of the domain: the domain key is made here, and stays here, under a
passphrase. Whoever has it decides who gets in: make a copy with hawser domain export. A code of hawser user add begins
with U and says itself who logs in.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if l.Code, err = code.Read(cmd); err != nil {
				return err
			}
			l.Server = args[0]
			m, err := a.manager()
			if err != nil {
				return err
			}
			phrase.into(cmd, m)
			info, err := m.Login(cmd.Context(), l)
			if err != nil {
				return err
			}
			return a.print(cmd, info, func() error { return manager.WriteInfo(cmd.OutOrStdout(), info) })
		},
	}
	code.Flags(cmd, "the code, of hawser-server init or hawser user add")
	phrase.flags(cmd, true)
	cmd.Flags().StringVar(&l.User, "user", "admin", "`NAME` of a founder")
	cmd.Flags().StringVar(&l.Domain, "domain", "default", "`NAME` of a founder's domain")
	cmd.Flags().StringVar(&l.RootFile, "root", "", "file with the root certificate")
	cmd.Flags().StringVar(&l.Pin, "pin", "", "SHA-256 of the root's public key, in hex")
	cmd.Flags().StringArrayVar(&l.Proxy, "proxy", nil, "`auto`, none, or the URL of a proxy; kept for this account (default auto)")
	return cmd
}
