//go:build linux

package main

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestVersionsGrow(t *testing.T) {
	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for described, want := range map[string]string{
		"":                 "0.0.0~git20260203040506",
		"v1.2.3":           "1.2.3",
		"v1.2.3-4-gabcdef": "1.2.4~git20260203040506", // after 1.2.3, and before 1.2.4
	} {
		if got, err := versionOf(described, when); err != nil || got.String() != want {
			t.Errorf("%q: %s, %v; want %s", described, got, err, want)
		}
	}
	for _, described := range []string{"v1", "v1.2", "v1.2.x"} {
		if v, err := versionOf(described, when); err == nil {
			t.Errorf("%q is version %s", described, v)
		}
	}
}

// The same commit, built again elsewhere and later, gives the same bytes: programs, packages, lists and sums.
func TestSameCommitGivesTheSameBytes(t *testing.T) {
	t.Attr("id", "I2-same")
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	run(t, exec.Command("sh", "-c", `mkdir "$1" && tar -C ../.. --exclude=./bin -cf - . | tar -C "$1" --no-same-owner -xf -`, "sh", tree))
	target := "linux-" + runtime.GOARCH
	if err := buildPrograms(tree, filepath.Join(dir, "bin", target), target, "hawser-agent", "hawser-server", "hawser"); err != nil {
		t.Fatal(err)
	}
	r := release{bin: filepath.Join(dir, "bin"), out: filepath.Join(dir, "out"), nfpm: nfpmFile(), only: "*/" + target + "/*",
		maintainer: "Test <test@hawser.example.com>"}
	if err := r.readVersion(false); err != nil {
		t.Fatal(err)
	}
	if err := r.make(); err != nil {
		t.Fatal(err)
	}
	first, same := contents(t, made(t, "packages/SHA256SUMS")), 0
	for sum := range strings.Lines(contents(t, filepath.Join(r.out, "SHA256SUMS"))) {
		if same++; !strings.Contains(first, sum) {
			t.Errorf("differs: %s", sum)
		}
	}
	if want := 4 + 3 + 3 + 3*2; same != want {
		t.Errorf("%d files, want %d", same, want)
	}
	check := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	check.Dir = r.out
	run(t, check)
}

// The list names what the Go command itself finds in the program, and has all that SPDX 2.3 wants of one.
func TestSBOMListsWhatIsInTheProgram(t *testing.T) {
	t.Attr("id", "I2-same")
	var d spdxDocument
	if err := json.Unmarshal([]byte(contents(t, made(t, "packages/hawser-agent_*_linux-arm-7.spdx.json"))), &d); err != nil {
		t.Fatal(err)
	}
	if d.Version != "SPDX-2.3" || d.Licence != "CC0-1.0" || d.ID != "SPDXRef-DOCUMENT" || d.Namespace == "" || d.Creation.Created.IsZero() || len(d.Creation.Creators) == 0 {
		t.Errorf("not a document of SPDX: %+v", d)
	}
	listed, ids := map[string]bool{}, map[string]bool{d.ID: true}
	for _, p := range d.Packages {
		if p.Name == "" || p.Version == "" || p.Location == "" || ids[p.ID] {
			t.Errorf("package %+v", p)
		}
		listed[p.Name+"\t"+p.Version], ids[p.ID] = true, true
	}
	for _, r := range d.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("relationship %+v leads nowhere", r)
		}
	}
	program := filepath.Join(os.Getenv(dirVariable), "bin", "linux-arm-7", "hawser-agent")
	for l := range strings.Lines(run(t, exec.Command("go", "version", "-m", program))) {
		if f := strings.Split(strings.TrimSpace(l), "\t"); f[0] == "dep" && !listed[f[1]+"\t"+f[2]] {
			t.Errorf("%s %s is in the program and not in the list", f[1], f[2])
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil || len(d.Packages) != len(info.Deps)+2 {
		t.Errorf("%d packages, want the program, the standard library and %d modules (%v)", len(d.Packages), len(info.Deps), err)
	}
	if notices := contents(t, made(t, "packages/hawser-agent_*_linux-arm-7.third-party.txt")); strings.Count(notices, "\n"+strings.Repeat("=", 80)+"\n") != 2*(len(info.Deps)+1) {
		t.Error("the notices do not have a part for each module")
	}
}

func TestLintianFindsNoError(t *testing.T) {
	t.Attr("id", "I1")
	debs, err := filepath.Glob(filepath.Join(os.Getenv(dirVariable), "packages", "*.deb"))
	if err != nil || len(debs) != 5+2+2 {
		t.Fatalf("packages %q, %v", debs, err)
	}
	out := run(t, exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error"}, debs...)...))
	t.Logf("%s", out)
}

func TestFilesThatComeAlongHaveASum(t *testing.T) {
	t.Attr("id", "I2-same")
	r := release{add: t.TempDir(), out: t.TempDir()}
	put(t, filepath.Join(r.add, "hawser.zip"), "x", 0o644)
	if err := errors.Join(r.addFiles(), r.makeSums()); err != nil {
		t.Fatal(err)
	}
	const sum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  hawser.zip\n" // sha256sum's
	if got := contents(t, filepath.Join(r.out, "SHA256SUMS")); got != sum {
		t.Errorf("got %q", got)
	}
}
