package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hawser": main})
}

// TestScripts runs the real program as a user does.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	refused := 0
	for _, s := range scripts {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		refused += strings.Count("\n"+string(b), "\n! exec ") + strings.Count("\n"+string(b), "\nrefused ")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"refused": cmdRefused},
	})
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(refused))
}

// cmdRefused is `refused CODE ARGS…`: hawser must end with that exit code, nothing on stdout, and one line on stderr.
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refused CODE [ARG...]")
	}
	err := ts.Exec("hawser", args[1:]...)
	if err == nil || err.Error() != "exit status "+args[0] {
		ts.Fatalf("hawser %q: %v, want exit status %s", args[1:], err, args[0])
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("hawser %q: printed %q", args[1:], out)
	}
	if line := ts.ReadFile("stderr"); !strings.HasPrefix(line, "hawser: ") || strings.Count(line, "\n") != 1 {
		ts.Fatalf("hawser %q: said %q, want one line", args[1:], line)
	}
}

func TestTerminalKeepsToOneLine(t *testing.T) {
	var b strings.Builder
	term := &terminal{w: &b, width: 20}
	term.show("")
	term.show("trying")
	term.show(strings.Repeat("x", 100))
	term.show("")
	term.show("")
	if want := "\r\x1b[Ktrying\r\x1b[K" + strings.Repeat("x", 19) + "\r\x1b[K"; b.String() != want {
		t.Errorf("wrote %q, want %q", b.String(), want)
	}
	(*terminal)(nil).show("no terminal")
}
