package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// licenceFile are the names under which a module says on what terms it may be passed on.
var licenceFile = regexp.MustCompile(`^(?i)(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// notices gathers what the licences of the modules in a program want to be passed on with it. A module without any is an
// error: nobody has said that we may.
func (r *release) notices(file string) (string, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read modules of %s: %w", file, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s contains these libraries, on the terms that follow each name.\n", filepath.Base(file))
	dirs, err := moduleDirs(modules(info))
	if err != nil {
		return "", err
	}
	for i, m := range modules(info) {
		found, err := noticesIn(dirs[i])
		if err != nil {
			return "", err
		}
		if found == "" {
			return "", fmt.Errorf("module %s has no licence in %s", m.Path, dirs[i])
		}
		fmt.Fprintf(&b, "\n%s\n%s %s\n%s\n%s", strings.Repeat("=", 80), m.Path, m.Version, strings.Repeat("=", 80), found)
	}
	return b.String(), nil
}

// moduleDirs asks the go command where the modules' source is; the first is the standard library.
func moduleDirs(modules []debug.Module) ([]string, error) {
	list := []string{"list", "-m", "-f", "{{.Dir}}"}
	for _, m := range modules[1:] {
		list = append(list, m.Path)
	}
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	out, err := output("go", list...)
	dirs := strings.Split(strings.TrimSpace(root+out), "\n")
	if err == nil && len(dirs) != len(modules) {
		err = fmt.Errorf("%d of %d modules are in the module cache: %q", len(dirs), len(modules), dirs)
	}
	return dirs, err
}

func noticesIn(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n%s\n", text)
	}
	return b.String(), nil
}
