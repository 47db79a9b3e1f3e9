// Package hawser_test keeps the house in order: who may import whom, what the agent may be made of, and the habits that
// every file follows. Each rule is a function from source files to complaints, and arch_rules_test.go shows each of them
// complaining, so that a rule that no longer bites is noticed.
package hawser_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the import table of the house. A row covers a folder and its sub-packages up to the next longer row;
// inside a row everybody may import everybody. What is not here may not be imported.
var mayImport = map[string][]string{
	"cmd/hawser-agent":    {"agent", "board", "probe", "internal/answer", "internal/cli", "internal/cli/netcheckcmd", "internal/provision", "internal/version"},
	"cmd/hawser":          {"manager", "identity", "probe", "transport/api", "internal/answer", "internal/cli", "internal/cli/netcheckcmd", "internal/version"},
	"cmd/hawser-server":   {"server", "internal/answer", "internal/cli", "internal/version"},
	"agent":               {"board", "identity", "probe", "transport", "internal/credential", "internal/answer", "internal/owner", "internal/provision", "internal/strictyaml"},
	"manager":             {"identity", "probe", "transport", "transport/api", "internal/credential", "internal/answer", "internal/owner", "internal/provision"},
	"board":               {},
	"server":              {"server/access", "server/count", "server/gate", "server/relay", "server/store", "identity", "transport", "internal/credential", "internal/answer", "internal/strictyaml"},
	"server/access":       {"server/choose", "server/count", "server/gate", "server/grant", "server/store", "identity", "transport", "transport/api"},
	"server/relay":        {"server/count", "server/gate", "server/grant", "identity", "transport", "internal/credential"},
	"server/count":        {"transport", "transport/api"},
	"server/choose":       {"identity", "transport", "transport/api"},
	"server/gate":         {},
	"server/grant":        {"identity", "transport"},
	"server/store":        {"server/count", "identity", "transport", "transport/api"},
	"probe":               {"identity", "transport"},
	"transport":           {"identity"},
	"transport/api":       {"identity", "transport"},
	"identity":            {}, // and nothing but the standard library: it is what everything else trusts
	"internal/credential": {"identity"},
	"internal/answer":     {"identity", "transport"},
	"internal/cli":        {"internal/answer", "internal/durable", "internal/version"},
	"internal/cli/netcheckcmd": {"identity", "probe", "transport", "internal/answer", "internal/cli", "internal/credential",
		"internal/provision", "internal/version"},
	"internal/provision":  {"identity", "transport", "internal/strictyaml"},
	"internal/durable":    {},
	"internal/memnet":     {},
	"internal/owner":      {"identity"},
	"internal/soak":       {},
	"internal/strictyaml": {},
	"internal/thieftest":  {"identity", "internal/credential", "server/grant", "server/store", "transport", "transport/api"},
	"internal/version":    {},
	"internal/wait":       {},
}

// free folders may import anything of ours, and nobody may import them.
var free = []string{"internal/e2e", "scripts"}

// anywhere lists what everybody may import, except identity: the ways to write a file and to wait.
var anywhere = []string{"internal/durable", "internal/wait"}

// libraries are the modules that a program may import directly: one for each kind of thing.
var libraries = []string{
	"github.com/beevik/ntp", "github.com/miekg/dns", "github.com/kardianos/service", "gopkg.in/yaml.v3",
	"github.com/spf13/cobra", "golang.org/x",
	"github.com/golang-jwt/jwt/v5",
	"modernc.org/sqlite", "github.com/jackc/pgx/v5", "filippo.io/age",
	"github.com/VictoriaMetrics/metrics",
}

// testLibraries are added for tests and for the free folders.
var testLibraries = []string{
	"github.com/rogpeppe/go-internal", "github.com/google/go-cmp", "github.com/simonvetter/modbus",
}

// agentModules is everything that may end up in the agent, which has to fit the flash of an ARM router (A1-size). Each is
// there for one reason: SNTP, DNS, the service manager, the configuration, the streams of a session, the command line
// (cobra with its flags, and its guard against a double click on Windows).
var agentModules = []string{
	"hawser", "github.com/beevik/ntp", "github.com/miekg/dns", "github.com/kardianos/service", "gopkg.in/yaml.v3",
	"github.com/spf13/cobra", "github.com/spf13/pflag",
	"github.com/inconshreveable/mousetrap", "golang.org/x",
}

