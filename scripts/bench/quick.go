//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// benchmarks are the packages whose Go benchmarks count allocations.
var benchmarks = []string{"./server/grant", "./server/choose", "./transport/..."}

// carryTest is the guard of make test that carries bytes through the whole system in one process: it tells its counts.
const carryTest = "TestCarryingAllocatesLittle"

// counted are the loads under which calls are counted.
var counted = []flow{{1, false}, {8, false}, {1, true}}

// runQuick counts instead of measuring time: a count is the same on a busy machine.
func runQuick(ctx context.Context, o options, stdout, stderr io.Writer) error {
	o.rounds = 1 // a count is the same each time
	b, end, err := newBench(o, stderr)
	if err != nil {
		return err
	}
	defer end()
	failed := b.countCalls(ctx)
	for _, p := range benchmarks {
		failed = errors.Join(failed, b.countAllocations(ctx, p))
	}
	failed = errors.Join(failed, b.countCarrying(ctx))
	fmt.Fprint(stdout, b.result.tables())
	return errors.Join(failed, b.result.save(o.json))
}

// countCalls carries bytes through Hawser and the models, and counts what each process asks of the kernel for a MiB.
func (b *bench) countCalls(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back := serveBackend(l)
	defer back.close()
	names := []string{"hawser", "floor e2e", "floor proxy"}
	up, end, err := b.bring(ctx, names, back.addr(), nil)
	defer end()
	if err != nil {
		return err
	}
	for _, c := range up {
		for _, f := range counted {
			m, err := c.carry(f, 300*time.Millisecond, time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			b.noteCalls(c.name, f, "all", m, m.all)
			b.noteCalls(c.name, f, "relay", m, m.relay)
			if c.agent != nil {
				b.noteCalls(c.name, f, "agent", m, m.agent)
			}
		}
	}
	b.say("counted calls")
	return nil
}

func (b *bench) noteCalls(system string, f flow, who string, m moved, u usage) {
	mib := float64(m.bytes) / (1 << 20)
	b.result.add(system, fmt.Sprintf("%v %s reads and writes per MiB", f, who), 1, float64(u.calls)/mib)
	b.result.add(system, fmt.Sprintf("%v %s bytes copied per byte", f, who), 1, float64(u.copied)/float64(m.bytes))
	b.result.add(system, fmt.Sprintf("%v %s switches per MiB", f, who), 1, float64(u.switches)/mib)
}

func (r *result) countTable() string {
	var b strings.Builder
	for _, f := range counted {
		of := func(what string) column {
			var metrics []string
			for _, who := range []string{"all", "relay", "agent"} {
				metrics = append(metrics, fmt.Sprintf("%v %s %s", f, who, what))
			}
			return r.medians(what, metrics...)
		}
		b.WriteString(r.table(fmt.Sprintf("Calls of the kernel, %v: all programs / relay / agent", f), f.String()+" all bytes copied per byte",
			of("reads and writes per MiB"), of("bytes copied per byte"), of("switches per MiB")))
	}
	return b.String() + r.table("Go benchmarks", "allocs/op", r.medians("allocations", "allocs/op"), r.medians("bytes", "B/op"),
		r.medians("ns", "ns/op")) + r.table("The whole system in one process", "allocations per MiB carried",
		r.medians("allocations per MiB carried there and back", "allocations per MiB carried"),
		r.medians("bytes, of which 8 MiB are the network's own", "bytes allocated per MiB carried"))
}

// countAllocations runs the benchmarks of a package. How often each is run is fixed, so that what a first time costs
// weighs the same at every run.
func (b *bench) countAllocations(ctx context.Context, packages string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", "200x", packages)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("benchmarks of %s: %w: %s", packages, err, bytes.TrimSpace(out))
	}
	pkg := ""
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) == 2 && words[0] == "pkg:" {
			pkg = strings.TrimPrefix(words[1], "hawser/")
		}
		if name, figures, ok := parseBenchmark(s.Text()); ok {
			for unit, value := range figures {
				b.result.add(pkg+" "+name, unit, 1, value)
			}
		}
	}
	return nil
}

// countCarrying takes the counts of the guard.
func (b *bench) countCarrying(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count", "1", "-v", "-run", "^"+carryTest+"$", "./internal/e2e")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", carryTest, err, bytes.TrimSpace(out))
	}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if name, value, ok := parseAttribute(s.Text()); ok {
			b.result.add("hawser", name, 1, value)
		}
	}
	return nil
}

// parseAttribute reads a line "=== ATTR  TestName count NAME=NUMBER".
func parseAttribute(line string) (name string, value float64, ok bool) {
	attribute, ok := strings.CutPrefix(line, "=== ATTR  "+carryTest+" count ")
	name, number, found := strings.Cut(attribute, "=")
	value, err := strconv.ParseFloat(number, 64)
	return name, value, ok && found && err == nil
}

// parseBenchmark reads a line "BenchmarkName-2  100  12 ns/op  3 B/op  1 allocs/op".
func parseBenchmark(line string) (name string, figures map[string]float64, ok bool) {
	words := strings.Fields(line)
	if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
		return "", nil, false
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(words[0], "Benchmark"), "-")
	figures = map[string]float64{}
	for i := 2; i+1 < len(words); i += 2 {
		v, err := strconv.ParseFloat(words[i], 64)
		if err != nil {
			return "", nil, false
		}
		figures[words[i+1]] = v
	}
	return name, figures, true
}
