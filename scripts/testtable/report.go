package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is one line of `go test -json` (cmd/test2json), or one line of ours: Action "check" with the last three fields, or
// "step" with Test, Elapsed and CPU.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Key     string
	Value   string
	Elapsed float64 // seconds
	CPU     float64 // seconds

	ID     string
	Passed bool
	Note   string
}

// testKey names one test in one package; an empty test is the package itself.
type testKey struct{ pkg, test string }

// test is a test that has begun and not ended. Output is kept until then, because only a failure prints it.
type test struct {
	output []string
	ids    []string
	cases  int
	counts []string
}

// report follows one run. It is used by one goroutine.
type report struct {
	out            io.Writer
	table          table
	times          times
	open           map[testKey]*test
	perPackage     map[string]*tally
	packages       int
	passed, failed int
	failures       []string // names, in the order of their end
}

// tally counts the tests of one package.
type tally struct{ tests, failed int }

func newReport(out io.Writer, ids []string) *report {
	return &report{
		out:        out,
		table:      table{ids: ids, rows: map[string]row{}, counts: map[string]int64{}},
		open:       map[testKey]*test{},
		perPackage: map[string]*tally{},
	}
}

// read follows the stream to its end. A line that is not an event belongs to a tool and is passed on as it is.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *report) line(line []byte) {
	var e event
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil || e.Action == "" {
		r.out.Write(line)
		return
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "start":
		r.perPackage[e.Package] = &tally{}
	case "check":
		r.check(e)
	case "step":
		r.times.steps = append(r.times.steps, timed{e.Test, seconds(e.Elapsed), seconds(e.CPU)})
	case "output":
		r.output(e)
	case "attr":
		r.attr(e)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
	}
}

func (r *report) test(e event) *test {
	key := testKey{e.Package, e.Test}
	if r.open[key] == nil {
		r.open[key] = &test{cases: 1}
	}
	return r.open[key]
}

// output keeps a line. The "=== RUN" family says nothing that a reader of a failure needs.
func (r *report) output(e event) {
	if strings.HasPrefix(e.Output, "=== ") {
		return
	}
	t := r.test(e)
	t.output = append(t.output, e.Output)
}

// attr takes a number of cases that cannot be read for none: the id then fails, instead of standing for one.
func (r *report) attr(e event) {
	t := r.test(e)
	switch e.Key {
	case "id":
		t.ids = append(t.ids, e.Value)
	case "cases":
		n, err := strconv.Atoi(e.Value)
		if err != nil || n < 0 {
			r.fail(fmt.Sprintf("%s %s: attribute cases is %q, want a number", e.Package, e.Test, e.Value))
			n = 0
		}
		t.cases = n
	case "count":
		t.counts = append(t.counts, e.Value)
	}
}

// endTest books a test. Skipping is failing: make test runs everything it claims, or says that it could not.
func (r *report) endTest(e event) {
	t := r.test(e)
	delete(r.open, testKey{e.Package, e.Test})
	ok := e.Action == "pass"
	for _, id := range t.ids {
		r.table.add(id, t.cases, ok)
	}
	r.bookCounts(e, t)
	if !strings.Contains(e.Test, "/") {
		r.times.tests = append(r.times.tests, timed{name: e.Package + " " + e.Test, wall: seconds(e.Elapsed)})
	}
	n := r.tally(e.Package)
	n.tests++
	if ok {
		r.passed++
		return
	}
	n.failed++
	fmt.Fprintf(r.out, "---- %s: %s %s\n", e.Action, e.Package, e.Test)
	r.dump(t)
	r.fail(fmt.Sprintf("%s %s (%s)", e.Package, e.Test, e.Action))
}

func (r *report) bookCounts(e event, t *test) {
	if len(t.counts) > 0 && len(t.ids) == 0 {
		r.fail(fmt.Sprintf("%s %s: attribute count without an id", e.Package, e.Test))
	}
	for _, id := range t.ids {
		for _, text := range t.counts {
			if err := r.table.count(id, text); err != nil {
				r.fail(fmt.Sprintf("%s %s: %v", e.Package, e.Test, err))
			}
		}
	}
}

// endPackage prints the line of a package; when it failed, first whatever its unfinished tests had said: a process that
// died in the middle ends none of them. Their ids count as failed.
func (r *report) endPackage(e event) {
	n := r.tally(e.Package)
	delete(r.perPackage, e.Package)
	left := r.leftOpen(e.Package)
	if e.Action == "fail" {
		for _, key := range left {
			if key.test != "" {
				fmt.Fprintf(r.out, "---- did not end: %s %s\n", key.pkg, key.test)
			}
			r.dump(r.open[key])
			for _, id := range r.open[key].ids {
				r.table.add(id, 0, false)
			}
		}
		if n.failed == 0 {
			r.fail(e.Package + " (package)")
		}
	}
	for _, key := range left {
		delete(r.open, key)
	}
	r.packages++
	took := seconds(e.Elapsed).Round(10 * time.Millisecond)
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %-44s %8s  %d tests\n", e.Package, took, n.tests)
	case "fail":
		fmt.Fprintf(r.out, "FAIL  %-44s %8s  %d of %d tests\n", e.Package, took, n.failed, n.tests)
	case "skip":
		fmt.Fprintf(r.out, "-     %-44s %8s  no test files\n", e.Package, "")
	}
}

// leftOpen gives the keys of a package that have begun and not ended, the package's own first.
func (r *report) leftOpen(pkg string) []testKey {
	var keys []testKey
	for key := range r.open {
		if key.pkg == pkg {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b testKey) int { return strings.Compare(a.test, b.test) })
	return keys
}

func (r *report) check(e event) {
	word := "ok  "
	if e.Passed {
		r.passed++
	} else {
		word = "FAIL"
		r.fail(e.Test)
	}
	if e.ID != "" {
		r.table.add(e.ID, 1, e.Passed)
	}
	fmt.Fprintf(r.out, "%s  %-44s %s\n", word, e.Test, e.Note)
}

func (r *report) tally(pkg string) *tally {
	if r.perPackage[pkg] == nil {
		r.perPackage[pkg] = &tally{}
	}
	return r.perPackage[pkg]
}

func (r *report) dump(t *test) {
	for _, line := range t.output {
		fmt.Fprint(r.out, line)
	}
}

func (r *report) fail(name string) {
	r.failed++
	r.failures = append(r.failures, name)
}

// finish prints failures, table and totals, and says whether the run is good.
func (r *report) finish() bool {
	for _, pkg := range slices.Sorted(maps.Keys(r.perPackage)) {
		r.fail(pkg + " (began and never ended)")
	}
	// A stream that was cut off, or a build that failed, must not look like a run without failures.
	if r.packages == 0 {
		r.fail("no package was tested")
	}
	for _, line := range r.table.broken() {
		r.fail(line)
	}
	if r.failed > 0 {
		fmt.Fprintln(r.out, "\nfailed")
		for _, name := range r.failures {
			fmt.Fprintln(r.out, "  "+name)
		}
	}
	r.table.write(r.out)
	r.times.write(r.out)
	fmt.Fprintf(r.out, "\n%d passed, %d failed\n", r.passed, r.failed)
	return r.failed == 0
}
