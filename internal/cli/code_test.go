package cli_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/durable"
	"hawser/internal/version"
)

// readCode gives a command these arguments and this standard input, and returns the code that it has read.
func readCode(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var k cli.Code
	var got string
	var failed error
	root := &cobra.Command{Use: "tool", Short: "work"}
	login := &cobra.Command{Use: "login", Short: "log in", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		got, failed = k.Read(c)
		return failed
	}}
	k.Flags(login, "the code")
	root.AddCommand(login, cli.VersionCommand(version.Info{Program: "tool"}))
	root.SetIn(strings.NewReader(stdin))
	var stdout, stderr bytes.Buffer
	if code := (cli.Program{Root: root}).Main(append([]string{"login"}, args...), &stdout, &stderr); code != 0 && failed == nil {
		failed = errors.New(stderr.String())
	}
	return got, failed
}

func TestCodeComesFromWhereItIsSaid(t *testing.T) {
	dir := t.TempDir()
	file, shared, empty := filepath.Join(dir, "code"), filepath.Join(dir, "shared"), filepath.Join(dir, "empty")
	if err := errors.Join(durable.WriteFile(file, []byte("ABCD-EFGH\nsecond line\n"), 0o600),
		durable.WriteFile(shared, []byte("ABCD-EFGH\n"), 0o644), durable.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		want  string
		usage bool
	}{
		"flag":                 {"", []string{"--code", "ABCD"}, "ABCD", false},
		"standard input":       {" ABCD-EFGH \r\nsecond\n", []string{"--code", "-"}, "ABCD-EFGH", false},
		"input without an end": {"ABCD-EFGH", []string{"--code=-"}, "ABCD-EFGH", false},
		"file":                 {"", []string{"--code-file", file}, "ABCD-EFGH", false},
		"nothing, no terminal": {"ABCD\n", nil, "", true},
		"empty input":          {"\nABCD\n", []string{"--code", "-"}, "", true},
		"empty file":           {"", []string{"--code-file", empty}, "", true},
	} {
		got, err := readCode(t, tt.stdin, tt.args...)
		_, usage := errors.AsType[*answer.UsageError](err)
		if got != tt.want || usage != tt.usage || !usage && err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := readCode(t, "", "--code-file", shared); !errors.Is(err, durable.ErrExposed) {
		t.Errorf("a file that others may read: %v", err)
	}
	if _, err := readCode(t, "", "--code-file", filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := readCode(t, strings.Repeat("A", 1000), "--code", "-"); err != nil {
		t.Errorf("a long line is for the code's own check: %v", err)
	}
	if _, err := readCode(t, "", "--code", "A", "--code-file", file); err == nil {
		t.Error("two codes")
	}
}