// checkTable: a row for a folder that is gone would hide a rename.
func checkTable(files []source) (complaints []string) {
	dirs := map[string]bool{}
	for _, f := range files {
		dirs[rowOf(f.dir())] = true
	}
	for row := range mayImport {
		if !dirs[row] {
			complaints = append(complaints, fmt.Sprintf("the import table has a row %q, and no Go file lives there", row))
		}
	}
	return complaints
}

// TestAgentIsMadeOfLittle reads the agent's whole dependency closure, for each system it runs on.
func TestAgentIsMadeOfLittle(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
		t.Run(goos, func(t *testing.T) {
			for _, c := range checkAgent(closure(t, goos, "./cmd/hawser-agent")) {
				t.Error(c)
			}
		})
	}
}

// checkImports compares every file's imports with the table, whatever its build constraints.
func checkImports(files []source) (complaints []string) {
	for _, f := range files {
		for _, spec := range f.ast.Imports {
			if why := refuse(f, importPath(spec)); why != "" {
				complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", f.path, importPath(spec), why))
			}
		}
	}
	return complaints
}

// refuse says why f must not import p, or nothing.
func refuse(f source, p string) string {
	forTests := f.isTest() || isTestPackage(f.dir())
	from := rowOf(f.dir())
	ours, inHouse := strings.CutPrefix(p, "hawser/")
	switch {
	case !inHouse:
		return refuseModule(f, from, p, forTests)
	case from == "":
		return "the folder of the importing file has no row in the import table"
	case rowOf(ours) == from:
		return ""
	case rowOf(ours) == "":
		return "the imported folder has no row in the import table"
	case slices.Contains(free, rowOf(ours)):
		return "nobody imports a folder that may import everything"
	case slices.Contains(free, from):
		return ""
	case isTestPackage(ours) && !forTests:
		return "a package for tests belongs in test files"
	case slices.Contains(anywhere, ours) && from != "identity":
		return ""
	case ours == "internal/memnet" || ours == "internal/soak":
		if forTests {
			return ""
		}
		return "what only tests use belongs in test files"
	case !slices.Contains(mayImport[from], rowOf(ours)):
		return fmt.Sprintf("%s may import %v", from, mayImport[from])
	}
	return ""
}

// refuseModule judges an import from outside the house. The first element of a module path has a dot, that of the
// standard library never has.
func refuseModule(f source, from, p string, forTests bool) string {
	first, _, _ := strings.Cut(p, "/")
	outside := strings.Contains(first, ".")
	switch {
	case !forTests && (p == "math/rand" || p == "math/rand/v2"):
		return "what is random here guards something: crypto/rand"
	case !outside:
		return ""
	case from == "identity" && !f.isTest():
		return "identity is pure: the standard library only"
	case under(p, libraries) || (forTests || slices.Contains(free, from)) && under(p, testLibraries):
		return ""
	}
	return "not among the libraries of the house: each kind of thing has one, and a new one is argued for in its commit"
}

// rowOf gives the longest row of the table, or free folder, that covers a folder; "" when none does. The root, where
// only these tests live, counts as free.
func rowOf(dir string) string {
	if dir == "." {
		return free[0]
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := mayImport[dir]; ok || slices.Contains(free, dir) {
			return dir
		}
	}
	return ""
}

// isTestPackage: packages such as probe/probetest exist for other packages' tests.
func isTestPackage(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }

// under says whether import path p belongs to one of the modules.
func under(p string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") })
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // the parser lets no such file through
	}
	return p
}

// dependency is one package of a closure, as `go list` tells it.
type dependency struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// closure lists a program and everything it is built from on goos.
func closure(t *testing.T, goos, program string) []dependency {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Standard,Module", program)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=arm64", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s for %s: %v\n%s", program, goos, err, &stderr)
	}
	var deps []dependency
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var d dependency
		if err := dec.Decode(&d); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatalf("read go list %s: %v", program, err)
		}
		deps = append(deps, d)
	}
}

// checkAgent holds a closure against agentModules, and net/http out of it.
func checkAgent(deps []dependency) (complaints []string) {
	foreign := map[string]bool{}
	for _, d := range deps {
		if !d.Standard && (d.Module == nil || !under(d.Module.Path, agentModules)) {
			foreign[d.ImportPath] = true
		}
		if slices.Contains(d.Imports, "net/http") {
			complaints = append(complaints, d.ImportPath+" brings net/http into the agent: 0.9 MiB of its 8, and nothing in it speaks HTTP")
		}
	}
	for _, p := range slices.Sorted(maps.Keys(foreign)) {
		complaints = append(complaints, "the agent contains "+p+", which is not among the modules it is made of")
	}
	return complaints
}
