package cli_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"hawser/internal/answer"
	"hawser/internal/cli"
	"hawser/internal/version"
)

// program has one command that fails with err, in a group that does nothing by itself.
func program(err error) cli.Program {
	root := &cobra.Command{Use: "tool", Short: "work"}
	group := &cobra.Command{Use: "group", Short: "group"}
	need := ""
	act := &cobra.Command{Use: "act", Short: "act", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return err }}
	act.Flags().StringVar(&need, "need", "", "")
	act.MarkFlagRequired("need")
	group.AddCommand(act)
	root.AddCommand(group, cli.VersionCommand(version.Info{Program: "tool", Version: "1"}))
	return cli.Program{Root: root}
}

func TestWhatCannotBeUnderstoodIsAUsageError(t *testing.T) {
	for _, args := range []string{
		"", "nonsense", "--nonsense", "group", "group nonsense", "group act", "group act --need", "group act --need x y",
		"version --xml", "completion", "completion csh",
	} {
		var stdout, stderr bytes.Buffer
		code := program(errors.New("it acted")).Main(strings.Fields(args), &stdout, &stderr)
		line := stderr.String()
		if code != answer.ExitUsage || stdout.Len() > 0 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "tool: ") ||
			strings.Contains(line, "it acted") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, &stdout, line)
		}
	}
}

func TestAnErrorOfACommandIsOneLineWithAdvice(t *testing.T) {
	special := errors.New("special")
	for name, tt := range map[string]struct {
		err  error
		code int
		line string
	}{
		"none":          {nil, answer.ExitDone, ""},
		"plain":         {errors.New("a\nb"), answer.ExitFailed, "tool: a; b\n"},
		"usage":         {answer.Usage("x"), answer.ExitUsage, "tool: x\n"},
		"the program's": {special, 4, "tool: special; be special\n"},
	} {
		p, tidied := program(tt.err), false
		p.Tidy = func() { tidied = true }
		p.Code = func(err error) int {
			if err == special {
				return 4
			}
			return 0
		}
		p.Advice = func(err error) string {
			if err == special {
				return "be special"
			}
			return ""
		}
		var stdout, stderr bytes.Buffer
		if code := p.Main([]string{"group", "act", "--need", "x"}, &stdout, &stderr); code != tt.code || stderr.String() != tt.line || !tidied {
			t.Errorf("%s: exit code %d, stderr %q, tidied %v", name, code, &stderr, tidied)
		}
	}
}

func TestVersionAndCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"version":         "tool 1",
		"version --json":  `{"program":"tool","version":"1",`,
		"completion bash": "bash completion",
		"--help":          "Available Commands",
	} {
		var stdout, stderr bytes.Buffer
		if code := program(nil).Main(strings.Fields(args), &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
			t.Errorf("%q: exit code %d, stdout %.200q, stderr %q", args, code, &stdout, &stderr)
		}
	}
}
