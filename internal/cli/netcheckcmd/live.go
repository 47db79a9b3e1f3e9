package netcheckcmd

import (
	"fmt"
	"io"
	"os"
)

// live shows each result on a terminal as it comes. The report, which has all of them in order, then takes their place.
// Without a terminal it shows nothing.
type live struct {
	w    io.Writer // nil: none
	rows int
}

func newLive(w io.Writer, getenv func(string) string) *live {
	f, ok := w.(*os.File)
	if !ok || getenv("TERM") == "dumb" {
		return &live{}
	}
	// Asked of the file's mode, since package x/term would be one more library in the agent.
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &live{}
	}
	return &live{w: f}
}

// row adds a line; it is cut so that it stays one on a narrow terminal. 78 columns, because every terminal has 80: a
// line that wrapped would leave end one line short.
func (l *live) row(row fmt.Stringer) {
	if l.w != nil {
		fmt.Fprintf(l.w, "%.78s\n", row)
		l.rows++
	}
}

// end takes the lines away again, as far as they are on the screen.
func (l *live) end() {
	if l.w != nil && l.rows > 0 {
		fmt.Fprintf(l.w, "\x1b[%dA\x1b[J", l.rows)
	}
}
