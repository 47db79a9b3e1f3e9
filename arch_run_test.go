package hawser_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// mayStart says who may start goroutines. A row covers a folder and its sub-packages up to the next longer row, and what
// has no row may not: a package that only computes stays one, and each goroutine has an owner that waits for it.
var mayStart = map[string]bool{
	"agent": true, "manager": true, "probe": true, "cmd": true, "board/service": true,
	"server": true, "server/grant": false,
	"transport": true, "transport/api": false, "transport/wire": false,
	"internal/memnet": true, "internal/cli": true,
}

// checkGoroutines finds go statements, and calls of a method Go, where nobody is there to wait.
func checkGoroutines(files []source) (complaints []string) {
	for _, f := range files {
		if f.isTest() || isTestPackage(f.dir()) || slices.Contains(free, rowOf(f.dir())) || starts(f.dir()) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok || isCall(n, "", "Go") {
				complaints = append(complaints, f.at(n.Pos())+": a goroutine in a package that starts none; see mayStart")
			}
			return true
		})
	}
	return complaints
}

func starts(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if may, ok := mayStart[dir]; ok {
			return may
		}
	}
	return false
}

// checkInit finds what runs, or is changed, behind everybody's back: init functions, and variables of a package that
// have no value until somebody sets it.
func checkInit(files []source) (complaints []string) {
	for _, f := range files {
		if f.isTest() {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					complaints = append(complaints, f.at(d.Pos())+": init runs before main, and no test can do without it")
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.VAR && len(v.Values) == 0 && !embedded(d, v) {
						complaints = append(complaints, fmt.Sprintf("%s: %s is a variable of the whole program", f.at(v.Pos()), v.Names[0].Name))
					}
				}
			}
		}
	}
	return complaints
}

func embedded(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
			return true
		}
	}
	return false
}

// checkSleep wants tests that sleep to do it in bubbles, where it takes no time and is exact.
func checkSleep(files []source) (complaints []string) {
	bubbles := map[string]bool{}
	for _, f := range files {
		for _, spec := range f.ast.Imports {
			if f.isTest() && importPath(spec) == "testing/synctest" {
				bubbles[f.dir()] = true
			}
		}
	}
	for _, f := range files {
		if !f.isTest() || bubbles[f.dir()] {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if isCall(n, "time", "Sleep") {
				complaints = append(complaints, f.at(n.Pos())+": a test that sleeps, in a package whose tests have no bubbles")
			}
			return true
		})
	}
	return complaints
}

// isCall says whether n calls x.name, for any x if x is empty.
func isCall(n ast.Node, x, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return x == "" || ok && id.Name == x
}
