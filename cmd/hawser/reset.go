package main

import (
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/manager"
)

// notices prints what a person has to read, once. The zero value works.
type notices struct {
	mu    sync.Mutex // guards shown
	shown map[string]bool
}

func (n *notices) show(a *app) func(string) {
	return func(text string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.shown[text] {
			return
		}
		if n.shown == nil {
			n.shown = map[string]bool{}
		}
		n.shown[text] = true
		a.terminal.show("")
		fmt.Fprintln(a.stderr, "hawser: "+text)
	}
}

func (a *app) domainAccept() *cobra.Command {
	fingerprint := ""
	cmd := &cobra.Command{
		Use:   "accept",
		Short: "Take another domain key by the word of the root of the servers, after a look at its fingerprint",
		Long: `Take another domain key by the word of the root of the servers.

Gateways take it by themselves, this computer only when you say so: whoever has the root could be a thief. Ask the founder,
on another way than by the server, for the fingerprint of his new key: hawser domain show prints it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.account(func(account *manager.Account) error {
				confirmed := manager.Same(fingerprint)
				if fingerprint == "" {
					confirmed = a.asked(cmd)
				}
				i, err := account.AcceptDomain(cmd.Context(), confirmed)
				if err != nil {
					return err
				}
				return a.print(cmd, i, func() error { return manager.WriteDomain(cmd.OutOrStdout(), i) })
			})
		},
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "`SHA256` of the new key, in hex (default: ask)")
	return cmd
}

// asked is a person at a terminal.
func (a *app) asked(cmd *cobra.Command) func(manager.Reset) error {
	return func(r manager.Reset) error {
		if !somebody(cmd) {
			return answer.Usage("domain accept: nobody is asked without a terminal: give --fingerprint SHA256 of the new key")
		}
		question := fmt.Sprintf("the domain key here is     %s\nthe root gives the domain  %s\nIs the second one the founder's new key? [y/N]", r.Was, r.Is)
		if a.ask(cmd, question) != "y" {
			return answer.Usage("domain accept: nothing is changed")
		}
		return nil
	}
}

func (a *app) domainAdopt() *cobra.Command {
	var phrase passphrase
	var o manager.Adoption
	cmd := &cobra.Command{
		Use:   "adopt KEY",
		Short: "State again what the domain key KEY had stated, after the root has put another in its place",
		Long: `State again, with the domain key that is here, the users, keys and devices that KEY had stated.

KEY is the domain key from before, as hawser domain show has printed it. Without --yes nothing is done: look at each name and
key first. If KEY was stolen, a thief may have stated some of them.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.From, err = identity.ParsePublicKey(args[0]); err != nil {
				return answer.Usage("domain adopt: %w", err)
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				found, err := account.AdoptDomain(cmd.Context(), o)
				if err != nil {
					return err
				}
				return a.print(cmd, found, func() error { return manager.WriteAdopted(cmd.OutOrStdout(), found, o.Sign) })
			})
		},
	}
	cmd.Flags().StringArrayVar(&o.Without, "without", nil, "`NAME` of a user, or name or UID of a device, that is left out; may be given more than once")
	cmd.Flags().BoolVar(&o.Sign, "yes", false, "do it")
	phrase.flags(cmd, false)
	return cmd
}
