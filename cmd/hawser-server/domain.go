package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/server"
)

// domainCommand groups what only the operator can do for a domain. Its key is its founder's, who brings it with his login.
func domainCommand() *cobra.Command {
	c := &cobra.Command{Use: "domain", Short: "make domains, and codes for their founders; give a domain another key"}
	c.AddCommand(
		founderCommand("add NAME", "make a domain and a code for its founder", true,
			"add makes a domain. Its founder logs in with the code that it prints: his Manager makes the key of the domain, which\n"+
				"nobody else has. The code is shown once and lives 72 h."),
		founderCommand("code NAME", "make another code for the founder of a domain", false,
			"code makes another code for the founder of a domain: he has lost his PC, or his first code. With it he logs in who has\n"+
				"the key of the domain, and nobody else. The code is shown once and lives 72 h."),
		domainResetCommand())
	return c
}

func founderCommand(use, short string, add bool, long string) *cobra.Command {
	var config, user string
	var asJSON bool
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := server.Load(config)
			if err != nil {
				return err
			}
			code, expires, err := server.FounderCode(c.Context(), cfg, args[0], user, add)
			if err != nil {
				return err
			}
			made := struct {
				Domain  string    `json:"domain"`
				User    string    `json:"user"`
				Code    string    `json:"code"`
				Expires time.Time `json:"expires"`
			}{args[0], user, code, expires}
			return cli.Print(c, asJSON, made, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "domain       %s\nuser         %s\ncode         %s\nvalid until  %s\n", made.Domain, user, code, expires.Format(time.RFC3339))
				return err
			})
		},
	}
	configFlag(c, &config)
	c.Flags().StringVar(&user, "user", server.FirstUser, "`USER` who logs in with the code")
	cli.JSONFlag(c, &asJSON)
	return c
}
