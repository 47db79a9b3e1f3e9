package hawser_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is how wide prose is: wider lines cannot be read in a terminal, or compared in a review.
const maxColumns = 120

// heading matches "## 4 Frames", "## §4 Frames", "### 4.2. Hello".
var heading = regexp.MustCompile(`(?m)^#{2,4} §?([0-9]+(?:\.[0-9]+)*)\.?\s`)

// documents reads the README and docs, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	read := func(name string) error {
		text, err := os.ReadFile(name)
		texts[filepath.ToSlash(name)] = string(text)
		return err
	}
	err := filepath.WalkDir("docs", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && path.Ext(name) == ".md" {
			err = read(name)
		}
		return err
	})
	if err == nil {
		err = read("README.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// sections lists the numbered headings of docs/spec as "wire §4.2", and the names of its documents.
func sections(texts map[string]string) (headings map[string]bool, names []string) {
	headings = map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if path.Dir(file) != "docs/spec" {
			continue
		}
		name := strings.TrimSuffix(path.Base(file), ".md")
		names = append(names, name)
		for _, m := range heading.FindAllStringSubmatch(texts[file], -1) {
			headings[name+" §"+m[1]] = true
		}
	}
	return headings, names
}

// checkCitations looks up the sections of the spec that code and documents cite, as "wire §4.2" or
// "docs/spec/wire.md §4.2".
func checkCitations(files []source, texts map[string]string) (complaints []string) {
	headings, names := sections(texts)
	if len(names) == 0 {
		return []string{"docs/spec holds no document"}
	}
	citing := maps.Clone(texts)
	for _, f := range files {
		if f.dir() != "." { // these tests cite by way of example
			citing[f.path] = f.text
		}
	}
	citation := regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)(?:\.md)? §([0-9]+(?:\.[0-9]+)*)`)
	cited := 0
	for _, file := range slices.Sorted(maps.Keys(citing)) {
		for i, line := range strings.Split(citing[file], "\n") {
			for _, m := range citation.FindAllStringSubmatch(line, -1) {
				if cited++; !headings[m[1]+" §"+m[2]] {
					complaints = append(complaints, fmt.Sprintf("%s:%d: cites %s §%s, and docs/spec/%s.md has no heading numbered %s", file, i+1, m[1], m[2], m[1], m[2]))
				}
			}
		}
	}
	if cited == 0 {
		complaints = append(complaints, "no file cites docs/spec: this rule no longer finds what it checks")
	}
	return complaints
}

// stale matches words that readers of English as a second language stumble over, and what to write instead is plain.
var stale = regexp.MustCompile(`(?i)\b(the own|but for|shall|seldom|whence|lest|thereof)\b`)

// checkWords finds them in documents and in comments.
func checkWords(files []source, texts map[string]string) (complaints []string) {
	complain := func(where, text string) {
		if word := stale.FindString(text); word != "" {
			complaints = append(complaints, fmt.Sprintf("%s: %q: say it in plain present-day English", where, word))
		}
	}
	for _, f := range files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				complain(f.at(c.Pos()), c.Text)
			}
		}
	}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		for i, line := range strings.Split(texts[file], "\n") {
			complain(fmt.Sprintf("%s:%d", file, i+1), line)
		}
	}
	return complaints
}

// row matches a row of README's table of folders.
var row = regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)/` \\|")

// checkFolders holds README's table of folders against the tree: where a newcomer looks first, nothing is missing and
// nothing is gone. Programs, scripts and what only tests use stand there as a whole.
func checkFolders(files []source, texts map[string]string) (complaints []string) {
	rows, used := map[string]bool{}, map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(texts["README.md"], -1) {
		rows[m[1]] = true
	}
	for _, f := range files {
		dir := f.dir()
		for _, whole := range []string{"cmd", "scripts", "internal/e2e"} {
			if strings.HasPrefix(dir, whole+"/") {
				dir = whole
			}
		}
		if used[dir] = true; dir != "." && !rows[dir] && !strings.HasSuffix(dir, "test") {
			complaints = append(complaints, fmt.Sprintf("%s: README.md has no row for `%s/`", f.path, dir))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(rows)) {
		if !used[dir] && dir != "docs" {
			complaints = append(complaints, fmt.Sprintf("README.md has a row for `%s/`, where no code is", dir))
		}
	}
	return complaints
}

// checkWidth measures prose: what stands in a table or in code has the width that it needs.
func checkWidth(texts map[string]string) (complaints []string) {
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		code := false
		for i, line := range strings.Split(texts[file], "\n") {
			switch text := strings.TrimSpace(line); {
			case strings.HasPrefix(text, "```"):
				code = !code
			case code, strings.HasPrefix(text, "|"), strings.HasPrefix(line, "    "):
			case utf8.RuneCountInString(line) > maxColumns:
				complaints = append(complaints, fmt.Sprintf("%s:%d: %d columns, at most %d", file, i+1, utf8.RuneCountInString(line), maxColumns))
			}
		}
	}
	return complaints
}
