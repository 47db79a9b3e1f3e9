// Command demo shows a newcomer that the whole path works: it runs the three real programs on this machine, as a user
// would, with three relays, reads a simulated PLC through them, and kills the relay in use.
//
// It needs no root and no network but loopback, and leaves nothing behind: not after a failure, and not after ^C. With
// KEEP=1 in the environment it stays, and says how to use what is running. It never imports the packages of the
// programs, because it has to notice what a user would notice. The thief of its last step is no user.
//
// usage: demo [-bin DIR] [-ports 8080,8443,5935]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	// The children are told to end when the thread that started them does (see attributes), so it must stay.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 everything was shown, 1 a step failed or was interrupted, 2 usage.
func run(args []string, stdout, stderr io.Writer) int {
	o := options{ports: portList{8080, 8443, 5935}, keep: os.Getenv("KEEP") == "1"}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.bin, "bin", "bin", "`directory` of the three programs")
	flags.Var(&o.ports, "ports", "`ports` of the servers on 127.0.0.1 and 127.0.0.3 to 5, with commas between")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "demo: %q: want no arguments\n", flags.Arg(0))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := &demo{options: o, out: newScreen(stdout), relays: newRelays()}
	if err := d.run(ctx); err != nil {
		return 1 // it has been printed where it belongs
	}
	return 0
}
