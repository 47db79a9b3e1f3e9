package hawser_test

import (
	"fmt"
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// quoted matches a word in backticks.
	quoted = regexp.MustCompile("`([^`]+)`")
	// promised matches the id of a row of docs/tests.md.
	promised = regexp.MustCompile(`(?m)^\| ([A-Z][A-Za-z0-9-]*) \|`)
)

// checkThreats holds docs/threats.md to what is shown: in a table whose last column is "shown by", each row names tests,
// and each of them is there. A test that is renamed or deleted takes its claim with it.
func checkThreats(files []source, texts map[string]string) (complaints []string) {
	known := testNames(files)
	for _, m := range promised.FindAllStringSubmatch(texts["docs/tests.md"], -1) {
		known[m[1]] = true
	}
	claims, shown := 0, false
	for i, line := range strings.Split(texts["docs/threats.md"], "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !strings.HasPrefix(line, "|"), last == "shown by":
			shown = last == "shown by"
			continue
		case !shown, strings.HasPrefix(last, "---"):
			continue
		}
		claims++
		names := quoted.FindAllStringSubmatch(last, -1)
		if len(names) == 0 {
			complaints = append(complaints, fmt.Sprintf("docs/threats.md:%d: nothing shows that claim", i+1))
		}
		for _, name := range names {
			if !known[name[1]] {
				complaints = append(complaints, fmt.Sprintf("docs/threats.md:%d: there is no test %s", i+1, name[1]))
			}
		}
	}
	if claims == 0 {
		complaints = append(complaints, "docs/threats.md claims nothing: this rule no longer finds what it checks")
	}
	return complaints
}

// testNames lists the test functions of the house.
func testNames(files []source) map[string]bool {
	names := map[string]bool{}
	for _, f := range files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.isTest() && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}

// TestThreatsRuleBites shows the rule complaining.
func TestThreatsRuleBites(t *testing.T) {
	files := one(t, "a/a_test.go", "package a\nfunc TestThere(t *testing.T) {}\nfunc helper() {}\n")
	const head = "| asset | loss |\n|---|---|\n| `TestOfNoTable` | bad |\n\n| he cannot | shown by |\n|---|---|\n"
	wants := map[string]string{
		"| get in | `TestThere` `A1-x` |":       "",
		"| get in | `TestGone` |":               "threats.md:7: there is no test TestGone",
		"| get in | `A1-y` |":                   "there is no test A1-y",
		"| get in | `helper` |":                 "there is no test helper",
		"| get in | everybody knows |":          "nothing shows that claim",
		"\n| can | why |\n|---|---|\n| x | y |": "claims nothing",
	}
	for _, row := range slices.Sorted(maps.Keys(wants)) {
		texts := map[string]string{"docs/threats.md": head + row + "\n", "docs/tests.md": "| A1-x | something |\n"}
		got := strings.Join(checkThreats(files, texts), "\n")
		if want := wants[row]; want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", row, got, want)
		}
	}
}
