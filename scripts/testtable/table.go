package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// idRow matches a row of the ids file: a Markdown table row whose first cell is an id, such as K1, A1-bytes or S-kill.
var idRow = regexp.MustCompile(`^\|\s*([A-Z](?:[0-9]+(?:-[a-z0-9]+)*|(?:-[a-z0-9]+)+))\s*\|\s*(.*?)\s*\|\s*$`)

// parseIDs gives the promised ids in the order of the file. An id without a line saying what it shows, or one that
// stands there twice, is an error; so is a file that promises nothing.
func parseIDs(text string) ([]string, error) {
	var ids []string
	for line := range strings.Lines(text) {
		m := idRow.FindStringSubmatch(strings.TrimSpace(line))
		switch {
		case m == nil:
		case m[2] == "":
			return nil, fmt.Errorf("id %s: nothing says what it shows", m[1])
		case slices.Contains(ids, m[1]):
			return nil, fmt.Errorf("id %s: listed twice", m[1])
		default:
			ids = append(ids, m[1])
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no id is listed")
	}
	return ids, nil
}

// row is what the run showed for one id.
type row struct {
	cases  int // cases of passing tests
	failed int // failing or skipped tests that carry the id
}

// table collects the rows. The zero value promises nothing.
type table struct {
	ids    []string // promised, in order
	rows   map[string]row
	counts map[string]int64 // "ID  what" -> sum over the run
}

// add books the end of one test that carries id.
func (t *table) add(id string, cases int, passed bool) {
	r := t.rows[id]
	if passed {
		r.cases += cases
	} else {
		r.failed++
	}
	t.rows[id] = r
}

// count books "what=number" for an id.
func (t *table) count(id, text string) error {
	what, number, ok := strings.Cut(text, "=")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("count %q: want what=number", text)
	}
	t.counts[id+"\t"+strings.TrimSpace(what)] += n
	return nil
}

// result is the verdict on one promised id.
func (t *table) result(id string) string {
	switch r := t.rows[id]; {
	case r.failed > 0:
		return "FAIL"
	case r.cases == 0:
		return "FAIL: no case ran"
	}
	return "ok"
}

// broken lists the ids that fail the run by themselves: promised without a passing case, or carried without a promise.
// An id whose test failed is not among them: the test has been counted already.
func (t *table) broken() []string {
	var out []string
	for _, id := range t.ids {
		if r := t.rows[id]; r.cases == 0 && r.failed == 0 {
			out = append(out, id+": promised, and no case of it ran")
		}
	}
	for id := range t.rows {
		if !slices.Contains(t.ids, id) {
			out = append(out, id+": carried by a test, and promised nowhere")
		}
	}
	slices.Sort(out)
	return out
}

// write prints the counts, then the table.
func (t *table) write(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	if len(t.counts) > 0 {
		fmt.Fprintln(tw, "\ncounted in this run")
		for _, key := range slices.Sorted(maps.Keys(t.counts)) {
			fmt.Fprintf(tw, "  %s\t%d\n", key, t.counts[key])
		}
		tw.Flush()
	}
	fmt.Fprintln(tw, "\ntest id\t| cases\t| result")
	for _, id := range t.ids {
		fmt.Fprintf(tw, "%s\t| %d\t| %s\n", id, t.rows[id].cases, t.result(id))
	}
	tw.Flush()
}
