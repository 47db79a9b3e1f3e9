// Command winzip packs the Windows programs with what belongs to them into a zip that is the same, byte for byte,
// whenever and wherever the same programs are packed: sorted, with one time for all files.
//
//	winzip -out FILE.zip -time SECONDS FILE...
//
// Texts (.cmd, .txt, and LICENSE as LICENSE.txt) get the line ends of Windows. SHA256SUMS is added.
package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	out := flag.String("out", "", "`FILE` to write")
	seconds := flag.Int64("time", 0, "time of every file, in `SECONDS` since 1970")
	flag.Parse()
	if err := run(*out, time.Unix(*seconds, 0).UTC(), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "winzip:", err)
		os.Exit(1)
	}
}

func run(out string, at time.Time, paths []string) error {
	files := map[string][]byte{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if name == "LICENSE" {
			name = "LICENSE.txt"
		}
		files[name] = forWindows(name, b)
	}
	var packed bytes.Buffer
	if err := pack(&packed, at, files); err != nil {
		return err
	}
	return os.WriteFile(out, packed.Bytes(), 0o644)
}

// forWindows ends the lines of texts as cmd.exe and Notepad want them.
func forWindows(name string, b []byte) []byte {
	if ext := filepath.Ext(name); ext != ".cmd" && ext != ".txt" {
		return b
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

// pack writes files and their sums.
func pack(w io.Writer, at time.Time, files map[string][]byte) error {
	files = maps.Clone(files)
	var sums bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	files["SHA256SUMS"] = sums.Bytes()
	z := zip.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at})
		if err != nil {
			return err
		}
		if _, err := f.Write(files[name]); err != nil {
			return err
		}
	}
	return z.Close()
}
