package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hawser/board"
	"hawser/probe"
)

func TestSheetIsWrittenWholeInTheFormOfItsName(t *testing.T) {
	t.Attr("id", "A4-report")
	dir := t.TempDir()
	o := Options{Config: Config{Data: filepath.Join(dir, "data")}, Board: board.New(), Version: "1.0"}
	for name, head := range map[string]string{"a.txt": "Firewall request", "b.html": "<!doctype html>", "c.HTML": "<!doctype html>", "d": "Firewall request"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte("old "), 10_000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := CheckSheetFile(file); err != nil {
			t.Error(err)
		}
		if err := WriteSheet(file, o, probe.Report{}); err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(b, []byte(head)) || bytes.Contains(b, []byte("old ")) ||
			!bytes.Contains(b, []byte("not enrolled")) || !bytes.Contains(b, []byte("hawser-agent 1.0")) {
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
		if err := CheckSheetFile(file); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := WriteSheet(filepath.Join(dir, "missing", "a.html"), Options{Board: board.New()}, probe.Report{}); err == nil || !strings.Contains(err.Error(), "check the folder") {
		t.Error(err)
	}
	if runtime.GOOS == "linux" {
		if err := CheckSheetFile("/dev/null"); err == nil || !strings.Contains(err.Error(), "it is no regular file") {
			t.Error(err)
		}
	}
}

func TestUnknownProfileIsRefused(t *testing.T) {
	if _, err := NetcheckProfile(t.Context(), Options{Board: board.New()}, "other", nil, nil); err == nil || !strings.Contains(err.Error(), "combivis") {
		t.Error(err)
	}
}
