package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hawser/agent"
)

func enrollCommand(p *places) *cobra.Command {
	var f agent.FirstContact
	var json bool
	c := &cobra.Command{
		Use: "enroll", Short: "fetch this gateway's identity with an activation code",
		Example: "  hawser-agent enroll --access hawser.example.com --code XXXX-… --pin 5f3c…\n" +
			"  hawser-agent enroll --access 192.0.2.10 --code XXXX-… --root root.pem",
		Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, paths, err := p.load(true)
			if err != nil {
				return err
			}
			o := p.options(c, cfg)
			e, err := f.Prepare(&o.Config)
			if err != nil {
				return usageError{err}
			}
			if cfg.File != "" && len(cfg.Access) == 0 {
				return usageError{fmt.Errorf("config %s names no Access Server: add access: [HOST] first, since enroll leaves a file that is there as it is", cfg.File)}
			}
			fmt.Fprintf(c.ErrOrStderr(), "hawser-agent: looking for a way to %s\n", strings.Join(o.Config.Access, ", "))
			self, err := agent.Enroll(c.Context(), o, e)
			if err != nil {
				return err
			}
			if err := agent.WriteConfig(paths.Config, o.Config); err != nil {
				return err
			}
			return printSelf(c.OutOrStdout(), self, json)
		}),
	}
	c.Flags().StringArrayVar(&f.Access, "access", nil, "`HOST[:PORT]` of an Access Server; may be repeated")
	c.Flags().UintSliceVar(&f.Ports, "ports", nil, "`PORTS` on which the servers answer (default 443,5935,80)")
	c.Flags().StringVar(&f.Code, "code", "", "activation `CODE`, from hawser device add")
	c.Flags().StringVar(&f.RootFile, "root", "", "root certificate `FILE`")
	c.Flags().StringVar(&f.Pin, "pin", "", "`SHA256` of the root's public key, instead of --root")
	c.Flags().BoolVar(&json, "json", false, asJSON)
	c.MarkFlagRequired("code")
	c.MarkFlagsMutuallyExclusive("root", "pin")
	return c
}

func printSelf(w io.Writer, self *agent.Self, asJSON bool) error {
	until := self.Cert.Leaf.NotAfter.UTC()
	if asJSON {
		return printJSON(w, struct {
			UID      string    `json:"uid"`
			Domain   string    `json:"domain"`
			Name     string    `json:"name"`
			SPKI     string    `json:"spki_sha256"`
			NotAfter time.Time `json:"not_after"`
		}{self.UID.String(), self.Name.Domain, self.Label, self.SPKI.String(), until})
	}
	_, err := fmt.Fprintf(w, "enrolled %s as %s in domain %s, until %s\n", self.Label, self.UID, self.Name.Domain, until.Format(time.RFC3339))
	return err
}

func identityCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "identity", Short: "show or reset this gateway's identity", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("identity: say show or reset") },
	}
	var json, yes bool
	show := &cobra.Command{
		Use: "show", Short: "show who this gateway is", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, _, err := p.load(true)
			if err != nil {
				return err
			}
			info, err := agent.ShowIdentity(cfg.Data)
			if err != nil {
				return err
			}
			return printIdentity(c.OutOrStdout(), info, json)
		}),
	}
	show.Flags().BoolVar(&json, "json", false, asJSON)
	reset := &cobra.Command{
		Use: "reset", Short: "erase the identity and its key; the gateway must be enrolled again", Args: cobra.NoArgs,
		RunE: act(func(c *cobra.Command) error {
			cfg, paths, err := p.load(true)
			if err != nil {
				return err
			}
			if !yes {
				return usageError{fmt.Errorf("identity reset erases the key in %s for ever: confirm with --yes", cfg.Data)}
			}
			if _, err := agent.ReadStatus(c.Context(), paths.Socket); !errors.Is(err, agent.ErrNotRunning) {
				return fmt.Errorf("reset identity in %s: the agent is running: stop it first", cfg.Data)
			}
			return agent.Reset(cfg.Data)
		}),
	}
	reset.Flags().BoolVar(&yes, "yes", false, "really erase it")
	c.AddCommand(show, reset)
	return c
}

func printIdentity(w io.Writer, i agent.IdentityInfo, asJSON bool) error {
	if asJSON {
		return printJSON(w, i)
	}
	if !i.Enrolled {
		_, err := fmt.Fprintln(w, "not enrolled: run hawser-agent enroll")
		return err
	}
	_, err := fmt.Fprintf(w, "uid          %s\ndomain       %s\nspki sha256  %s\nvalid        %s to %s\n", i.UID, i.Domain, i.SPKI,
		i.NotBefore.Format(time.RFC3339), i.NotAfter.Format(time.RFC3339))
	return err
}
