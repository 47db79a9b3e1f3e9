package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/provision"
)

// enrollCommand checks everything that it can without the network first: the code is used up by whoever gets through
// with it.
func enrollCommand(p *places) *cobra.Command {
	var f agent.FirstContact
	var code cli.Code
	var json bool
	var file string
	c := &cobra.Command{
		Use: "enroll", Short: "fetch this gateway's identity with an activation code",
		Example: "  hawser-agent enroll --access hawser.example.com --pin 5f3c…\n" +
			"  hawser-agent enroll --access 192.0.2.10 --code-file code.txt --root root.pem\n" +
			"  hawser-agent enroll --file press-4.txt",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, paths, err := p.load(true)
			if err != nil {
				return err
			}
			if file != "" {
				return p.enrollFile(c, file, cfg, paths, json)
			}
			if f.Code, err = code.Read(c); err != nil {
				return err
			}
			o := p.options(c.ErrOrStderr(), cfg)
			e, err := f.Prepare(&o.Config)
			if err != nil {
				return &answer.UsageError{Err: err}
			}
			if cfg.File != "" && len(cfg.Access) == 0 {
				return answer.Usage("config %s names no Access Server: add access: [HOST] first, since enroll leaves a file that is there as it is", cfg.File)
			}
			searching(c, o.Config)
			self, err := agent.Enroll(c.Context(), o, e)
			if err != nil {
				return err
			}
			// Last, since the unit of a package waits for that file (ConditionPathExists).
			if err := agent.WriteConfig(paths.Config, o.Config); err != nil {
				return err
			}
			return printSelf(c.OutOrStdout(), self, json)
		},
	}
	c.Flags().StringArrayVar(&f.Access, "access", nil, "`HOST[:PORT]` of an Access Server; may be repeated")
	c.Flags().UintSliceVar(&f.Ports, "ports", nil, "`PORTS` on which the servers answer (default 443,5935,80)")
	code.Flags(c, "the activation code of hawser device add")
	c.Flags().StringVar(&f.RootFile, "root", "", "root certificate `FILE`")
	c.Flags().StringVar(&f.Pin, "pin", "", "`SHA256` of the root's public key, instead of --root")
	c.Flags().StringArrayVar(&f.Proxy, "proxy", nil, "`auto`, none, or the URL of a proxy; may be repeated; goes into the configuration (default auto)")
	c.Flags().BoolVar(&f.Private, "private", false, "the servers have private addresses; goes into the configuration")
	c.Flags().StringVar(&file, "file", "", "provisioning `FILE` of hawser device add --out, which nobody else may read and which is erased when it has worked; - is standard input")
	cli.JSONFlag(c, &json)
	c.MarkFlagsMutuallyExclusive("root", "pin")
	for _, other := range []string{"access", "ports", "code", "code-file", "root", "pin", "proxy", "private"} {
		c.MarkFlagsMutuallyExclusive("file", other)
	}
	return c
}

// searching says what goes on: a search of all ways can take a minute, in which nothing else would be seen.
func searching(c *cobra.Command, cfg agent.Config) {
	fmt.Fprintf(c.ErrOrStderr(), "hawser-agent: looking for a way to %s\n", strings.Join(cfg.Access, ", "))
}

// enrollFile enrolls with a provisioning file, and erases it when identity and configuration are safe.
func (p *places) enrollFile(c *cobra.Command, file string, cfg agent.Config, paths board.Paths, json bool) error {
	given, err := provision.LoadSecret(file, c.InOrStdin())
	if err != nil {
		return &answer.UsageError{Err: err}
	}
	o := p.options(c.ErrOrStderr(), cfg)
	made, err := agent.Provision(given, o.Config)
	if err != nil {
		return &answer.UsageError{Err: fmt.Errorf("%s: %w", file, err)}
	}
	o.Config = made.Config
	searching(c, o.Config)
	self, err := agent.Enroll(c.Context(), o, made.Enroll)
	if err != nil {
		return err
	}
	if err := made.WriteConfig(paths.Config); err != nil {
		return err
	}
	if err := printSelf(c.OutOrStdout(), self, json); err != nil || file == "-" {
		return err
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("enrolled; erase %s by hand, its code is used: %w", file, err)
	}
	return nil
}

