// Command hawser-server is the Server Infrastructure: Access Server and Relay Server in one program.
//
// It parses flags, handles signals and prints; what it does is package server.
// Commands, answers and exit codes are those of docs/spec/cli.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"hawser/server"
)

// The exit codes of docs/spec/cli.md that a server has.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // or config error
	exitRefused     = 4
	exitUnreachable = 5
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs the program until it is done or told to stop by SIGINT or SIGTERM,
// and returns its exit code. Errors are one line on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	text := oneLine(err.Error())
	if advice := server.Advice(err); advice != "" {
		text += ": " + advice
	}
	fmt.Fprintln(stderr, "hawser-server:", text)
	return exitCode(err)
}

func exitCode(err error) int {
	_, config := errors.AsType[*server.ConfigError](err)
	_, acted := errors.AsType[failure](err)
	switch {
	case config, !acted:
		return exitUsage
	case server.Refused(err):
		return exitRefused
	case server.Unreachable(err):
		return exitUnreachable
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "hawser-server", Short: "Access Server and Relay Server of a Hawser infrastructure",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.New("no command is given: see hawser-server --help")
		},
	}
	root.AddCommand(initCommand(), enrollCommand(), runCommand(), checkCommand(), floorResetCommand(), versionCommand())
	return root
}

// failure marks what went wrong while acting; every other error is of usage.
type failure struct{ error }

// Unwrap lets callers see the cause.
func (f failure) Unwrap() error { return f.error }

// act makes a command's function of one that takes no arguments.
func act(f func(c *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		if err := f(c); err != nil {
			return failure{err}
		}
		return nil
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
