package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/manager"
)

func (a *app) user() *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Say who gets in, and how far"}
	cmd.AddCommand(a.userAdd(), a.userList(), a.userShow(), a.userCode(), a.userRenew(), a.userRevoke())
	return cmd
}

func (a *app) userAdd() *cobra.Command {
	var role string
	var phrase passphrase
	days := 0
	rights := manager.UserRights{}
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "State a user, and make the code for his login",
		Long: `State a user, and make the code with which he logs in on his own computer.

An admin states others and has no scope. An operator connects to the devices and targets of his scope. A viewer sees the
devices of his scope and opens nothing. Without --device and --target the scope is everything. Admins are stated by the domain
key alone, so on the computer that has it.`,
		Example: "  hawser user add ann --role operator --device north/hall --target 192.168.1.0/24:102\n  hawser user add bob --role admin",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rights.Role, rights.Life = identity.Role(role), time.Duration(days)*24*time.Hour
			if rights.Role == identity.RoleAdmin && (cmd.Flags().Changed("device") || cmd.Flags().Changed("target")) {
				return answer.Usage("user add: an admin has no scope: leave --device and --target out")
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				u, err := account.AddUser(cmd.Context(), args[0], rights)
				if err != nil {
					return err
				}
				return a.print(cmd, u, func() error { return account.WriteNewUser(cmd.OutOrStdout(), u) })
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", string(identity.RoleOperator), "`ROLE`: admin, operator or viewer")
	cmd.Flags().StringArrayVar(&rights.Devices, "device", []string{"*"}, "`UID` or folder; may be given more than once")
	cmd.Flags().StringArrayVar(&rights.Targets, "target", []string{"*"}, "`TARGET` behind the gateway, as 192.168.1.0/24:102; may be given more than once")
	cmd.Flags().IntVar(&days, "days", 0, "how long, at most 365 (default a year)")
	phrase.flags(cmd, false)
	return cmd
}

func (a *app) userList() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users, with the computers on which they are logged in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				users, err := account.Users(cmd.Context())
				if err != nil {
					return err
				}
				return a.print(cmd, users, func() error { return manager.WriteUsers(cmd.OutOrStdout(), users) })
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

func (a *app) userCode() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "code NAME",
		Short: "Make another code for a user: for another computer, or after a lost one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				u, err := account.UserCode(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, u, func() error { return account.WriteNewUser(cmd.OutOrStdout(), u) })
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

func (a *app) userShow() *cobra.Command {
	var phrase passphrase
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a user: how far he gets in, until when, and on which computers he is logged in",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				u, err := account.User(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print(cmd, u, func() error { return manager.WriteUser(cmd.OutOrStdout(), u) })
			})
		},
	}
	phrase.flags(cmd, false)
	return cmd
}

func (a *app) userRenew() *cobra.Command {
	var phrase passphrase
	var role string
	var rights manager.NewRights
	due, keep, days := false, false, 0
	changes := func(cmd *cobra.Command) bool {
		return slices.ContainsFunc([]string{"role", "device", "target", "days"}, cmd.Flags().Changed)
	}
	cmd := &cobra.Command{
		Use:   "renew (NAME... | --due)",
		Short: "State users for another year, with the rights that they have, or one with others",
		Long: `State users for as long as the last time, which is a year if nothing else was said, with the rights that they have.

With --due those whose statements end within 60 days, and were made for longer than that. What is signed is shown first.

With --role, --device, --target or --days one user gets other rights; what is left out stays. If he loses any, what was stated
before counts nowhere any more, and his sessions end. Whom an admin has added falls when he is none any more, or with --keep is
stated again.`,
		Example: "  hawser user renew ann bob\n  hawser user renew ann --target 192.168.10.20:502 --days 14",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case due == (len(args) > 0):
				return errors.New("user renew: want a NAME, or --due")
			case changes(cmd) && len(args) != 1:
				return errors.New("user renew: rights are changed of one user at a time")
			case keep && !changes(cmd):
				return errors.New("user renew: --keep is for an admin who gets another --role")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			if due && !phrase.yes && !somebody(cmd) {
				return answer.Usage("user renew: nobody is asked without a terminal whether those who are due are to stay: give --yes, or their names")
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				var renewed []identity.UserStatement
				var err error
				switch {
				case changes(cmd):
					rights.Role, rights.Life = identity.Role(role), time.Duration(days)*24*time.Hour
					renewed = make([]identity.UserStatement, 1)
					renewed[0], err = account.ChangeUser(cmd.Context(), names[0], rights, keep)
				case due:
					renewed, err = account.RenewDue(cmd.Context())
				default:
					renewed, err = account.RenewUsers(cmd.Context(), names...)
				}
				if err != nil {
					return err
				}
				return a.print(cmd, renewed, func() error { return manager.WriteRenewed(cmd.OutOrStdout(), renewed) })
			})
		},
	}
	cmd.Flags().BoolVar(&due, "due", false, "all whose statements end within 60 days")
	cmd.Flags().StringVar(&role, "role", "", "another `ROLE`: admin, operator or viewer")
	cmd.Flags().StringArrayVar(&rights.Devices, "device", nil, "`UID` or folder, in place of those that he has; may be given more than once")
	cmd.Flags().StringArrayVar(&rights.Targets, "target", nil, "`TARGET` behind the gateway, likewise")
	cmd.Flags().IntVar(&days, "days", 0, "how long, at most 365 (default: as long as the last time)")
	cmd.Flags().BoolVar(&keep, "keep", false, "of an admin who gets another role: state again whom he has added")
	phrase.flags(cmd, false)
	yesFlag(cmd, &phrase)
	return cmd
}

