package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/manager"
)

// audit prints the records of the domain. The limit is for reading, --verify always reads to the end: half a chain
// proves nothing.
func (a *app) audit() *cobra.Command {
	var q manager.AuditQuery
	var since string
	verify, follow := false, false
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what happened in the domain, newest last",
		Long: `Show what happened in the domain, newest last: who came and went, what was changed, and of each session which targets of
a gateway were reached, when, and how many bytes went there and back. The gateway itself has signed that; what nobody need
believe is marked NOT PROVEN.

With --follow new records come as they are written, until ^C. With --verify the audit of all Access Servers is read from
where the last --verify on this computer ended; it fails when records were changed, left out, added or cut off since.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if since != "" {
				if q.Since, err = manager.ParseSince(since, time.Now()); err != nil {
					return err
				}
			}
			return a.account(func(account *manager.Account) error {
				switch {
				case verify:
					return a.verifyAudit(cmd, account)
				case follow:
					return a.followAudit(cmd, account, q)
				}
				records, err := account.Audit(cmd.Context(), q)
				if err != nil {
					return err
				}
				return a.print(cmd, records, func() error { return manager.WriteRecords(cmd.OutOrStdout(), records) })
			})
		},
	}
	cmd.Flags().IntVar(&q.Limit, "limit", 100, "how many records, at most 1000")
	cmd.Flags().StringVar(&q.Device, "device", "", "what concerns `DEVICE`: a UID, a name, or a folder with a name")
	cmd.Flags().StringVar(&q.User, "user", "", "what `USER` did, or what was done to him")
	cmd.Flags().StringVar(&since, "since", "", "from `TIME` on: 2026-03-01T08:00:00Z, 2026-03-01, or how long ago: 24h")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with new records until ^C; with --json one a line")
	cmd.Flags().BoolVar(&verify, "verify", false, "look whether the audit is whole and unchanged since the last time")
	for _, flag := range []string{"limit", "device", "user", "since", "follow"} {
		cmd.MarkFlagsMutuallyExclusive(flag, "verify")
	}
	cmd.AddCommand(a.auditExport(), a.auditVerify())
	return cmd
}

func (a *app) followAudit(cmd *cobra.Command, account *manager.Account, q manager.AuditQuery) error {
	show := func(records []manager.AuditRecord) error {
		a.terminal.show("")
		if !a.json {
			return manager.WriteFollowed(cmd.OutOrStdout(), records)
		}
		for _, r := range records {
			if err := answer.JSON(cmd.OutOrStdout(), r); err != nil {
				return err
			}
		}
		return nil
	}
	return account.FollowAudit(cmd.Context(), q, show, func(err error) {
		text := "the server is there again"
		switch {
		case errors.Is(err, manager.ErrSkipped):
			text = manager.Explain(err)
		case err != nil:
			text = "waiting for the server: " + manager.Explain(err)
		}
		a.terminal.show("")
		fmt.Fprintln(cmd.ErrOrStderr(), text)
	})
}

func (a *app) verifyAudit(cmd *cobra.Command, account *manager.Account) error {
	chains, err := account.VerifyAudit(cmd.Context())
	if err != nil {
		return err
	}
	err = a.print(cmd, chains, func() error { return manager.WriteVerified(cmd.OutOrStdout(), chains) })
	return errors.Join(err, manager.VerifiedExport{Chains: chains}.Err())
}

// auditExport is a command of its own, as domain export is: it writes a file, and none of the filters is for it, because a
// chain with holes proves nothing.
func (a *app) auditExport() *cobra.Command {
	var earlier []string
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Write the audit into a file that can be verified offline",
		Long: `Write the audit of all Access Servers into FILE, as JSON lines, as far as this domain may read it: records, the hashes of
others' records, where each server has signed that its audit begins and ends, and what the owner has stated of the gateways
that have signed reports. hawser audit verify FILE needs nothing else but the root and the domain key.

After a change of the domain key the gateways of before are proven by the key of before: name it with --domain-key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := publicKeys(earlier)
			if err != nil {
				return err
			}
			return a.account(func(account *manager.Account) error {
				x, err := account.ExportAudit(cmd.Context(), args[0], keys...)
				if err != nil {
					return err
				}
				err = a.print(cmd, x, func() error {
					return manager.WriteExport(cmd.OutOrStdout(), x.Chains, x.Records, x.Reports, x.Withheld, nil)
				})
				return errors.Join(err, manager.VerifiedExport{Chains: x.Chains}.Err())
			})
		},
	}
	cmd.Flags().StringArrayVar(&earlier, "domain-key", nil, "an earlier public `KEY` of the domain, whole; may be given more than once")
	return cmd
}

func publicKeys(texts []string) (keys []identity.PublicKey, err error) {
	for _, text := range texts {
		key, err := identity.ParsePublicKey(text)
		if err != nil {
			return nil, answer.Usage("domain key: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (a *app) auditVerify() *cobra.Command {
	var root, domain string
	var texts []string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify an export of the audit, without a network",
		Long: `Verify a file of hawser audit export: every record and its place, that the servers have signed where their audit begins
and ends, and that each report was signed by a key which the owner has stated for that gateway. It uses the root and the
domain key of this account, or on a computer without one those of --root, --domain and --domain-key (hawser domain show). More
of --domain-key are earlier keys of the domain, which prove the reports of their time.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := publicKeys(texts)
			if err != nil {
				return err
			}
			roots, pinned, earlier, err := a.trust(root, domain, keys)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return answer.Usage("read export: %w", err)
			}
			defer f.Close()
			v, err := manager.VerifyExport(f, roots, pinned, earlier...)
			if err != nil {
				return err
			}
			err = a.print(cmd, v, func() error {
				return manager.WriteExport(cmd.OutOrStdout(), v.Chains, v.Records, v.Reports, v.Withheld, v.Problems)
			})
			return cmp.Or(err, v.Err())
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "file with the root certificate")
	cmd.Flags().StringVar(&domain, "domain", "", "`NAME` of the domain")
	cmd.Flags().StringArrayVar(&texts, "domain-key", nil, "the whole public `KEY` of the domain, and earlier ones; may be given more than once")
	cmd.MarkFlagsRequiredTogether("root", "domain")
	return cmd
}

// trust is what an export is verified by: what the flags say, else that of the account. With a root the first of the keys is the
// domain's; all others are earlier ones.
func (a *app) trust(root, domain string, keys []identity.PublicKey) (roots *identity.Roots, pinned identity.Pinned, earlier []identity.PublicKey, err error) {
	if root == "" {
		err = a.account(func(account *manager.Account) error {
			roots, pinned = account.Trust()
			return nil
		})
		return roots, pinned, keys, err
	}
	b, err := os.ReadFile(root)
	if err == nil {
		roots, err = identity.ParseRoots(b)
	}
	if err != nil {
		return nil, pinned, nil, answer.Usage("root: %w", err)
	}
	if err := identity.CheckLabel(domain); err != nil {
		return nil, pinned, nil, answer.Usage("domain: %w", err)
	}
	if len(keys) == 0 {
		return nil, pinned, nil, answer.Usage("audit verify: --root and --domain want the --domain-key as well")
	}
	return roots, identity.Pinned{Domain: domain, Key: keys[0]}, keys[1:], nil
}
