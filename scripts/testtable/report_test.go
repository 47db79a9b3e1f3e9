package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// run feeds one stream through a report that promises ids.
func run(t *testing.T, stream string, ids ...string) (text string, ok bool) {
	t.Helper()
	var out strings.Builder
	r := newReport(&out, ids)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	ok = r.finish()
	return out.String(), ok
}

// one is the shortest good stream: one package, one test that carries K5.
const one = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"id","Value":"K5"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: a word\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":0.5}
`

func TestReportOfAGoodRun(t *testing.T) {
	text, ok := run(t, one, "K5")
	if !ok {
		t.Errorf("a good run is refused:\n%s", text)
	}
	for _, want := range []string{"ok    p ", "500ms", "1 tests", "K5      | 1     | ok", "\n1 passed, 0 failed\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "a word") {
		t.Errorf("a passing test's output is printed:\n%s", text)
	}
}

func TestReportSaysWhereTheTimeWent(t *testing.T) {
	stream := strings.ReplaceAll(one, `"pass","Package":"p","Test":"TestA"`, `"pass","Package":"p","Test":"TestA","Elapsed":2.5`) +
		`{"Action":"pass","Package":"p","Test":"TestA/part","Elapsed":2}
{"Action":"pass","Package":"p","Test":"TestB","Elapsed":61}
{"Action":"step","Test":"go test","Elapsed":65,"CPU":90}
{"Action":"step","Test":"lint","Elapsed":5,"CPU":8}
`
	text, _ := run(t, stream, "K5")
	_, text, _ = strings.Cut(text, "step")
	for _, want := range []string{"wall    CPU\n", "go test   1m5s  1m30s\n", "lint     5s     8s\n", "all  1m10s  1m38s\n",
		"slowest tests\n    1m1s  p TestB\n    2.5s  p TestA\n\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q:\n%s", want, text)
		}
	}
}

// TestReportTurnsRed takes the good stream and breaks one thing in each row.
func TestReportTurnsRed(t *testing.T) {
	swap := func(old, new string) string {
		if !strings.Contains(one, old) {
			t.Fatalf("the good stream lacks %q", old)
		}
		return strings.Replace(one, old, new, 1)
	}
	const pass = `"pass","Package":"p","Test":"TestA"`
	attr := func(key, value string) string {
		return swap(`{"Action":`+pass, `{"Action":"attr","Package":"p","Test":"TestA","Key":"`+key+`","Value":"`+value+`"}`+"\n"+`{"Action":`+pass)
	}
	for _, tt := range []struct{ name, stream, ids, want string }{
		{"a test fails", swap(pass, `"fail","Package":"p","Test":"TestA"`), "K5", "a word"},
		{"a test is skipped", swap(pass, `"skip","Package":"p","Test":"TestA"`), "K5", "p TestA (skip)"},
		{"the process dies in a test", swap(`{"Action":`+pass+"}\n"+`{"Action":"pass","Package":"p","Elapsed":0.5}`, `{"Action":"fail","Package":"p"}`), "K5", "did not end: p TestA"},
		{"the stream is cut", swap(`{"Action":"pass","Package":"p","Elapsed":0.5}`, ""), "K5", "p (began and never ended)"},
		{"nothing ran", "", "K5", "no package was tested"},
		{"a promised id has no test", one, "K5 K6", "K6      | 0     | FAIL: no case ran"},
		{"a test carries an id nobody promised", one, "K6", "K5: carried by a test, and promised nowhere"},
		{"a test stands for no case", attr("cases", "0"), "K5", "K5      | 0     | FAIL: no case ran"},
		{"cases is no number", attr("cases", "many"), "K5", `attribute cases is "many"`},
		{"count is no number", attr("count", "cuts=many"), "K5", "want what=number"},
		{"a check fails", one + `{"Action":"check","Test":"size","ID":"A1-size","Note":"9 MiB"}` + "\n", "K5 A1-size", "A1-size | 0     | FAIL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, ok := run(t, tt.stream, strings.Fields(tt.ids)...)
			if ok || strings.Contains(text, ", 0 failed") {
				t.Errorf("the run passes:\n%s", text)
			}
			if !strings.Contains(text, tt.want) {
				t.Errorf("output lacks %q:\n%s", tt.want, text)
			}
		})
	}
}

func TestCasesAndCountsAreSummedOverPackages(t *testing.T) {
	more := strings.Replace(one, `"Value":"K5"}`, `"Value":"K5"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"cases","Value":"12"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"count","Value":"replies spoofed=1000000"}`, 1)
	text, ok := run(t, more+strings.ReplaceAll(more, `"p"`, `"q"`)+one, "K5")
	if !ok {
		t.Errorf("the run fails:\n%s", text)
	}
	for _, want := range []string{"K5      | 25    | ok", "replies spoofed 2000000"} {
		if !strings.Contains(text, want) {
			t.Errorf("output lacks %q:\n%s", want, text)
		}
	}
}

func TestForeignLinesPassThrough(t *testing.T) {
	text, ok := run(t, "a tool speaks\n{ not json\n"+one+"last words", "K5")
	if !ok || !strings.HasPrefix(text, "a tool speaks\n{ not json\n") || !strings.Contains(text, "last words") {
		t.Errorf("ok = %v, output:\n%s", ok, text)
	}
}

// TestRecordedRun holds the reader against what the go command really wrote for one good package, one that does not
// build, one whose process exits in a test, a failing subtest and a skip.
func TestRecordedRun(t *testing.T) {
	stream, err := os.ReadFile(filepath.Join("testdata", "mixed.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "mixed.golden"))
	if err != nil {
		t.Fatal(err)
	}
	text, ok := run(t, string(stream), "A1-bytes", "A1-blind")
	if ok {
		t.Error("a run with failures passes")
	}
	if text != string(want) {
		t.Errorf("output:\n%s\nwant:\n%s", text, want)
	}
}

func TestReadErrorIsReported(t *testing.T) {
	cause := errors.New("pipe broke")
	if err := newReport(&strings.Builder{}, nil).read(iotest.ErrReader(cause)); !errors.Is(err, cause) {
		t.Errorf("read = %v, want %v", err, cause)
	}
}
