package hawser_test

import (
	"strings"
	"testing"
)

// TestRulesBite gives each rule a small source that breaks it, and the same source mended: the first must draw the
// complaint, the second none.
func TestRulesBite(t *testing.T) {
	texts := map[string]string{"docs/spec/wire.md": "# Wire\n## 4.2 Hello\n"}
	citations := func(files []source) []string { return checkCitations(files, texts) }
	var long = strings.Repeat("\n", maxFuncLines)
	for _, tt := range []struct {
		name      string
		rule      func([]source) []string
		path      string
		bad, good string
		want      string
	}{
		{"import against the table", checkImports, "identity/a.go", importing("hawser/transport"), importing("crypto/x509"), "identity may import []"},
		{"import up", checkImports, "transport/wire/a.go", importing("hawser/agent"), importing("hawser/transport/session"), "transport may import [identity]"},
		{"import between roles", checkImports, "server/access/a.go", importing("hawser/server/relay"), importing("hawser/server/grant"), "server/access may import"},
		{"client imports server", checkImports, "manager/a.go", importing("hawser/server/access"), importing("hawser/probe"), "manager may import"},
		{"folder without a row", checkImports, "util/a.go", importing("hawser/identity"), importing("fmt"), "has no row"},
		{"import of a folder without a row", checkImports, "agent/a.go", importing("hawser/util"), importing("hawser/board"), "imported folder has no row"},
		{"identity is not pure", checkImports, "identity/a.go", importing("gopkg.in/yaml.v3"), importing("encoding/pem"), "identity is pure"},
		{"identity is not durable", checkImports, "identity/a.go", importing("hawser/internal/durable"), importing("io"), "identity may import []"},
		{"import of what may import everything", checkImports, "agent/a_test.go", importing("hawser/internal/e2e"), importing("hawser/internal/durable"), "nobody imports"},
		{"memnet in the product", checkImports, "agent/a.go", importing("hawser/internal/memnet"), importing("net"), "belongs in test files"},
		{"memnet in a test", checkImports, "agent/a_test.go", importing("hawser/server"), importing("hawser/internal/memnet"), "agent may import"},
		{"test package in the product", checkImports, "agent/a.go", importing("hawser/probe/probetest"), importing("hawser/probe"), "belongs in test files"},
		{"a second library", checkImports, "agent/a.go", importing("github.com/BurntSushi/toml"), importing("gopkg.in/yaml.v3"), "each kind of thing has one"},
		{"a library for tests", checkImports, "agent/a.go", importing("github.com/google/go-cmp/cmp"), importing("golang.org/x/sync/errgroup"), "each kind of thing has one"},
		{"math/rand", checkImports, "agent/a.go", importing("math/rand/v2"), importing("crypto/rand"), "crypto/rand"},
		{"no package comment", checkPackageDocs, "a/a.go", "package a\n", "// Package a works.\npackage a\n", "0 package comments"},
		{"package comment of another", checkPackageDocs, "a/a.go", "// Package b works.\npackage a\n", "// Package a works.\npackage a\n", "does not begin with"},
		{"function without comment", checkExportedDocs, "a/a.go", "package a\nfunc F() {}\n", "package a\n// F works.\nfunc F() {}\nfunc g() {}\n", "F is exported"},
		{"method without comment", checkExportedDocs, "a/a.go", "package a\nfunc (*T[A]) M() {}\n", "package a\n// M works.\nfunc (T) M() {}\nfunc (t) M() {}\n", "M is exported"},
		{"type without comment", checkExportedDocs, "a/a.go", "package a\ntype T int\n", "package a\n// T counts.\ntype T int\n", "T is exported"},
		{"constant without comment", checkExportedDocs, "a/a.go", "package a\nconst C = 1\n", "package a\nconst (\n\tC = 1 // C is one.\n)\n", "C is exported"},
		{"long function", checkLengths, "a/a.go", "package a\nfunc f() {" + long + "}\n", "package a\nfunc f() {" + long[1:] + "}\n", "a function of 81 lines"},
		{"long file", checkLengths, "a/a.go", "package a" + strings.Repeat("\n", maxFileLines+1), "package a" + strings.Repeat("\n", maxFileLines), "501 lines"},
		{"nobody verifies", checkVerification, "a/a.go", "package a\nvar c = C{InsecureSkipVerify: true}\n", "package a\nvar c = C{InsecureSkipVerify: true, VerifyConnection: v}\n", "without VerifyConnection"},
		{"goroutine in a pure package", checkGoroutines, "transport/wire/a.go", "package wire\nfunc f() { go f() }\n", "package wire\nfunc f() { f() }\n", "starts none"},
		{"goroutine of a group", checkGoroutines, "server/grant/a.go", "package grant\nfunc f(wg W) { wg.Go(nil) }\n", "package grant\nfunc f(wg W) { wg.Wait() }\n", "starts none"},
		{"init", checkInit, "a/a.go", "package a\nfunc init() {}\n", "package a\nfunc (T) init() {}\n", "runs before main"},
		{"variable of the program", checkInit, "a/a.go", "package a\nvar mu sync.Mutex\n", "package a\nvar (\n\terrA = errors.New(\"a\")\n\t//go:embed a.txt\n\ttext string\n)\n", "of the whole program"},
		{"sleep in real time", checkSleep, "a/a_test.go", "package a\nfunc f() { time.Sleep(1) }\n", "package a\nimport \"testing/synctest\"\nfunc f() { time.Sleep(1) }\n", "no bubbles"},
		{"citation of nothing", citations, "a/a.go", "package a // wire §4.3\n", "package a // wire §4.2, RFC 5905 §7.3\n", "docs/spec/wire.md has no heading numbered 4.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.rule(one(t, tt.path, tt.good)); len(got) > 0 {
				t.Errorf("the mended source is refused: %q", got)
			}
			got := tt.rule(one(t, tt.path, tt.bad))
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("complaints %q, want one with %q", got, tt.want)
			}
		})
	}
}

