package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// The list of times names so many tests, and none that is over at once.
const (
	slowest  = 15
	notAtAll = time.Second
)

// times is where the time of a run went, so that who has to shorten it need not search.
type times struct {
	steps []timed
	tests []timed // those without a parent, which include their subtests
}

// timed is something and how long it took. The CPU time is that of all its processes; of a test it is not known.
type timed struct {
	name      string
	wall, cpu time.Duration
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// write prints the steps in their order, and the tests that took longest. Packages are tested side by side, so their tests
// may add up to more than the step took.
func (t *times) write(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(t.steps) > 0 {
		fmt.Fprintln(tw, "\nstep\twall\tCPU\t")
		var sum timed
		for _, s := range t.steps {
			fmt.Fprintf(tw, "%s\t%v\t%v\t\n", s.name, s.wall.Round(time.Second), s.cpu.Round(time.Second))
			sum.wall, sum.cpu = sum.wall+s.wall, sum.cpu+s.cpu
		}
		fmt.Fprintf(tw, "all\t%v\t%v\t\n", sum.wall.Round(time.Second), sum.cpu.Round(time.Second))
		tw.Flush()
	}
	slow := slices.DeleteFunc(t.tests, func(a timed) bool { return a.wall < notAtAll })
	slices.SortStableFunc(slow, func(a, b timed) int { return cmp.Compare(b.wall, a.wall) })
	if len(slow) > 0 {
		fmt.Fprintln(w, "\nslowest tests")
	}
	for _, test := range slow[:min(slowest, len(slow))] {
		fmt.Fprintf(w, "%8v  %s\n", test.wall.Round(10*time.Millisecond), test.name)
	}
}
