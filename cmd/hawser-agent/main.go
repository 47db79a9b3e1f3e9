// Command hawser-agent is the Runtime's program.
//
// It parses flags, reads the environment, handles signals and prints; what it
// does is package agent. Commands, answers and exit codes are those of
// docs/spec/cli.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board/service"
)

// The exit codes of docs/spec/cli.md.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2 // or config error
	exitNotEnrolled = 3
	exitRefused     = 4
	exitUnreachable = 5
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, service.Errors(os.Stderr))) }

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
	text := strings.Join(strings.Fields(err.Error()), " ")
	if advice := agent.Advice(err); advice != "" {
		text += ": " + advice
	}
	fmt.Fprintln(stderr, "hawser-agent:", text)
	return exitCode(err)
}

func exitCode(err error) int {
	_, acted := errors.AsType[failure](err)
	switch {
	case !acted:
		return exitUsage
	case errors.Is(err, agent.ErrNotEnrolled):
		return exitNotEnrolled
	case agent.Refused(err):
		return exitRefused
	case agent.Unreachable(err), errors.As(err, new(noWay)):
		return exitUnreachable
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	var p places
	root := &cobra.Command{
		Use: "hawser-agent", Short: "Runtime of Hawser: makes the machines behind this gateway reachable, by dialling out alone",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command is given: see hawser-agent --help")
		},
	}
	p.flags(root)
	root.AddCommand(enrollCommand(&p), runCommand(&p), statusCommand(&p), netcheckCommand(&p), identityCommand(&p),
		serviceCommand(&p), configCommand(&p), versionCommand())
	return root
}

// failure marks what went wrong while acting; every other error is of usage or
// of the configuration.
type failure struct{ error }

// Unwrap lets callers see the cause.
func (f failure) Unwrap() error { return f.error }

// act makes a command's function of one that takes no arguments.
func act(f func(c *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		err := f(c)
		if _, usage := errors.AsType[usageError](err); err == nil || usage {
			return err
		}
		return failure{err}
	}
}

// usageError is an error of the command line or the configuration.
type usageError struct{ error }

// Unwrap lets callers see the cause.
func (e usageError) Unwrap() error { return e.error }

const asJSON = "print JSON"

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
