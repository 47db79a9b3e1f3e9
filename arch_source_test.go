package hawser_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	maxFileLines = 500 // a file that is longer has two subjects
	maxFuncLines = 80  // a function that is longer is read by nobody
)

// source is one Go file of the house. Its path is relative to the root, with slashes.
type source struct {
	path string
	text string
	fset *token.FileSet
	ast  *ast.File
}

func (f source) dir() string           { return path.Dir(f.path) }
func (f source) isTest() bool          { return strings.HasSuffix(f.path, "_test.go") }
func (f source) at(p token.Pos) string { return fmt.Sprintf("%s:%d", f.path, f.fset.Position(p).Line) }
func (f source) lines(n ast.Node) int  { return f.line(n.End()) - f.line(n.Pos()) + 1 }
func (f source) line(p token.Pos) int  { return f.fset.Position(p).Line }

// parse makes a source of a file's text.
func parse(path, text string) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{path, text, fset, file}, err
}

// sources reads every Go file of the house: those of other systems and behind build tags as well, which `go list` for
// one system does not see.
func sources(t *testing.T) []source {
	t.Helper()
	var files []source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base == "testdata" || base == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(name), string(text))
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func complain(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}

func TestEveryPackageSaysItsJob(t *testing.T)        { complain(t, checkPackageDocs(sources(t))) }
func TestEveryExportedNameIsDocumented(t *testing.T) { complain(t, checkExportedDocs(sources(t))) }
func TestFilesAndFunctionsAreShort(t *testing.T)     { complain(t, checkLengths(sources(t))) }
func TestSkippedVerificationIsReplaced(t *testing.T) { complain(t, checkVerification(sources(t))) }
func TestCitedSectionsOfTheSpecExist(t *testing.T) {
	files := sources(t)
	headings := specHeadings(t)
	complain(t, checkCitations(files, headings))
	if len(citations(files)) == 0 {
		t.Error("no file cites docs/spec: this test no longer finds what it checks")
	}
}

// checkPackageDocs wants exactly one package comment for each folder; where there are only tests, theirs counts.
func checkPackageDocs(files []source) (complaints []string) {
	onlyTests := map[string]bool{}
	for _, f := range files {
		if _, ok := onlyTests[f.dir()]; !ok || !f.isTest() {
			onlyTests[f.dir()] = f.isTest()
		}
	}
	docs := map[string][]string{}
	for _, f := range files {
		if f.isTest() && !onlyTests[f.dir()] || strings.TrimSpace(f.ast.Doc.Text()) == "" {
			continue
		}
		docs[f.dir()] = append(docs[f.dir()], f.path)
		if want := "Package " + f.ast.Name.Name + " "; f.ast.Name.Name != "main" && !strings.HasPrefix(f.ast.Doc.Text(), want) {
			complaints = append(complaints, fmt.Sprintf("%s: the package comment does not begin with %q", f.path, want))
		}
	}
	for dir := range onlyTests {
		if n := len(docs[dir]); n != 1 {
			complaints = append(complaints, fmt.Sprintf("%s: %d package comments %v, want one that says its job", dir, n, docs[dir]))
		}
	}
	return complaints
}

// checkExportedDocs wants a comment on each exported function, method of an exported type, type, constant and variable.
// A group's comment covers its members.
func checkExportedDocs(files []source) (complaints []string) {
	for _, f := range files {
		if f.isTest() {
			continue
		}
		for _, decl := range f.ast.Decls {
			for _, name := range undocumented(decl) {
				complaints = append(complaints, fmt.Sprintf("%s: %s is exported and has no comment", f.at(name.Pos()), name.Name))
			}
		}
	}
	return complaints
}

func undocumented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc.Text() == "" && d.Name.IsExported() && (d.Recv == nil || receiverExported(d.Recv.List[0].Type)) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			names = append(names, undocumentedSpec(spec, d.Doc.Text() != "")...)
		}
	}
	return names
}

func undocumentedSpec(spec ast.Spec, group bool) (names []*ast.Ident) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && !group && s.Doc.Text() == "" {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && !group && s.Doc.Text() == "" && s.Comment.Text() == "" {
				names = append(names, name)
			}
		}
	}
	return names
}

func receiverExported(t ast.Expr) bool {
	switch x := t.(type) {
	case *ast.StarExpr:
		return receiverExported(x.X)
	case *ast.IndexExpr:
		return receiverExported(x.X)
	case *ast.IndexListExpr:
		return receiverExported(x.X)
	case *ast.Ident:
		return x.IsExported()
	}
	return false
}

// checkLengths measures files and functions; tests may be long, since tables are.
func checkLengths(files []source) (complaints []string) {
	for _, f := range files {
		if f.isTest() {
			continue
		}
		if n := strings.Count(f.text, "\n"); n > maxFileLines {
			complaints = append(complaints, fmt.Sprintf("%s: %d lines, at most %d", f.path, n, maxFileLines))
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.FuncDecl, *ast.FuncLit:
				if many := f.lines(n); many > maxFuncLines {
					complaints = append(complaints, fmt.Sprintf("%s: a function of %d lines, at most %d", f.at(n.Pos()), many, maxFuncLines))
				}
			}
			return true
		})
	}
	return complaints
}

// checkVerification: our links verify against our own roots in VerifyConnection, for which crypto/tls wants its own
// verification switched off. A literal that does only the second half would trust everybody.
func checkVerification(files []source) (complaints []string) {
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if ok && hasKey(lit, "InsecureSkipVerify") && !hasKey(lit, "VerifyConnection") && !f.isTest() {
				complaints = append(complaints, f.at(lit.Pos())+": InsecureSkipVerify without VerifyConnection in the same literal")
			}
			return true
		})
	}
	return complaints
}

func hasKey(lit *ast.CompositeLit, key string) bool {
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == key {
				return true
			}
		}
	}
	return false
}

var (
	// citation matches "wire §4.2" and "docs/spec/wire.md §4.2".
	citation = regexp.MustCompile(`\b(wire|identity|access|cli|time|names)(?:\.md)? §([0-9]+(?:\.[0-9]+)*)`)
	// heading matches "## 4 Frames", "## §4 Frames", "### 4.2. Hello".
	heading = regexp.MustCompile(`(?m)^#{2,4} §?([0-9]+(?:\.[0-9]+)*)\.?\s`)
)

// citations maps "wire §4.2" to the first place that says so.
func citations(files []source) map[string]string {
	found := map[string]string{}
	for _, f := range files {
		if f.dir() == "." { // these tests cite by way of example
			continue
		}
		for i, line := range strings.Split(f.text, "\n") {
			for _, m := range citation.FindAllStringSubmatch(line, -1) {
				key := m[1] + " §" + m[2]
				if _, ok := found[key]; !ok {
					found[key] = fmt.Sprintf("%s:%d", f.path, i+1)
				}
			}
		}
	}
	return found
}

// checkCitations looks each citation up among the headings.
func checkCitations(files []source, headings map[string]bool) (complaints []string) {
	for cited, where := range citations(files) {
		if !headings[cited] {
			name, section, _ := strings.Cut(cited, " §")
			complaints = append(complaints, fmt.Sprintf("%s: cites %s, and docs/spec/%s.md has no heading numbered %s", where, cited, name, section))
		}
	}
	return complaints
}

// specHeadings reads the numbered headings of docs/spec as "wire §4.2".
func specHeadings(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("docs/spec/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("docs/spec holds %d documents (%v)", len(files), err)
	}
	headings := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
			headings[name+" §"+m[1]] = true
		}
	}
	return headings
}
