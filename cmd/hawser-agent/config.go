package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board"
	"hawser/internal/answer"
	"hawser/internal/cli"
)

// checked is the answer of config check.
type checked struct {
	OK      bool          `json:"ok"`
	Config  string        `json:"config"`
	Warning string        `json:"warning"`
	Reach   agent.Reach   `json:"reach"`
	Servers agent.Servers `json:"servers"`
	Targets []target      `json:"targets"`
	Told    []target      `json:"told"`
}

// target is one address of --to or --server.
type target struct {
	Target  netip.AddrPort `json:"target"`
	Allowed bool           `json:"allowed"`
	Why     string         `json:"why"`
}

// configCommand is what an init script and an operator ask before a restart: it stops where side effects would begin.
func configCommand(p *places) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "check the configuration", Args: cobra.NoArgs,
	}
	var json bool
	var to, servers []string
	var user string
	check := &cobra.Command{
		Use: "check", Short: "read the configuration, say what sessions may reach now, and change nothing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := p.loadToRun()
			if err == nil {
				err = cfg.CheckData()
			}
			if err != nil {
				return err
			}
			// The uplinks of before are known to the agent that runs, and not here.
			around, err := agent.Around(board.New())
			if err != nil {
				fmt.Fprintf(c.ErrOrStderr(), "hawser-agent: what sessions may reach is not known: %v\n", err)
			}
			policy := agent.NewPolicy(cfg.Allow, around)
			policy.User, policy.Now = user, time.Now() // the agent that runs may know the time better
			got := checked{OK: true, Config: cfg.File, Warning: cfg.Warning(), Reach: policy.Reach()}
			if got.Targets, err = judge("--to", to, policy.Judge); err != nil {
				return err
			}
			got.Servers = cfg.Servers()
			got.Told, err = judge("--server", servers, func(a netip.AddrPort) (bool, string) { return cfg.Dials(policy, a) })
			if err != nil {
				return err
			}
			return cli.Print(c, json, got, func(w io.Writer) error { return got.print(w, c.ErrOrStderr()) })
		},
	}
	check.Flags().StringArrayVar(&to, "to", nil, "say whether sessions may reach `IP:PORT`, and why; may be repeated")
	check.Flags().StringVar(&user, "user", "", "with --to: for the user with this `NAME`")
	check.Flags().StringArrayVar(&servers, "server", nil, "say whether the agent dials `IP:PORT` when it is told that a server is there, and why; may be repeated")
	cli.JSONFlag(check, &json)
	c.AddCommand(check)
	return c
}

func (c checked) print(stdout, stderr io.Writer) error {
	if c.Warning != "" {
		fmt.Fprintf(stderr, "hawser-agent: %s\n", c.Warning)
	}
	fmt.Fprintf(stdout, "%s is good\n", c.Config)
	if len(c.Targets)+len(c.Told) == 0 {
		printReach(stdout, c.Reach)
		fmt.Fprintf(stdout, "servers   %s\n", c.Servers)
	}
	for _, t := range slices.Concat(c.Targets, c.Told) {
		word := "refused"
		if t.Allowed {
			word = "allowed"
		}
		fmt.Fprintf(stdout, "%-9s %s: %s\n", word, t.Target, t.Why)
	}
	return nil
}

// judge asks about each address of a flag.
func judge(flag string, texts []string, of func(netip.AddrPort) (bool, string)) ([]target, error) {
	list := []target{}
	for _, text := range texts {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, answer.Usage("%s %q: want IP:PORT", flag, text)
		}
		ok, why := of(a)
		list = append(list, target{a, ok, why})
	}
	return list, nil
}
