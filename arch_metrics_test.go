package hawser_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// metricName matches a metric of ours; what follows of its name and labels is left out.
var metricName = regexp.MustCompile(`\bhawser_[a-z0-9_]*[a-z0-9]`)

// described matches a row of docs/metrics.md that says what a metric counts.
var described = regexp.MustCompile("(?m)^\\| `(hawser_[a-z0-9_]+)(?:\\{[a-z]+\\})?` \\|")

// ofHistogram is what a histogram's name gets behind it.
var ofHistogram = regexp.MustCompile(`_(bucket|sum|count)$`)

// checkMetrics holds docs/metrics.md against the names in the server's source: each that is exported is described once,
// and what is described or used in an alert is exported.
func checkMetrics(files []source, texts map[string]string) (complaints []string) {
	exported := exportedMetrics(files)
	page, rows := texts["docs/metrics.md"], map[string]int{}
	for _, m := range described.FindAllStringSubmatch(page, -1) {
		rows[m[1]]++
	}
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		if rows[name] != 1 {
			complaints = append(complaints, fmt.Sprintf("%s: docs/metrics.md describes %s %d times, want once", exported[name], name, rows[name]))
		}
	}
	return append(complaints, unknownMetrics("docs/metrics.md", page, exported)...)
}

// exportedMetrics finds the names of metrics in string literals of the server, and where they stand.
func exportedMetrics(files []source) map[string]string {
	names := map[string]string{}
	for _, f := range files {
		if f.isTest() || f.dir() != "server" && !strings.HasPrefix(f.dir(), "server/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(lit.Value); err == nil {
				if name := metricName.FindString(text); name != "" && strings.HasPrefix(text, name) {
					names[name] = f.at(lit.Pos())
				}
			}
			return true
		})
	}
	return names
}

// unknownMetrics finds names in a text that no server exports.
func unknownMetrics(where, text string, exported map[string]string) (complaints []string) {
	unknown := map[string]bool{}
	for _, name := range metricName.FindAllString(text, -1) {
		if exported[name] == "" && exported[ofHistogram.ReplaceAllString(name, "")] == "" {
			unknown[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		complaints = append(complaints, fmt.Sprintf("%s: no server exports %s", where, name))
	}
	return complaints
}

// TestDashboardShowsWhatServersExport: Grafana draws an empty panel for a name that does not exist, and says nothing.
func TestDashboardShowsWhatServersExport(t *testing.T) {
	text, err := os.ReadFile("docs/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	exported := exportedMetrics(sources(t))
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if !metricName.MatchString(target.Expr) && !strings.HasPrefix(target.Expr, "process_") {
				t.Errorf("panel %q: %q names no metric", p.Title, target.Expr)
			}
			for _, c := range unknownMetrics("panel "+p.Title, target.Expr, exported) {
				t.Error(c)
			}
		}
	}
	if len(dashboard.Panels) == 0 || len(exported) == 0 {
		t.Errorf("%d panels, %d metrics: this test no longer finds what it compares", len(dashboard.Panels), len(exported))
	}
}

// TestMetricsRuleBites shows the rule complaining of each kind of difference.
func TestMetricsRuleBites(t *testing.T) {
	files := one(t, "server/a.go", "package server\nvar a, b = `hawser_a_total{x=\"y\"}`, \"hawser_b_seconds\"\n")
	const row = "| `hawser_a_total{x}` | all |\n| `hawser_b_seconds` | b |\n"
	for name, tt := range map[string]struct{ page, want string }{
		"agree":            {row + "`rate(hawser_a_total[5m])`, `hawser_b_seconds_bucket`", ""},
		"not described":    {strings.TrimPrefix(row, "| `hawser_a_total{x}` | all |\n"), "describes hawser_a_total 0 times"},
		"described twice":  {row + "| `hawser_b_seconds` | again |\n", "describes hawser_b_seconds 2 times"},
		"alert of nothing": {row + "`hawser_c > 0`", "no server exports hawser_c"},
	} {
		got := strings.Join(checkMetrics(files, map[string]string{"docs/metrics.md": tt.page}), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
