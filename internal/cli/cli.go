// Package cli is the frame that the three programs share: Main runs one command line and answers as docs/spec/cli.md says.
// What the commands do is for the packages behind them.
package cli

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

	"hawser/internal/answer"
	"hawser/internal/version"
)

// Program is one of the three programs. Code and Advice may know more about an error than package answer does; where they
// return 0 or nothing, or are nil, that decides.
type Program struct {
	Root   *cobra.Command
	Code   func(error) int
	Advice func(error) string
	Tidy   func() // called before an error is printed; nil: nothing stands in its way
}

// Main runs the program until it is done, or told to stop by SIGINT or SIGTERM, and returns its exit code. An error is
// one line on stderr. A second signal ends the program at once. It takes the streams and returns a number, so that
// tests run the very program that users run.
func (p Program) Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// With the first signal the handler goes away: the second one has its default effect, for a program that does not
	// end.
	context.AfterFunc(ctx, stop)
	acted := false
	p.Root.SilenceErrors, p.Root.SilenceUsage, p.Root.DisableSuggestions = true, true, true
	p.Root.SetArgs(args)
	p.Root.SetOut(stdout)
	p.Root.SetErr(stderr)
	p.Root.InitDefaultCompletionCmd() // it takes stdout as it is now
	frame(p.Root, &acted)
	err := p.Root.ExecuteContext(ctx)
	if p.Tidy != nil {
		p.Tidy()
	}
	if err == nil {
		return answer.ExitDone
	}
	if !acted { // cobra did not understand the command line
		err = &answer.UsageError{Err: err}
	}
	fmt.Fprintf(stderr, "%s: %s\n", p.Root.Name(), answer.Line(err, p.advice(err)))
	return p.code(err)
}

// code asks the program first, which knows its own errors; the rest is alike in all three.
func (p Program) code(err error) int {
	if p.Code != nil {
		if code := p.Code(err); code != 0 {
			return code
		}
	}
	return answer.Code(err)
}

func (p Program) advice(err error) string {
	if p.Advice != nil {
		if advice := p.Advice(err); advice != "" {
			return advice
		}
	}
	return answer.Advice(err)
}

// frame notes when a command begins to act, and makes a command that only has subcommands refuse to go without one: left
// alone, cobra prints its help for a wrong word and calls that done.
func frame(c *cobra.Command, acted *bool) {
	for _, sub := range c.Commands() {
		frame(sub, acted)
	}
	if !c.Runnable() {
		c.Args, c.RunE = cobra.NoArgs, needsWord
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*acted = true
			return run(c, args)
		}
	}
}

func needsWord(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if c.HasParent() {
		return answer.Usage("%s: want one of %s", c.Name(), strings.Join(names, ", "))
	}
	return &answer.UsageError{Err: errors.New("no command is given: see " + c.Name() + " --help")}
}

// JSONFlag gives a command the flag --json.
func JSONFlag(c *cobra.Command, asJSON *bool) { c.Flags().BoolVar(asJSON, "json", false, "print JSON") }

// Print writes v as JSON if that was asked for, else what text writes.
func Print(c *cobra.Command, asJSON bool, v any, text func(io.Writer) error) error {
	if asJSON {
		return answer.JSON(c.OutOrStdout(), v)
	}
	return text(c.OutOrStdout())
}

// VersionCommand says what the program is. It needs no configuration, so a support call can begin with it.
func VersionCommand(v version.Info) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use: "version", Short: "say what this program is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return Print(c, asJSON, v, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, v)
				return err
			})
		},
	}
	JSONFlag(c, &asJSON)
	return c
}
