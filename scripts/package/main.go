// Command package makes what users install out of programs that scripts/cross has built: deb, rpm, apk and ipk, with
// nfpm, the list of what each program consists of (SPDX), and SHA256SUMS over all of it.
//
// The same commit gives the same bytes: every time in a package is that of the commit, and nothing else of the machine or
// the moment gets in.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	r := release{version: version{base: "0.0.0"}}
	cache, _ := os.UserCacheDir() // without one nfpm is not found, which is told
	flag.StringVar(&r.bin, "bin", "bin/cross", "`DIR` with the programs, in OS-ARCH[-VARIANT]/")
	flag.StringVar(&r.out, "out", "bin/packages", "`DIR` for what is made")
	flag.StringVar(&r.nfpm, "nfpm", filepath.Join(cache, "hawser", "tools", "nfpm-"+nfpmVersion), "the `PROGRAM` nfpm")
	flag.StringVar(&r.only, "only", "*/*/*", "make only PROGRAM/DIR/FORMAT that match `PATTERN`, such as hawser-agent/linux-amd64/deb")
	flag.StringVar(&r.maintainer, "maintainer", "Hawser <packages@hawser.example.com>", "`NAME <MAIL>` of who answers for the packages")
	flag.StringVar(&r.add, "add", "", "`DIR` of files that come along, such as those of scripts/windows-zip")
	next := flag.Bool("next", false, "make the version after this one, to try an upgrade with")
	flag.Parse()
	if err := errors.Join(r.readVersion(*next), r.make()); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

// nfpmVersion is that of scripts/setup, which installs it. 2.47.0 has a module that cannot be fetched. As a dependency
// of ours it would bring hundreds of others along.
const nfpmVersion = "v2.45.0"

// A release is what one run makes.
type release struct {
	bin, out, nfpm string
	add            string // empty: nothing comes along
	maintainer     string
	only           string // a pattern over package.String
	version        version
	when           time.Time // of the commit
	stage          string    // where the files that are not there as such are written
}

// make makes everything, or the part of it that -only asks for. The directory is emptied first: SHA256SUMS must not
// vouch for a file of an earlier run.
func (r *release) make() (err error) {
	if r.stage, err = os.MkdirTemp("", "hawser-package-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.stage)) }()
	if err := errors.Join(os.RemoveAll(r.out), os.MkdirAll(r.out, 0o755)); err != nil {
		return err
	}
	for _, step := range []func() error{r.makePackages, r.makeSBOMs, r.addFiles, r.makeSums} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// addFiles comes before the sums, so that SHA256SUMS covers what came along.
func (r *release) addFiles() error {
	if r.add == "" {
		return nil
	}
	return os.CopyFS(r.out, os.DirFS(r.add))
}

// makeSums writes SHA256SUMS, for `sha256sum --check`, over all that was made.
func (r *release) makeSums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(b.String()), 0o644)
}

// A version is one of semver, in the parts that each format of packages joins in its own way.
type version struct{ base, pre string }

// String has the "~" with which dpkg and rpm sort a version before the one that has nothing there.
func (v version) String() string {
	if v.pre == "" {
		return v.base
	}
	return v.base + "~" + v.pre
}

// readVersion asks git for the commit's version and time; outside of git there is none, and the time is the epoch.
func (r *release) readVersion(next bool) error {
	r.when = time.Unix(0, 0).UTC()
	if seconds, err := git("log", "-1", "--format=%ct"); err == nil {
		unix, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			return fmt.Errorf("parse time of commit: %w", err)
		}
		r.when = time.Unix(unix, 0).UTC()
	}
	// A version is made of the commit's time: one second is enough for package managers to take it for newer.
	if next {
		r.when = r.when.Add(time.Second)
	}
	described, err := git("describe", "--tags", "--match", "v[0-9]*", "HEAD")
	if err != nil {
		described = ""
	}
	r.version, err = versionOf(described, r.when)
	return err
}

// versionOf makes a version of what `git describe` says: a tag is a version, and a commit after it comes before the next one.
func versionOf(described string, when time.Time) (version, error) {
	tag, rest, after := strings.Cut(strings.TrimPrefix(described, "v"), "-")
	if tag == "" {
		tag, after = "0.0.0", true
	}
	major, minorPatch, ok1 := strings.Cut(tag, ".")
	minor, patch, ok2 := strings.Cut(minorPatch, ".")
	n, err := strconv.Atoi(patch)
	if !ok1 || !ok2 || err != nil {
		return version{}, fmt.Errorf("tag %q: want vMAJOR.MINOR.PATCH", described)
	}
	if !after {
		return version{base: tag}, nil
	}
	// A commit after v1.2.3 is a first look at v1.2.4. It has to be newer than the one and older than the other.
	if rest != "" {
		n++
	}
	return version{fmt.Sprintf("%s.%s.%d", major, minor, n), "git" + when.Format("20060102150405")}, nil
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	return strings.TrimSpace(string(out)), err
}
