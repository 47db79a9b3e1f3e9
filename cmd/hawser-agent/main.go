// Command hawser-agent is the program of a gateway.
//
// It parses flags, reads the environment, handles signals and prints; what it
// does is package agent. Commands, answers and exit codes are those of
// docs/spec/cli.md.
package main

import (
	"cmp"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hawser/agent"
	"hawser/board/service"
	"hawser/internal/cli"
	"hawser/internal/cli/netcheckcmd"
	"hawser/internal/version"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, service.Errors(os.Stderr))) }

// Main runs the program until it is done or told to stop by SIGINT or SIGTERM,
// and returns its exit code. Errors are one line on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	return cli.Program{Root: newRoot(), Code: exitCode, Advice: agent.Advice}.Main(args, stdout, stderr)
}

// exitCode asks netcheck first: its finding "no way" is no error of the agent, and has exit code 5 all the same.
func exitCode(err error) int { return cmp.Or(netcheckcmd.Code(err), agent.ExitCode(err)) }

// linked is set by the linker (-X main.linked=…) in a release. A build without it says dev: a number that nobody has
// released would send a reader to the wrong source.
var linked = "dev"

func thisVersion() version.Info { return version.Of("hawser-agent", linked) }

func newRoot() *cobra.Command {
	var p places
	root := &cobra.Command{
		Use: "hawser-agent", Short: "gateway of Hawser: makes the machines behind this gateway reachable, by outgoing connections only",
	}
	p.flags(root)
	root.AddCommand(enrollCommand(&p), runCommand(&p), statusCommand(&p), netcheckcmd.New(netcheckcmd.Program{Version: thisVersion(), Known: p.known}),
		identityCommand(&p),
		serviceCommand(&p), configCommand(&p), cli.VersionCommand(thisVersion()))
	return root
}
