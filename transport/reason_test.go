package transport_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hawser/transport"
)

// The constants of reason.go are the words of wire §7, each once and in the same order.
func TestReasonsAreThoseOfTheSpecification(t *testing.T) {
	spec, err := os.ReadFile("../docs/spec/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(spec), "\n## 7. Reasons\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\|").FindAllStringSubmatch(table, -1) {
		want = append(want, row[1])
	}
	if got := reasons(t); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("reason.go has %q\nwire §7 has %q", got, want)
	}
}

// A reason that is added without a class would end a program with the wrong exit code.
func TestEveryReasonHasItsClass(t *testing.T) {
	for _, word := range reasons(t) {
		if transport.Reason(word).Class() == transport.ClassNone {
			t.Errorf("%s has no class", word)
		}
	}
	for _, r := range []transport.Reason{"", "never-heard-of"} {
		if got := r.Class(); got != transport.ClassNone {
			t.Errorf("%q has class %d", r, got)
		}
	}
}

// reasons lists the constants of reason.go, in their order.
func reasons(t *testing.T) (words []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Reason" {
			return true
		}
		for _, v := range spec.Values {
			word, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, word)
		}
		return true
	})
	return words
}
