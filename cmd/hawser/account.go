package main

import (
	"errors"

	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/manager"
)

// login is the only command that works without an account.
func (a *app) login() *cobra.Command {
	var l manager.Login
	var code cli.Code
	var phrase passphrase
	another := false
	var private bool
	cmd := &cobra.Command{
		Use:   "login (SERVER (--root FILE | --pin SHA256) | --another)",
		Short: "Log in with a code",
		Long: `Log in at SERVER (HOST, HOST:PORT or https://HOST[:PORT]) with a code.

The server must prove itself: by the root certificate in FILE, or by a root whose SHA-256 of the public key is
--pin. Without both, the root of the earlier login is used.

With a code of hawser-server init this is the founder of the domain: the domain key is made here, and stays here, under a
passphrase. Whoever has it decides who gets in: make a copy with hawser domain export. A code of hawser user add begins
with U and says itself who logs in.

login --another is for a user who has logged in here, and has a second PC: it makes the code with which he logs in there.`,
		Example: "  hawser login hawser.example.com --pin 9f86d081...\n  hawser login --another",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case another && len(args) > 0:
				return errors.New("login --another: it is for the account that is here: leave SERVER out")
			case !another && len(args) != 1:
				return errors.New("login: want SERVER, or --another for a code for your next PC")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if another {
				return a.anotherCode(cmd, &phrase)
			}
			var err error
			if l.Code, err = code.Read(cmd); err != nil {
				return err
			}
			l.Server = args[0]
			if cmd.Flags().Changed("private") {
				l.Private = &private
			}
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
	cmd.Flags().BoolVar(&another, "another", false, "make the code with which you log in on your next PC")
	cmd.Flags().StringVar(&l.User, "user", "admin", "`NAME` of a founder")
	cmd.Flags().StringVar(&l.Domain, "domain", "default", "`NAME` of a founder's domain")
	cmd.Flags().StringVar(&l.RootFile, "root", "", "file with the root certificate")
	cmd.Flags().StringVar(&l.Pin, "pin", "", "SHA-256 of the root's public key, in hex")
	cmd.Flags().UintSliceVar(&l.Ports, "ports", nil, "`PORTS` on which the servers answer (default 443,5935,80); kept for this account")
	cmd.Flags().BoolVar(&private, "private", false, "the servers have private addresses; kept for this account")
	cmd.Flags().StringArrayVar(&l.Proxy, "proxy", nil, "`auto`, none, or the URL of a proxy; kept for this account (default auto)")
	for _, flag := range []string{"code", "user", "domain", "root", "pin", "proxy"} {
		cmd.MarkFlagsMutuallyExclusive("another", flag)
	}
	return cmd
}

func (a *app) anotherCode(cmd *cobra.Command, phrase *passphrase) error {
	return a.signing(cmd, phrase, func(account *manager.Account) error {
		u, err := account.AnotherCode(cmd.Context())
		if err != nil {
			return err
		}
		return a.print(cmd, u, func() error { return account.WriteNewUser(cmd.OutOrStdout(), u) })
	})
}

func (a *app) logout() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "End the login of this PC, and remove its key",
		Long: `End the login of this PC at the servers, and remove its key and certificate from here; with --all, end those of your other PCs
too. The domain key, if it is here, stays.

Gateways that hear nothing of the servers go by the owner's statements, which stay: when the key may be in wrong hands, an
admin puts it into the list, by hawser user revoke NAME --key KEY.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				out, err := account.Logout(cmd.Context(), all)
				if err != nil {
					return err
				}
				return a.print(cmd, out, func() error { return manager.WriteLoggedOut(cmd.OutOrStdout(), out) })
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "on all your PCs")
	return cmd
}
