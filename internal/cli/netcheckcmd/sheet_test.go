package netcheckcmd

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hawser/internal/version"
	"hawser/probe/netcheck"
)

// asking is a call of the command with a sheet in a file.
func asking(file string) *check {
	return &check{program: Program{Version: version.Info{Program: "hawser-agent", Version: "1.0"}}, sheet: file, contact: "Example Machines"}
}

func TestSheetIsWrittenWholeInTheFormOfItsName(t *testing.T) {
	t.Attr("id", "A4-report")
	dir := t.TempDir()
	for name, head := range map[string]string{"a.txt": "Firewall request", "b.html": "<!doctype html>", "c.HTML": "<!doctype html>", "d": "Firewall request"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte("old "), 10_000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkSheetFile(file); err != nil {
			t.Error(err)
		}
		if err := asking(file).writeSheet(netcheck.Report{}); err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(b, []byte(head)) || bytes.Contains(b, []byte("old ")) ||
			!bytes.Contains(b, []byte("not enrolled")) || !bytes.Contains(b, []byte("hawser-agent 1.0")) || !bytes.Contains(b, []byte("Example Machines")) {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v, %v: something else was left", entries, err)
	}
}

func TestSheetThatCannotBeWrittenIsRefusedBefore(t *testing.T) {
	t.Attr("id", "A4-report")
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "missing", "a.html"): "write report",
		filepath.Join(plain, "a.html"):          "write report",
		dir:                                     "it is no regular file",
	} {
		if err := checkSheetFile(file); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := asking(filepath.Join(dir, "missing", "a.html")).writeSheet(netcheck.Report{}); err == nil || !strings.Contains(err.Error(), "check the folder") {
		t.Error(err)
	}
	if runtime.GOOS == "linux" {
		if err := checkSheetFile("/dev/null"); err == nil || !strings.Contains(err.Error(), "it is no regular file") {
			t.Error(err)
		}
	}
}

func TestLanguageIsThatOfTheSystemWhereThereIsASheetInIt(t *testing.T) {
	for name, tt := range map[string]struct {
		flag string
		env  map[string]string
		want string // empty: an error
	}{
		"nothing says":                  {"", nil, "en"},
		"a German system":               {"", map[string]string{"LANG": "de_DE.UTF-8"}, "de"},
		"Austria":                       {"", map[string]string{"LC_MESSAGES": "de_AT", "LANG": "C"}, "de"},
		"messages in English":           {"", map[string]string{"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "en"},
		"a system without a sheet":      {"", map[string]string{"LANG": "fr_FR.UTF-8"}, "en"},
		"the flag comes first":          {"en", map[string]string{"LANG": "de_DE"}, "en"},
		"a flag that nobody can follow": {"fr", nil, ""},
	} {
		got, err := language(tt.flag, func(name string) string { return tt.env[name] })
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

func TestWithoutATerminalNothingIsShown(t *testing.T) {
	var b bytes.Buffer
	l := newLive(&b, func(string) string { return "xterm" })
	l.row(netcheck.NameRow{Host: "a.example"})
	l.end()
	if b.Len() > 0 {
		t.Errorf("%q", b.String())
	}
	l = &live{w: &b}
	l.row(netcheck.NameRow{Host: strings.Repeat("a", 200)})
	l.row(netcheck.NameRow{Host: "b.example"})
	l.end()
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 3 || len(lines[0]) > 80 || lines[2] != "\x1b[2A\x1b[J" {
		t.Errorf("%q", lines)
	}
}
