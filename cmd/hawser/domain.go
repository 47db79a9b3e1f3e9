package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/manager"
)

func (a *app) domain() *cobra.Command {
	cmd := &cobra.Command{Use: "domain", Short: "Show and keep the domain key, which decides who gets in"}
	cmd.AddCommand(a.domainShow(), a.domainExport(), a.domainImport(), a.domainRotate(), a.domainAccept(), a.domainAdopt())
	return cmd
}

func (a *app) domainShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the domain, its key, and the newest list of who is shut out",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				i, err := account.Domain()
				if err != nil {
					return err
				}
				return a.print(cmd, i, func() error { return manager.WriteDomain(cmd.OutOrStdout(), i) })
			})
		},
	}
}

func (a *app) domainExport() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Write a copy of the domain key that only a passphrase opens",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				if err := account.ExportDomain(args[0]); err != nil {
					return err
				}
				return a.print(cmd, exported{args[0]}, func() error {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "the domain key is in %s: keep it away from this computer\n", args[0])
					return err
				})
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

type exported struct {
	File string `json:"file"`
}

func (a *app) domainImport() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take the domain key from a copy, as before the login of a founder whose disk has died",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.manager()
			if err != nil {
				return err
			}
			phrase.into(cmd, m)
			spki, err := m.ImportDomain(args[0])
			if err != nil {
				return err
			}
			return a.print(cmd, imported{spki}, func() error {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "the domain key %s is here\n", spki)
				return err
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

func (a *app) domainRotate() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Put another domain key in the place of the present one",
		Long: `Make another domain key, have the present one say that it is replaced, and state again all that it has signed.

Gateways and Managers follow by themselves, as soon as they hear of it from the server or from a technician. Codes that are
open do not work any more. Whoever had the old key has nothing from then on. What is signed again is shown first: if a thief
had the key, he may have stated somebody. Export the new key afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !phrase.yes && !somebody(cmd) {
				return answer.Usage("domain rotate: this changes the key of the domain for everybody, and nobody is asked without a terminal: give --yes")
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				r, err := account.RotateDomain(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(cmd, r, func() error { return manager.WriteRotated(cmd.OutOrStdout(), r) })
			})
		},
	}
	phrase.flags(cmd, false)
	yesFlag(cmd, &phrase)
	return cmd
}

type imported struct {
	SPKI identity.SPKI `json:"spki_sha256"`
}