// printSelf prints who the gateway is now, for the person to compare with what hawser device add said: a code that was
// meant for another gateway shows here.
func printSelf(w io.Writer, self *agent.Self, asJSON bool) error {
	until := self.Cert.Leaf.NotAfter.UTC()
	if asJSON {
		return answer.JSON(w, struct {
			UID       string    `json:"uid"`
			Domain    string    `json:"domain"`
			Name      string    `json:"name"`
			SPKI      string    `json:"spki_sha256"`
			NotAfter  time.Time `json:"not_after"`
			DomainKey string    `json:"domain_key_sha256"`
		}{self.UID.String(), self.Name.Domain, self.Label, self.SPKI.String(), until, self.DomainKey.String()})
	}
	_, err := fmt.Fprintf(w, "enrolled %s as %s in domain %s, until %s\nthe owner's key is %s\n", self.Label, self.UID, self.Name.Domain,
		until.Format(time.RFC3339), fingerprint(self.DomainKey.String()))
	return err
}

// identityCommand's show reads files only, so it works on a gateway whose agent does not start.
func identityCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "identity", Short: "show or reset this gateway's identity", Args: cobra.NoArgs,
	}
	var json, yes bool
	show := &cobra.Command{
		Use: "show", Short: "show who this gateway is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := p.load(true)
			if err != nil {
				return err
			}
			info, err := agent.ShowIdentity(cfg.Data)
			if err != nil {
				return err
			}
			return printIdentity(c.OutOrStdout(), info, json)
		},
	}
	cli.JSONFlag(show, &json)
	reset := &cobra.Command{
		Use: "reset", Short: "erase the identity and its key; the gateway must be enrolled again", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, paths, err := p.load(true)
			if err != nil {
				return err
			}
			// A flag and no question: gateways are reset by scripts too, and a question would hang them.
			if !yes {
				return answer.Usage("identity reset erases the key in %s for good: confirm with --yes", cfg.Data)
			}
			// A running agent has the identity in memory, and would go on as who it was.
			if _, err := agent.ReadStatus(c.Context(), paths.Socket); !errors.Is(err, agent.ErrNotRunning) {
				return fmt.Errorf("reset identity in %s: the agent is running: stop it first", cfg.Data)
			}
			return agent.Reset(cfg.Data)
		},
	}
	reset.Flags().BoolVar(&yes, "yes", false, "really erase it")
	c.AddCommand(show, reset)
	return c
}

// printIdentity prints the dates as the certificate has them. Whether they are over is not judged: the clock of a
// gateway may be the thing that is wrong.
func printIdentity(w io.Writer, i agent.IdentityInfo, asJSON bool) error {
	if asJSON {
		return answer.JSON(w, i)
	}
	if i.ClaimCode != "" {
		_, err := fmt.Fprintf(w, "not enrolled: claim this gateway with hawser device claim %s NAME, or run hawser-agent enroll\n", i.ClaimCode)
		return err
	}
	if !i.Enrolled {
		_, err := fmt.Fprintln(w, "not enrolled: run hawser-agent enroll, or start the agent, which makes a code with which it can be claimed")
		return err
	}
	fmt.Fprintf(w, "uid          %s\ndomain       %s\nspki sha256  %s\nvalid        %s to %s\n", i.UID, i.Domain, i.SPKI,
		i.NotBefore.Format(time.RFC3339), i.NotAfter.Format(time.RFC3339))
	if i.Fresh != nil {
		fmt.Fprintf(w, "fresh key    %s\n             another machine uses this identity: these are the words for hawser device accept\n", i.Fresh.Words)
	}
	_, err := fmt.Fprintf(w, "owner        %s\n", ownerText(i.Owner, i.OwnerError))
	return err
}

// fingerprint is what people compare of a key: 16 hex digits in groups of 4.
func fingerprint(spki string) string {
	var groups []string
	for i := 0; i+4 <= min(len(spki), 16); i += 4 {
		groups = append(groups, spki[i:i+4])
	}
	return strings.Join(groups, " ")
}

// ownerText says who decides who gets in, and how much the gateway knows of it.
func ownerText(o *agent.OwnerStatus, why string) string {
	if o == nil {
		return cmp.Or(why, "none is known: nobody is let in")
	}
	text := "key " + fingerprint(o.DomainKey) + ", "
	if o.List.IsZero() {
		text += "no list yet"
	} else {
		text += "newest list of " + o.List.Format(time.RFC3339)
	}
	if !o.Until.IsZero() {
		text += ", the gateway's key is to be confirmed by " + o.Until.Format(time.RFC3339)
	}
	if !o.TimeServers.IsZero() {
		text += ", time servers say " + o.TimeServers.Format(time.RFC3339) + ", more than a day after the signed time: statements are judged by that"
	}
	if o.Fault != "" {
		text += ", its statement about this gateway does not stand: " + o.Fault
	}
	return text
}
