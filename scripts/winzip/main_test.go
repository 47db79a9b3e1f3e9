package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// unpack returns what a zip holds, in its order, and checks each time.
func unpack(t *testing.T, packed []byte) (names []string, files map[string]string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !f.Modified.Equal(at) {
			t.Errorf("%s is of %v, want %v", f.Name, f.Modified, at)
		}
		names, files[f.Name] = append(names, f.Name), string(b)
	}
	return names, files
}

func TestTheZipIsSortedSummedAndAlwaysTheSame(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for name, text := range map[string]string{"install.cmd": "@echo off\r\nrem\n", "LICENSE": "a\nb\n", "hawser.exe": "MZ\n\x00"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	var first []byte
	for i := range 4 {
		out := filepath.Join(dir, "out.zip")
		if err := run(out, at, paths); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = b
		}
		if !bytes.Equal(first, b) {
			t.Error("the same files made another zip")
		}
		paths = append(paths[1:], paths[0])
	}
	names, files := unpack(t, first)
	if got := strings.Join(names, " "); got != "LICENSE.txt SHA256SUMS hawser.exe install.cmd" {
		t.Errorf("it holds %s", got)
	}
	if files["install.cmd"] != "@echo off\r\nrem\r\n" || files["LICENSE.txt"] != "a\r\nb\r\n" || files["hawser.exe"] != "MZ\n\x00" {
		t.Errorf("it holds %q", files)
	}
	want := fmt.Sprintf("%x  hawser.exe\n", sha256.Sum256([]byte("MZ\n\x00")))
	if !strings.Contains(files["SHA256SUMS"], want) || strings.Count(files["SHA256SUMS"], "\n") != 3 {
		t.Errorf("sums %q, want %q among three", files["SHA256SUMS"], want)
	}
}

func TestAMissingFileIsAnError(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.zip")
	if err := run(out, at, []string{out + ".none"}); err == nil {
		t.Error("packed what is not there")
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("left a zip behind")
	}
}
