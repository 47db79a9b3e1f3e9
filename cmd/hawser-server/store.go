package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/server"
)

// done is what a command of the store answers. The next command is part of the answer: after a restore the server does
// not run, and nothing else would say so.
type done struct {
	OK   bool   `json:"ok"`
	File string `json:"file,omitempty"`
	Kept string `json:"kept,omitempty"` // where the store from before is
	Next string `json:"next,omitempty"` // what to do now
}

func (d done) print(c *cobra.Command, asJSON bool, lines ...string) error {
	d.OK = true
	return cli.Print(c, asJSON, d, func(w io.Writer) error {
		if d.Next != "" {
			lines = append(lines, "next         "+d.Next)
		}
		_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
		return err
	})
}

// backupCommand writes a file, never stdout: half a backup in a pipe looks like a whole one.
func backupCommand() *cobra.Command {
	var config, passphraseFile string
	var asJSON bool
	c := &cobra.Command{
		Use: "backup FILE", Short: "write the store into a file, while the server goes on",
		Long: "backup writes all that the Access Server has stored, as it is at one moment, into FILE, which only its owner can read.\n" +
			"With --passphrase-file it is encrypted (age). The keys in the directory are no part of it: copy that once.",
		Example: "  hawser-server backup --config /srv/hawser/server.yaml /backup/hawser-$(date +%F)",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, passphrase, err := loadBoth(config, passphraseFile)
			if err != nil {
				return err
			}
			if err := server.Backup(c.Context(), cfg, args[0], passphrase); err != nil {
				return err
			}
			return done{File: args[0]}.print(c, asJSON, "backup       "+args[0])
		},
	}
	configFlag(c, &config)
	passphraseFlag(c, &passphraseFile)
	cli.JSONFlag(c, &asJSON)
	return c
}

// restoreCommand keeps the store that it replaces, and says where: the backup may be the wrong one.
func restoreCommand() *cobra.Command {
	var config, passphraseFile string
	var replace, asJSON bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "put a backup in the place of the store; the server must not run",
		Long: "restore checks a backup and makes a new store of it. What was enrolled after the backup has to enroll again; what was\n" +
			"revoked after it has to be revoked again.",
		Example: "  hawser-server restore --config /srv/hawser/server.yaml --replace /backup/hawser-2026-11-28",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, passphrase, err := loadBoth(config, passphraseFile)
			if err != nil {
				return err
			}
			kept, err := server.Restore(c.Context(), cfg, args[0], passphrase, replace, time.Now())
			if err != nil {
				return err
			}
			lines := []string{"restored     " + args[0]}
			if kept != "" {
				lines = append(lines, "kept         "+kept)
			}
			return done{File: args[0], Kept: kept, Next: "hawser-server run --config " + config}.print(c, asJSON, lines...)
		},
	}
	configFlag(c, &config)
	passphraseFlag(c, &passphraseFile)
	c.Flags().BoolVar(&replace, "replace", false, "take the present store in the server's directory out of the way, and keep it")
	cli.JSONFlag(c, &asJSON)
	return c
}

// storeCommand groups what is rare and cannot be taken back.
func storeCommand() *cobra.Command {
	c := &cobra.Command{Use: "store", Short: "look after the store of an Access Server"}
	c.AddCommand(acceptCommand(), moveCommand())
	return c
}

// acceptCommand is the one that can make a revocation unheard-of, so it asks.
func acceptCommand() *cobra.Command {
	var config string
	var yes, asJSON bool
	c := &cobra.Command{
		Use: "accept", Short: "take the store for right as it is, after check has said what is lost",
		Long: "A store that has lost records, or went back in time, grants nothing: what is missing may be a revocation. accept says that\n" +
			"you know what was lost and go on without it. Look at hawser-server check first, and at the last backup.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.Load(config)
			if err != nil {
				return err
			}
			if !yes {
				if err := confirm(c, "Take the store for right as it is? What is missing stays missing."); err != nil {
					return err
				}
			}
			if err := server.AcceptStore(c.Context(), cfg); err != nil {
				return err
			}
			return done{}.print(c, asJSON, "accepted     the store is taken for right as it is")
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cli.JSONFlag(c, &asJSON)
	return c
}

// moveCommand works while the server runs, which moves its own store: the copy has all that was acknowledged.
func moveCommand() *cobra.Command {
	var config string
	var asJSON bool
	c := &cobra.Command{
		Use: "move URL|local", Short: "move the store to a PostgreSQL database, or back into the server's directory",
		Long: "move copies the store into an empty PostgreSQL database (postgres://USER:PASSWORD@HOST:PORT/NAME), or with the word local\n" +
			"into the server's own directory, and writes that into the configuration. From then on a running server changes nothing:\n" +
			"start it anew. Gateways and technicians come back by themselves.",
		Example: "  hawser-server store move --config /srv/hawser/server.yaml postgres://hawser@db.example.com/hawser",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := server.Load(config)
			if err != nil {
				return err
			}
			// The configuration has no URL for a store in the directory; on a command line nothing would be too easy to
			// say.
			url := args[0]
			if url == "local" {
				url = ""
			}
			if err := server.MoveStore(c.Context(), cfg, url); err != nil {
				return err
			}
			return done{Next: "start the server anew: systemctl restart hawser-server"}.print(c, asJSON, "moved        "+config+" names the new store")
		},
	}
	configFlag(c, &config)
	cli.JSONFlag(c, &asJSON)
	return c
}

func passphraseFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "passphrase-file", "", "`FILE` whose first line is the passphrase of the backup; - is stdin")
}

// loadBoth takes the passphrase from a file and not from a flag: arguments can be read by every user of the machine.
func loadBoth(config, passphraseFile string) (cfg server.Config, passphrase string, err error) {
	if cfg, err = server.Load(config); err != nil || passphraseFile == "" {
		return cfg, "", err
	}
	f := os.Stdin
	if passphraseFile != "-" {
		if f, err = os.Open(passphraseFile); err != nil {
			return cfg, "", fmt.Errorf("read passphrase: %w", err)
		}
		defer f.Close()
	}
	// Bounded, since stdin may be anything; a last line without its end is a line too.
	line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
	if passphrase = strings.TrimRight(line, "\r\n"); passphrase == "" {
		return cfg, "", answer.Usage("read passphrase: %s has none in its first line", passphraseFile)
	}
	return cfg, passphrase, nil
}

// confirm asks on a terminal; elsewhere nothing is done without --yes. A script that forgot --yes must fail and not
// hang.
func confirm(c *cobra.Command, question string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return answer.Usage("%s: there is nobody to ask here: say --yes", c.CommandPath())
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(line), "y") {
		return answer.Usage("%s: not done", c.CommandPath())
	}
	return nil
}
