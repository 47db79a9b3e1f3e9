// Command hawser-server is the Server Infrastructure: Access Server and Relay Server in one program.
//
// It parses flags, handles signals and prints; what it does is package server.
// Commands, answers and exit codes are those of docs/spec/cli.md.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"hawser/internal/cli"
	"hawser/internal/version"
	"hawser/server"
)

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs the program until it is done or told to stop by SIGINT or SIGTERM,
// and returns its exit code. Errors are one line on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	return cli.Program{Root: newRoot(), Code: server.ExitCode, Advice: server.Advice}.Main(args, stdout, stderr)
}

// linked is set by the linker (-X main.linked=…) in a release.
var linked = "dev"

func thisVersion() version.Info { return version.Of("hawser-server", linked) }

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "hawser-server", Short: "Access Server and Relay Server of a Hawser infrastructure"}
	root.AddCommand(initCommand(), enrollCommand(), runCommand(), checkCommand(), backupCommand(), restoreCommand(), storeCommand(), domainCommand(), floorResetCommand(), rotateCommand(), cli.VersionCommand(thisVersion()))
	return root
}
