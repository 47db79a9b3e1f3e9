package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// terminal shows progress in one line, which the next text replaces. A nil terminal shows nothing. It has a lock, since
// a command that measures reports from several goroutines.
type terminal struct {
	mu    sync.Mutex // guards all below
	w     io.Writer
	width int
	dirty bool
}

// newTerminal returns nil when w is no terminal, or a dumb one. A pipe or a log file would fill with control
// characters.
func newTerminal(w io.Writer) *terminal {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &terminal{w: f, width: width}
}

// show replaces the line; an empty text only removes it. Errors are ignored: without a terminal nobody misses the
// progress.
func (t *terminal) show(text string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == "" && !t.dirty {
		return
	}
	// A longer text would wrap, and what \r goes back to is the last line of it.
	if r := []rune(text); len(r) >= t.width {
		text = string(r[:t.width-1])
	}
	io.WriteString(t.w, "\r\x1b[K"+text)
	t.dirty = text != ""
}

// somebody reports whether there is a person at a terminal, who can be asked.
func somebody(cmd *cobra.Command) bool {
	in, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(in.Fd()))
}

// ask asks a person, and returns the line that he types, in small letters; empty without a whole one.
func (a *app) ask(cmd *cobra.Command, question string) string {
	a.terminal.show("")
	fmt.Fprint(cmd.ErrOrStderr(), question+" ")
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64)).ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(line))
}
