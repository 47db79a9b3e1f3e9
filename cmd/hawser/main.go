// Command hawser is the technician's tool: it logs in, manages devices, and opens sessions to them.
//
// It parses flags, draws progress and prints; package manager does the work. Commands, answers and exit codes are those of
// docs/spec/cli.md.
package main

import (
	"cmp"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/cli/netcheckcmd"
	"hawser/internal/version"
	"hawser/manager"
	"hawser/probe/netcheck"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs one command line and returns its exit code. Errors are one line on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	a := &app{terminal: newTerminal(stderr), stderr: stderr}
	return cli.Program{
		Root: a.root(), Code: exitCode, Advice: manager.Advice, Tidy: func() { a.terminal.show("") },
	}.Main(args, stdout, stderr)
}

func exitCode(err error) int { return cmp.Or(netcheckcmd.Code(err), manager.ExitCode(err)) }

// linked is set by the linker (-X main.linked=…) in a release.
var linked = "dev"

// app is what the commands share: the global flags, and the terminal if there is one.
type app struct {
	home     string
	json     bool
	verbose  bool
	terminal *terminal
	notices  notices
	stderr   io.Writer
}

// root makes the commands. Each reads its flags, calls package manager and prints.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hawser",
		Short: "Reach machines behind their gateways",
		Long: `hawser logs a technician in, manages the gateways of a domain, and opens sessions to them.

Exit codes: 0 done, 1 failed, 2 usage or config error, 3 not logged in, 4 refused, 5 unreachable.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", "", "directory of the account (default: hawser in the user's config directory)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what happens to stderr")
	root.AddCommand(a.login(), a.logout(), a.device(), a.user(), a.domain(), a.relay(), a.relays(), a.connect(), a.session(), a.ping(), a.audit(),
		a.netcheck(),
		cli.VersionCommand(version.Of("hawser", linked)))
	return root
}

// netcheck needs no account: it is of most use where a login does not get through.
func (a *app) netcheck() *cobra.Command {
	return netcheckcmd.New(netcheckcmd.Program{Version: version.Of("hawser", linked), PC: true, JSON: &a.json,
		Known: func(*cobra.Command) (netcheck.Known, error) {
			m, err := a.manager()
			if err != nil {
				return netcheck.Known{}, err
			}
			return m.Known()
		}})
}

// manager makes a Manager of the flags. It changes nothing.
func (a *app) manager() (*manager.Manager, error) {
	m := &manager.Manager{Home: a.home, Notice: a.notices.show(a)}
	if m.Home == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, answer.Usage("find home: %w", err)
		}
		m.Home = filepath.Join(dir, "hawser")
	}
	// Either the log or the progress line: both would write over each other.
	if a.verbose {
		m.Log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	} else if a.terminal != nil {
		m.Progress = a.terminal.show
	}
	return m, nil
}

// account calls do with the account in the home directory. It closes the account also after an error: the addresses
// that worked until then help the next try.
func (a *app) account(do func(*manager.Account) error) error {
	return a.accountOf(func(*manager.Manager) {}, do)
}

// accountOf is account after prepare.
func (a *app) accountOf(prepare func(*manager.Manager), do func(*manager.Account) error) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	prepare(m)
	account, err := m.Open()
	if err != nil {
		return err
	}
	defer account.Close()
	return do(account)
}

// print writes v as JSON with --json, else as text. The progress line goes first, or the first line of the answer would
// stand behind it.
func (a *app) print(cmd *cobra.Command, v any, text func() error) error {
	a.terminal.show("")
	if a.json {
		return answer.JSON(cmd.OutOrStdout(), v)
	}
	return text()
}
