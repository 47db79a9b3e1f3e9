//go:build linux

// Command bench measures Hawser beside other tunnels, on this machine, in one run: what a byte costs, how long a round
// trip takes, what a session does on a long or a slow line, and what an idle gateway or session holds in memory.
//
// It runs the three programs as a user would and never imports the packages of their data path, so that it measures
// whatever form the session has. Peers take part when their programs are on the PATH or in -peers; who is absent is
// named in the table. All systems of a table are up at once and take turns within each round, and a ratio is the median
// of the rounds' ratios: what else the machine does at a time meets all of them. docs/performance.md says what each
// figure means.
//
// usage: bench [run] [-bin DIR] [-peers DIR,…] [-parts near,line,…] [-rounds 5] [-json FILE] [-write FILE]
//
//	bench quick [-bin DIR] [-json FILE]    counts instead of times, within 3 minutes
//	bench write -json FILE -write FILE     puts the tables of an earlier run into a document
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	// The children end with the thread that started them (see attributes), so it must stay.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	bin, json, write string
	peers            []string
	parts, only      []string
	rounds           int
	time             time.Duration // of one sample of throughput
	devices          []int
	sessions         int
	keep             bool
}

// part is one group of measurements with a table of its own.
type part struct {
	name    string
	measure func(context.Context, *bench) error
}

// allParts are in the order in which they are measured: what fills memory comes last.
var allParts = []part{
	{"near", measureNear}, {"line", measureLine}, {"keys", measureKeys}, {"open", measureOpening},
	{"arm", measureARM}, {"sessions", measureSessions}, {"idle", measureIdle},
}

// run returns the exit code: 0 measured, 1 a part failed, 2 usage.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	verb := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	if role, ok := roles[verb]; ok {
		return fail(stderr, role(args))
	}
	o, err := parse(verb, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	verbs := map[string]func(context.Context, options, io.Writer, io.Writer) error{
		"run": runAll, "quick": runQuick, "write": rewrite,
	}
	do, ok := verbs[verb]
	if !ok {
		fmt.Fprintf(stderr, "bench: unknown command %q\n", verb)
		return 2
	}
	return fail(stderr, do(ctx, o, stdout, stderr))
}

func fail(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// roles are what this program is when it starts itself anew beside the programs that it measures.
var roles = map[string]func([]string) error{"floor": runFloor, "enter": enterNetwork}

func parse(verb string, args []string, stderr io.Writer) (options, error) {
	var o options
	var peers, parts, only, devices string
	names := make([]string, len(allParts))
	for i, p := range allParts {
		names[i] = p.name
	}
	f := flag.NewFlagSet("bench "+verb, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.bin, "bin", "bin", "`directory` of the three programs")
	f.StringVar(&peers, "peers", "", "`directories` with programs of peers, before those of the PATH")
	f.StringVar(&parts, "parts", strings.Join(names, ","), "what to measure")
	f.StringVar(&only, "only", "", "measure these `systems` only")
	f.IntVar(&o.rounds, "rounds", 5, "rounds")
	f.DurationVar(&o.time, "time", 2*time.Second, "of one sample of throughput")
	f.StringVar(&devices, "devices", "1000,10000", "how many idle devices")
	f.IntVar(&o.sessions, "sessions", 1000, "how many idle sessions at one relay")
	f.StringVar(&o.json, "json", "bin/bench.json", "`file` for the samples")
	f.StringVar(&o.write, "write", "", "put the tables into this `file`, between its two marks")
	f.BoolVar(&o.keep, "keep", false, "keep the logs of the programs, and say where")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.peers, o.parts, o.only = list(peers), list(parts), list(only)
	for _, p := range o.parts {
		if !slices.Contains(names, p) {
			fmt.Fprintf(stderr, "bench: no part %q; there are %s\n", p, strings.Join(names, ", "))
			return o, errors.ErrUnsupported
		}
	}
	for _, d := range list(devices) {
		var n int
		if _, err := fmt.Sscan(d, &n); err != nil || n < 1 {
			fmt.Fprintf(stderr, "bench: %q is no number of devices\n", d)
			return o, errors.ErrUnsupported
		}
		o.devices = append(o.devices, n)
	}
	return o, nil
}

func list(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(e string) bool { return e == "" })
}

// bench is one run: what it was asked, where it works, and what it has found.
type bench struct {
	options
	dir    string // scratch and logs
	path   []string
	result *result
	say    func(format string, a ...any)
	stages int
}

// newBench makes a directory to work in. The end removes it.
func newBench(o options, stderr io.Writer) (*bench, func(), error) {
	dir, err := os.MkdirTemp("", "hawser-bench-")
	if err != nil {
		return nil, nil, err
	}
	begin := time.Now()
	b := &bench{options: o, dir: dir, say: func(format string, a ...any) {
		fmt.Fprintf(stderr, "%5.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, a...))
	}}
	for _, d := range slices.Concat([]string{o.bin}, o.peers, filepath.SplitList(os.Getenv("PATH")), unpacked()) {
		if abs, err := filepath.Abs(d); err == nil {
			b.path = append(b.path, abs)
		}
	}
	b.result = newResult(b)
	return b, func() {
		if o.keep {
			b.say("logs are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	}, makeCertificates(filepath.Join(dir, "certs"))
}

// unpacked are the places where root's PATH leads, and where scripts/setup unpacks servers that must not be installed.
func unpacked() []string {
	dirs := []string{"/usr/sbin", "/sbin"}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "hawser/lab/usr/sbin"))
	}
	return dirs
}

// runAll measures the parts. One that fails does not stop the others: what has been measured is worth keeping.
func runAll(ctx context.Context, o options, stdout, stderr io.Writer) error {
	b, end, err := newBench(o, stderr)
	if err != nil {
		return err
	}
	defer end()
	var failed []error
	for _, p := range allParts {
		if !slices.Contains(o.parts, p.name) || ctx.Err() != nil {
			continue
		}
		if err := p.measure(ctx, b); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
			b.result.missing("part "+p.name, err.Error())
			b.say("part %s: %v", p.name, err)
		}
		if err := b.result.save(o.json); err != nil {
			return err
		}
	}
	fmt.Fprint(stdout, b.result.tables())
	if o.write != "" && ctx.Err() == nil {
		failed = append(failed, putInto(o.write, b.result.tables()))
	}
	return errors.Join(append(failed, ctx.Err())...)
}

// rewrite puts the tables of an earlier run into a document.
func rewrite(_ context.Context, o options, stdout, _ io.Writer) error {
	r, err := load(o.json)
	if err != nil {
		return err
	}
	if o.write == "" {
		_, err = fmt.Fprint(stdout, r.tables())
		return err
	}
	return putInto(o.write, r.tables())
}