func (a *app) userRevoke() *cobra.Command {
	var phrase passphrase
	var keep bool
	var key string
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Shut a user out for good, or one of his PCs, and end the sessions",
		Long: `Shut a user out for good, and end his sessions.

What hangs on an admin alone is shown first, and falls with him, or with --keep is stated again.

With --key it is one of his PCs, which he has lost: its key, which hawser user list shows, and the keys of the PCs that were
let in with it. His other PCs go on.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key != "" {
				return a.revokeKey(cmd, &phrase, args[0], key)
			}
			return a.signing(cmd, &phrase, func(account *manager.Account) error {
				if err := account.RevokeUser(cmd.Context(), args[0], keep); err != nil {
					return err
				}
				return a.print(cmd, revoked{User: args[0]}, func() error {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is shut out\n", args[0])
					return err
				})
			})
		},
	}
	phrase.flags(cmd, false)
	yesFlag(cmd, &phrase)
	cmd.Flags().BoolVar(&keep, "keep", false, "of an admin: state again whom he has added; not when somebody else may have had his key")
	trustClockFlag(cmd, &phrase)
	cmd.Flags().StringVar(&key, "key", "", "only the PC with this key, by its `SHA256` in hawser user list")
	cmd.MarkFlagsMutuallyExclusive("keep", "key")
	return cmd
}

type revoked struct {
	User string          `json:"revoked"`
	Keys []identity.SPKI `json:"keys,omitempty"`
}

func (a *app) revokeKey(cmd *cobra.Command, phrase *passphrase, user, key string) error {
	spki, err := identity.ParsePin(key)
	if err != nil {
		return answer.Usage("user revoke: key: %w", err)
	}
	return a.signing(cmd, phrase, func(account *manager.Account) error {
		keys, err := account.RevokeUserKey(cmd.Context(), user, spki)
		if err != nil {
			return err
		}
		return a.print(cmd, revoked{user, keys}, func() error { return manager.WriteListed(cmd.OutOrStdout(), user, keys) })
	})
}

// signing is account, for a command that may need the domain key.
func (a *app) signing(cmd *cobra.Command, phrase *passphrase, do func(*manager.Account) error) error {
	return a.accountOf(func(m *manager.Manager) {
		phrase.into(cmd, m)
		m.Approve = func(c manager.Change) error { return a.approve(cmd, phrase.yes, c) }
		if somebody(cmd) && !a.json {
			m.Confirm = func(k manager.InvitedKey) bool { return a.yes(cmd, manager.AboutInvited(k)) }
		}
	}, do)
}

// approve shows a change, and asks a person for his word. Where there is none the command itself is it.
func (a *app) approve(cmd *cobra.Command, yes bool, c manager.Change) error {
	a.terminal.show("")
	if err := manager.WriteChange(cmd.ErrOrStderr(), c); err != nil {
		return err
	}
	if !yes && somebody(cmd) && !a.json && !a.yes(cmd, "Go on?") {
		return answer.Usage("nothing is signed, and nothing is changed")
	}
	return nil
}

func (a *app) yes(cmd *cobra.Command, question string) bool {
	word := a.ask(cmd, question+" [yes/no]")
	return word == "yes" || word == "y"
}
