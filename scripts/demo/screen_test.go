package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestWrapBreaksBetweenWords(t *testing.T) {
	for _, tt := range []struct {
		text    string
		columns int
		want    []string
	}{
		{"one two three", 13, []string{"one two three"}},
		{"one two three", 12, []string{"one two", "..three"}},
		{"a longestwordofall b", 6, []string{"a", "..longestwordofall", "..b"}},
		{"°C °C °C", 5, []string{"°C °C", "..°C"}},
		{"", 5, nil},
	} {
		if diff := cmp.Diff(tt.want, wrap(strings.Fields(tt.text), tt.columns, "..")); diff != "" {
			t.Errorf("%q in %d columns (-want +got):\n%s", tt.text, tt.columns, diff)
		}
	}
}

// TestStepIsPrinted compares a whole step, with its times replaced: a screen is judged by looking at it.
func TestStepIsPrinted(t *testing.T) {
	var b strings.Builder
	s := &screen{w: &b}
	s.header("/tmp/hawser-demo-1")
	s.begin("Server: make an infrastructure")
	s.command("hawser-server", "init", "--dir", "/tmp/hawser-demo-1/server", "--host", "127.0.0.1", "--ports", "8080,8443,5935", "--json")
	s.notes("root sha256 1f3a\nlogin code  ABCD\n")
	s.ok("One directory holds its own root of trust, keys and configuration, and nothing else is needed.")
	want := `Hawser demo: the whole path on this machine, with the real programs. No root.
Everything is written below D=/tmp/hawser-demo-1

 1  Server: make an infrastructure
    $ hawser-server init --dir $D/server --host 127.0.0.1 \
          --ports 8080,8443,5935 --json
    root sha256 1f3a
    login code  ABCD
    ok 0.00 s  One directory holds its own root of trust, keys and
               configuration, and nothing else is needed.
`
	got := regexp.MustCompile(`\d+\.\d\d s`).ReplaceAllString(b.String(), "0.00 s")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinesFitTheScreen(t *testing.T) {
	var b strings.Builder
	s := &screen{w: &b}
	s.begin("x")
	s.command("hawser", strings.Fields("--home /a/b/c login 127.0.0.1:8443 --code AAAA-BBBB-CCCC-DDDD-EEEE --pin 0123456789012345678901234567890123456789 --json")...)
	s.ok(strings.Repeat("proof ", 50))
	s.failed(errors.New(strings.Repeat("cause: ", 50)))
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestColourIsForTerminals(t *testing.T) {
	var b strings.Builder
	s := newScreen(&b)
	s.begin("a step")
	s.ok("proof")
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("escape sequences in a file: %q", b.String())
	}
	s.colour = true
	s.begin("a step")
	if !strings.Contains(b.String(), "\x1b[1ma step\x1b[0m") {
		t.Errorf("no bold title on a terminal: %q", b.String())
	}
}