func TestTableRuleBites(t *testing.T) {
	if got := checkTable(nil); len(got) != len(mayImport) {
		t.Errorf("%d complaints about a house without files, want one for each row", len(got))
	}
}

// TestAgentRuleBites runs the closure rule over a closure that nothing real has.
func TestAgentRuleBites(t *testing.T) {
	type module = struct{ Path string }
	deps := []dependency{
		{ImportPath: "net/http", Standard: true},
		{ImportPath: "golang.org/x/net/ipv4", Module: &module{"golang.org/x/net"}},
		{ImportPath: "hawser/agent", Module: &module{"hawser"}, Imports: []string{"net/http"}},
		{ImportPath: "github.com/jackc/pgx/v5", Module: &module{"github.com/jackc/pgx/v5"}},
	}
	got := checkAgent(deps)
	if len(got) != 2 || !strings.Contains(got[0], "hawser/agent brings net/http") || !strings.Contains(got[1], "pgx") {
		t.Errorf("complaints %q, want one of net/http and one of pgx", got)
	}
	if got := checkAgent(deps[:2]); len(got) != 0 {
		t.Errorf("complaints %q about a good closure", got)
	}
}

// TestDocumentRulesBite is TestRulesBite for the rules about documents.
func TestDocumentRulesBite(t *testing.T) {
	cite := func(line string) int {
		return len(checkCitations(nil, map[string]string{"docs/spec/wire.md": "## 4.2 Hello\n", "docs/spec/late.md": "## 1 First\n", "docs/a.md": line}))
	}
	for line, want := range map[string]int{"wire §4.2": 0, "late.md §1, wire §4.2": 0, "wire §4.3": 1, "late §2": 1, "nothing": 1, "early §3, wire §4.2": 0} {
		if got := cite(line); got != want {
			t.Errorf("%q: %d complaints, want %d", line, got, want)
		}
	}
	for text, want := range map[string]int{"the own clock": 1, "its owner's clock": 0, "all but for one": 1, "all but one": 0, "It shall": 1} {
		inGo := checkWords(one(t, "a/a.go", "package a\n\n// "+text+"\nvar shall = 1\n"), nil)
		if inDocs := checkWords(nil, map[string]string{"docs/a.md": text}); len(inGo) != want || len(inDocs) != want {
			t.Errorf("%q: complaints %q and %q, want %d", text, inGo, inDocs, want)
		}
	}
	for file, want := range map[string]int{"a/a.go": 0, "b/b.go": 2, "a/b/b.go": 2, "cmd/x/x.go": 2, "a/atest/a.go": 1, "a.go": 1} {
		if got := checkFolders(one(t, file, "package a\n"), map[string]string{"README.md": "| `a/` | the first |\n| `docs/` | texts |\n"}); len(got) != want {
			t.Errorf("%s: complaints %q, want %d", file, got, want)
		}
	}
	wide := strings.Repeat("ü", maxColumns+1)
	for text, want := range map[string]int{wide: 1, wide[2:]: 0, "| " + wide: 0, "    " + wide: 0, "```\n" + wide + "\n```": 0, "```\n```\n" + wide: 1} {
		if got := checkWidth(map[string]string{"docs/a.md": text}); len(got) != want {
			t.Errorf("%q: complaints %q, want %d", text, got, want)
		}
	}
}

func TestHeadingsAreFound(t *testing.T) {
	for line, want := range map[string]string{"## 4 Frames": "4", "## §4 Frames": "4", "### 4.2. Hello": "4.2", "# 1 Title": "", "## Frames": "", "#### 4.2.1 X": "4.2.1"} {
		got := ""
		if m := heading.FindStringSubmatch("text\n" + line + "\n"); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("heading of %q = %q, want %q", line, got, want)
		}
	}
}

func importing(path string) string { return "package a\nimport _ \"" + path + "\"\n" }

func one(t *testing.T, path, text string) []source {
	t.Helper()
	f, err := parse(path, text)
	if err != nil {
		t.Fatal(err)
	}
	return []source{f}
}
