package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	width  = 80
	indent = "    "
	more   = ` \` // the shell's sign that a command goes on
)

// screen prints what happens, for a person: plain lines of 80 columns where the words allow it, colour only on a
// terminal. It is not for concurrent use.
type screen struct {
	w      io.Writer
	colour bool
	dir    string // printed as $D, since the paths would hide the rest of a command
	number int    // of the step
	since  time.Time
}

func newScreen(w io.Writer) *screen {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return &screen{w: w}
	}
	info, err := f.Stat()
	return &screen{w: w, colour: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// The colours of ECMA-48 that every terminal has.
const (
	bold, dim, red, green = "1", "2", "31", "32"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// header opens the output and gives the directory its short name.
func (s *screen) header(dir string) {
	s.dir = dir
	s.text("Hawser demo: the whole path on this machine, with the real programs. No root.")
	s.text("Everything is written below D=" + dir)
}

// begin announces a step before it is done.
func (s *screen) begin(title string) {
	s.number++
	s.since = time.Now()
	fmt.Fprintf(s.w, "\n%2d  %s\n", s.number, s.paint(bold, title))
}

// command shows what a user would type.
func (s *screen) command(name string, args ...string) {
	words := []string{"$ " + name}
	for i, a := range args {
		if i > 0 && strings.HasPrefix(args[i-1], "-") && !strings.HasPrefix(a, "-") {
			words[len(words)-1] += " " + s.short(a) // a flag and its value stay together
		} else {
			words = append(words, s.short(a))
		}
	}
	lines := wrap(words, width-len(indent)-len(more), "      ")
	for i, line := range lines {
		if i < len(lines)-1 {
			line += more
		}
		fmt.Fprintln(s.w, indent+s.paint(dim, line))
	}
}

// note shows a line that a program answered, or a fact.
func (s *screen) note(text string) {
	fmt.Fprintln(s.w, strings.TrimRight(indent+s.short(text), " "))
}

// fact is a note of several lines where it has to be.
func (s *screen) fact(text string) {
	for _, line := range wrap(strings.Fields(text), width-len(indent), "      ") {
		s.note(line)
	}
}

// notes shows an answer of several lines as it is.
func (s *screen) notes(text string) {
	for line := range strings.Lines(text) {
		s.note(strings.TrimRight(line, "\n"))
	}
}

// ok ends a step with its time and what it has proven.
func (s *screen) ok(proof string) {
	took := "ok " + seconds(time.Since(s.since))
	words := append([]string{took + " "}, strings.Fields(proof)...)
	for i, line := range wrap(words, width-len(indent), strings.Repeat(" ", len(took)+2)) {
		if rest, ok := strings.CutPrefix(line, took); ok && i == 0 {
			line = s.paint(green, took) + rest
		}
		fmt.Fprintln(s.w, indent+line)
	}
}

// total closes the steps.
func (s *screen) total(took time.Duration) {
	s.text("")
	s.text(s.paint(green, fmt.Sprintf("The whole path works: %d steps in %s.", s.number, seconds(took))))
}

// failed says what ended the demo.
func (s *screen) failed(err error) {
	s.text("")
	words := append([]string{s.paint(red, "FAILED") + " "}, strings.Fields(s.short(err.Error()))...)
	s.text(strings.Join(wrap(words, width, "        "), "\n"))
}

// tail shows the end of a program's log.
func (s *screen) tail(name string, lines []string) {
	s.text("")
	s.text(s.paint(bold, "the last lines of "+name))
	for _, line := range lines {
		s.note(line)
	}
}

func (s *screen) text(t string) { fmt.Fprintln(s.w, t) }

func (s *screen) short(text string) string {
	if s.dir == "" {
		return text
	}
	return strings.ReplaceAll(text, s.dir, "$D")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// wrap puts words into lines of at most columns characters, as far as single words allow that. Lines after the first
// begin with hang.
func wrap(words []string, columns int, hang string) (lines []string) {
	for i, word := range words {
		if i == 0 {
			lines = []string{word}
			continue
		}
		last := &lines[len(lines)-1]
		if utf8.RuneCountInString(*last+" "+word) <= columns {
			*last += " " + word
		} else {
			lines = append(lines, hang+word)
		}
	}
	return lines
}
