package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/durable"
)

// maxCode is more than a line with a code has.
const maxCode = 256

// Code is where a command gets the code that it needs. On a command line every user of the machine can read it, and the
// shell keeps it, so there are better places.
type Code struct{ word, file string }

// Flags gives c the flags --code and --code-file. what is the kind of code, with the command that makes one.
func (k *Code) Flags(c *cobra.Command, what string) {
	c.Flags().StringVar(&k.word, "code", "", "`CODE`: "+what+"; - reads it from standard input (default: ask for it)")
	c.Flags().StringVar(&k.file, "code-file", "", "`FILE` with the code, which nobody else may read")
	c.MarkFlagsMutuallyExclusive("code", "code-file")
}

// Take is for a command that also takes the code as its first word, as people read it off a box; - is standard input.
func (k *Code) Take(words []string) error {
	if len(words) == 0 {
		return nil
	}
	if k.word != "" || k.file != "" {
		return answer.Usage("the code is given twice")
	}
	k.word = words[0]
	return nil
}

// Read returns the code: that of the flag, the first line of the file or of standard input, or what a person types. It
// blocks until there is a line. Without a flag and without a terminal there is nobody to ask, which is an error of usage.
func (k *Code) Read(c *cobra.Command) (string, error) {
	switch {
	case k.file != "":
		b, err := durable.ReadPrivate(k.file, maxCode)
		if err != nil {
			return "", fmt.Errorf("read code: %w", err)
		}
		return firstLine(strings.NewReader(string(b)))
	case k.word == "-":
		return firstLine(c.InOrStdin())
	case k.word != "":
		return k.word, nil
	case !isTerminal(c.InOrStdin()):
		return "", answer.Usage("no code: give --code - and the code on standard input, or --code-file FILE")
	}
	fmt.Fprint(c.ErrOrStderr(), "code: ")
	return typed(c.Context(), c.InOrStdin())
}

// typed waits for a person, or until ctx ends. Nothing ends a read of a terminal: its goroutine goes with the process,
// which ends next.
func typed(ctx context.Context, r io.Reader) (string, error) {
	var line string
	var err error
	done := make(chan struct{})
	go func() {
		line, err = firstLine(r)
		close(done)
	}()
	select {
	case <-done:
		return line, err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// firstLine returns a line without what surrounds the code in it.
func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxCode), maxCode).ReadString('\n')
	line = strings.TrimSpace(line)
	switch {
	case line != "":
		return line, nil
	case err == nil || err == io.EOF:
		return "", answer.Usage("no code: the first line is empty")
	}
	return "", fmt.Errorf("read code: %w", err)
}

// isTerminal reports whether a person may be typing: it is a character device, and not that of nothing.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	nothing, missing := os.Stat(os.DevNull)
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && (missing != nil || !os.SameFile(info, nothing))
}
