// Command hawser is the technician's tool: it logs in, manages devices, and opens sessions to them.
//
// This package holds flags, signals, the terminal and the exit code; the work is the manager package's. Its output and
// exit codes are laid down in docs/spec/cli.md.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"hawser/manager"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second ^C ends the program at once
	os.Exit(run(ctx, os.Args[1:]))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string) int {
	a := &app{terminal: newTerminal(os.Stderr)}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.terminal.show("")
	if err == nil {
		return 0
	}
	if !a.started { // cobra refused the command line
		err = &manager.UsageError{Err: err}
	}
	fmt.Fprintln(os.Stderr, "hawser: "+manager.Explain(err))
	return manager.ExitCode(err)
}

// app is what the commands share: the global flags, and the terminal if there is one.
type app struct {
	home     string
	json     bool
	verbose  bool
	started  bool // the command line was understood
	terminal *terminal
}

// root puts the commands together. Each only reads its flags and calls the manager package; errors come back to run.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hawser",
		Short: "Reach machines behind their gateways",
		Long: `hawser logs a technician in, manages the gateways of a domain, and opens sessions to them.

Exit codes: 0 done, 1 failed, 2 usage or config error, 3 not logged in, 4 refused, 5 unreachable.`,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true,
		Args:               cobra.NoArgs,
		PersistentPreRun:   func(*cobra.Command, []string) { a.started = true },
		RunE:               func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", "", "directory of the account (default: hawser in the user's config directory)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to stderr")
	root.AddCommand(a.login(), a.device(), a.relay(), a.relays(), a.connect(), a.ping(), a.audit(), a.version())
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if !cmd.Runnable() { // left alone, cobra prints its help for a wrong word and calls that done
			cmd.Args, cmd.RunE = cobra.NoArgs, needsWord
		}
	}
	return root
}

// needsWord is the run of a command that only has subcommands.
func needsWord(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return &manager.UsageError{Err: fmt.Errorf("%s: want one of %s", cmd.Name(), strings.Join(names, ", "))}
}

// manager is made from the flags; nothing has been touched yet.
func (a *app) manager() (*manager.Manager, error) {
	m := &manager.Manager{Home: a.home}
	if m.Home == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, &manager.UsageError{Err: fmt.Errorf("find home: %w", err)}
		}
		m.Home = filepath.Join(dir, "hawser")
	}
	if a.verbose {
		m.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	} else if a.terminal != nil {
		m.Progress = a.terminal.show
	}
	return m, nil
}

// account runs do with the account in the home directory.
func (a *app) account(do func(*manager.Account) error) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	account, err := m.Open()
	if err != nil {
		return err
	}
	defer account.Close()
	return do(account)
}

// print writes v as JSON if that was asked for, else as text.
func (a *app) print(cmd *cobra.Command, v any, text func() error) error {
	a.terminal.show("")
	if a.json {
		return manager.WriteJSON(cmd.OutOrStdout(), v)
	}
	return text()
}
