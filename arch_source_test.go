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

// TestHouse reads every file once and holds the rules against them.
func TestHouse(t *testing.T) {
	files, texts := sources(t), documents(t)
	for name, rule := range map[string]func([]source) []string{
		"imports follow the table":          checkImports,
		"the table has no row for nothing":  checkTable,
		"every package says its job":        checkPackageDocs,
		"every exported name is documented": checkExportedDocs,
		"files and functions are short":     checkLengths,
		"skipped verification is replaced":  checkVerification,
		"goroutines have an owner":          checkGoroutines,
		"nothing runs before main":          checkInit,
		"tests do not sleep in real time":   checkSleep,
		"cited sections of the spec exist":  func(files []source) []string { return checkCitations(files, texts) },
		"words are plain":                   func(files []source) []string { return checkWords(files, texts) },
		"documents wrap at 120 columns":     func([]source) []string { return checkWidth(texts) },
		"claims about threats are shown":    func(files []source) []string { return checkThreats(files, texts) },
		"metrics and their page agree":      func(files []source) []string { return checkMetrics(files, texts) },
		"README names the folders":          func(files []source) []string { return checkFolders(files, texts) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range rule(files) {
				t.Error(c)
			}
		})
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
