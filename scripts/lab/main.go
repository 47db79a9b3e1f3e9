//go:build linux

// Command lab builds a small internet on this machine, runs a command in it and takes everything down again: servers,
// names and time on a WAN, a customer's site with its firewall, the gateway and its PLC, a technician. docs/lab.md has
// the picture.
//
//	lab [-relays 3] [-plcs 1] [-- COMMAND ARG…]     without COMMAND: a shell
//
// Within the lab the same program, on PATH as lab, changes it:
//
//	lab hosts                                       names and addresses
//	lab exec HOST COMMAND ARG…                      run something on a host
//	lab link HOST[-NETWORK] up|down                 plug a host's cable in, pull it
//	lab firewall CLAUSE…                            replace the rules of the site's firewall
//
// The lab needs no root and cannot harm the host: everything lives in fresh user, network, mount and process namespaces.
// Nothing has to be cleaned up for the same reason: when the lab's first process ends, the kernel ends all others, and
// the networks and files, which only existed for them, are gone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
)

const (
	maxRelays = 7 // that the reference names know
	maxPLCs   = 9
)

// options are what the command line says.
type options struct {
	relays, plcs int
	command      []string // empty: a shell
}

// errUsage stands for a mistake that has been explained already.
var errUsage = errors.New("usage")

func main() {
	// The child is told to end when the thread that started it does (see enter), so it must stay.
	runtime.LockOSThread()
	code, err := run(os.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		code = 0
	case errors.Is(err, errUsage):
		code = 2
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		code = 1
	}
	os.Exit(code)
}

// run returns the exit code: that of COMMAND if there was one.
func run(args []string) (int, error) {
	if len(args) > 1 {
		if verb, ok := verbs()[args[1]]; ok {
			return 0, verb(args[2:])
		}
	}
	o, err := parseOptions(args[1:], os.Stderr)
	if err != nil {
		return 0, err
	}
	if args[0] == insideName {
		return inside(o)
	}
	return enter(args[1:])
}

// parseOptions reads the flags before COMMAND, whose own flags are its own. A mistake that the flag package has explained
// on stderr comes back as errUsage.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.relays, "relays", 3, "`number` of Relay Servers, 1 to 7")
	flags.IntVar(&o.plcs, "plcs", 1, "`number` of PLCs behind the gateway, 1 to 9")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: lab [-relays N] [-plcs N] [-- COMMAND ARG…]")
		flags.PrintDefaults()
		fmt.Fprint(stderr, "\nwithin the lab:\n"+verbHelp)
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, err
	} else if err != nil {
		return o, errUsage
	}
	if o.relays < 1 || o.relays > maxRelays || o.plcs < 1 || o.plcs > maxPLCs {
		return o, fmt.Errorf("%d relays and %d PLCs: want 1 to %d and 1 to %d", o.relays, o.plcs, maxRelays, maxPLCs)
	}
	o.command = flags.Args()
	return o, nil
}
