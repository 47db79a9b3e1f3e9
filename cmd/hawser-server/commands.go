package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/server"
)

// initCommand refuses a directory that holds an infrastructure already: a second root would cut off all that is
// enrolled.
func initCommand() *cobra.Command {
	var o server.Options
	var ports []uint
	var json bool
	c := &cobra.Command{
		Use: "init", Short: "make root, keys, configuration and the first login code",
		Example: "  hawser-server init --dir /etc/hawser --host hawser.example.com\n" +
			"  hawser-server init --join /media/root --dir /etc/hawser --host hawser2.example.com --store postgres://hawser@db.example.com/hawser",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Ports, err = server.ParsePorts(ports); err != nil {
				return err
			}
			made, err := server.Init(c.Context(), o)
			if err != nil {
				return err
			}
			// On stderr, so that a script that reads the answer shows it to its user all the same.
			fmt.Fprintf(c.ErrOrStderr(), "hawser-server: keep %s offline: no running program needs it, and whoever has it controls the infrastructure\n", made.RootKey)
			return printMade(c.OutOrStdout(), made, json)
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "`DIR` to put it in; made if it is not there")
	c.Flags().StringArrayVar(&o.Hosts, "host", nil, "`NAME|IP` at which clients reach the server; may be repeated")
	c.Flags().StringVar(&o.Domain, "domain", server.DefaultDomain, "`NAME` of the first domain")
	c.Flags().UintSliceVar(&ports, "ports", []uint{80, 443, 5935}, "`PORTS` to answer on")
	c.Flags().StringVar(&o.Join, "join", "", "`ROOTDIR` with root.key and root.pem, to make another Access Server of that infrastructure")
	c.Flags().StringVar(&o.URL, "store", "", "`URL` of the PostgreSQL database with the state, postgres://USER:PASSWORD@HOST:PORT/NAME (default: a store in DIR)")
	cli.JSONFlag(c, &json)
	mustHave(c, "dir", "host")
	c.MarkFlagsMutuallyExclusive("join", "domain")
	return c
}

// printMade shows the login code, which is stored nowhere as it is: who loses it makes another one.
func printMade(w io.Writer, m server.Made, asJSON bool) error {
	code := "none: log in as before"
	if !m.Joined {
		code = m.AdminCode.String()
	}
	// A script wants no words where a code would be.
	if asJSON && m.Joined {
		code = ""
	}
	if asJSON {
		return answer.JSON(w, struct {
			Dir        string `json:"dir"`
			RootFile   string `json:"root_file"`
			RootSHA256 string `json:"root_sha256"`
			Access     string `json:"access"`
			AdminCode  string `json:"admin_code"`
		}{m.Dir, m.RootFile, m.Root.String(), m.Access.ID, code})
	}
	_, err := fmt.Fprintf(w, "directory    %s\nroot         %s\nroot sha256  %s\naccess       %s\nadmin code   %s\nnext         hawser-server run --config %s\n",
		m.Dir, m.RootFile, m.Root, m.Access.ID, code, m.Config)
	return err
}

// runCommand logs to stderr only: where logs go and how long they stay is the service manager's.
func runCommand() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "run", Short: "serve until SIGINT or SIGTERM",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.Load(config)
			if err != nil {
				return err
			}
			s := server.Server{
				Config:  cfg,
				Version: thisVersion().Version,
				Logger:  slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.Level})),
				// A line on stdout when clients can come: what starts the server waits for it instead of guessing.
				Ready: func(addrs []string) {
					fmt.Fprintln(c.OutOrStdout(), "ready", strings.Join(addrs, " "))
				},
			}
			return s.Run(c.Context())
		},
	}
	configFlag(c, &config)
	return c
}

// checkCommand may run beside the server: its exit code says whether somebody has to look.
func checkCommand() *cobra.Command {
	var config string
	var json bool
	c := &cobra.Command{
		Use: "check", Short: "look at config, keys, store and clock; change nothing",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.Load(config)
			if err != nil {
				return err
			}
			return printCheck(c.OutOrStdout(), cfg.File, server.Check(c.Context(), cfg, time.Now()), json)
		},
	}
	configFlag(c, &config)
	cli.JSONFlag(c, &json)
	return c
}

// printCheck prints the rows; a failed one is an error.
func printCheck(w io.Writer, config string, rows []server.Row, asJSON bool) error {
	type row struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
		Text string `json:"text"`
	}
	report := struct {
		OK     bool   `json:"ok"`
		Config string `json:"config"`
		Checks []row  `json:"checks"`
	}{OK: true, Config: config}
	var bad error
	for _, r := range rows {
		report.Checks = append(report.Checks, row(r))
		if !r.OK && bad == nil {
			report.OK, bad = false, fmt.Errorf("check %s: %s: %s", config, r.Name, r.Text)
		}
	}
	if asJSON {
		return errors.Join(answer.JSON(w, report), bad)
	}
	for _, r := range report.Checks {
		verdict := "ok  "
		if !r.OK {
			verdict = "FAIL"
		}
		fmt.Fprintf(w, "%s  %-16s  %s\n", verdict, r.Name, r.Text)
	}
	return bad
}

func configFlag(c *cobra.Command, config *string) {
	c.Flags().StringVar(config, "config", "", "`FILE` that init or enroll has made")
	mustHave(c, "config")
}

// mustHave marks flags as required. It panics for a flag that the command does not have.
func mustHave(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
}
