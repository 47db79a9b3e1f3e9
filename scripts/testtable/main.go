// Command testtable reads what `make test` produces, prints it so that a person can follow it, and ends with one table
// that says which promises were tested in this run.
//
//	{ go test -json ./...; scripts/fuzz; scripts/cross; } | testtable -ids docs/tests.md
//
// A test says what it shows through its attributes, which `go test -json` reports:
//
//	t.Attr("id", "A1-bytes")                  // the promise; may be given more than once
//	t.Attr("cases", "12")                     // how many cases this test stands for; 1 when absent
//	t.Attr("count", "streams carried=50")     // something counted in this very run
//
// A check that is no Go test prints one line of its own on the same stream (scripts/lib.sh, check):
//
//	{"Action":"check","Test":"size linux/arm/7","Passed":true,"ID":"A1-size","Note":"6.1 MiB"}
//
// A step of scripts/test says how long it took, by the clock and in CPU time, in seconds:
//
//	{"Action":"step","Test":"lint","Elapsed":40,"CPU":55}
//
// The run fails when a test or check failed, when a test was skipped, when a promised id has no passing case, and when
// a test carries an id that nobody promised: a table that could not turn red would say nothing.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	ids := flag.String("ids", "docs/tests.md", "Markdown `file` whose table lists the promised ids")
	flag.Parse()
	ok, err := summarise(*ids)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testtable:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// summarise reports on standard input and says whether everything passed.
func summarise(idsFile string) (ok bool, err error) {
	text, err := os.ReadFile(idsFile)
	if err != nil {
		return false, err
	}
	ids, err := parseIDs(string(text))
	if err != nil {
		return false, fmt.Errorf("read %s: %w", idsFile, err)
	}
	r := newReport(os.Stdout, ids)
	if err := r.read(os.Stdin); err != nil {
		return false, err
	}
	return r.finish(), nil
}
