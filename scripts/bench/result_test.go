//go:build linux

package main

import (
	"bytes"
	"io"
	"math"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRatioIsTheMedianOfTheRoundsRatios(t *testing.T) {
	r := new(result)
	// Who is compared by medians alone would say 2: the machine was slower in the second round.
	for round, v := range [][2]float64{{3, 1}, {20, 10}, {4, 2}} {
		r.add("hawser", "m", round, v[0])
		r.add(unit, "m", round, v[1])
	}
	r.add("hawser", "m", 9, 1000) // without its pair it counts for the median alone
	if got := r.ratio("hawser", "m", unit); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := r.median("hawser", "m"); got != 12 {
		t.Errorf("median %v, want 12", got)
	}
	if !math.IsNaN(r.median("nobody", "m")) || !math.IsNaN(r.ratio("hawser", "m", "nobody")) {
		t.Error("what was not measured has a figure")
	}
}

func TestResultSurvivesItsFile(t *testing.T) {
	r := &result{Date: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Machine: "m", Versions: map[string]string{"go": "1"}}
	r.add("hawser", "down 1 MB/s", 1, 7)
	r.missing("chisel", "is not on this machine\nand more")
	r.missing("chisel", "is not on this machine")
	file := filepath.Join(t.TempDir(), "new", "bench.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	got, err := load(file)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	if tables := got.tables(); strings.Count(tables, "| chisel | is not on this machine |") != 1 || !strings.Contains(tables, "| hawser | –") {
		t.Errorf("tables:\n%s", tables)
	}
}

func TestGoalsSayWhatIsHeld(t *testing.T) {
	r := new(result)
	for system, v := range map[string]float64{"hawser": 3, unit: 5, "floor proxy": 1} {
		r.add(system, "down 1 CPU s/GiB", 1, v)
		r.add(system, "down 1 relay CPU s/GiB", 1, v)
	}
	r.add("hawser", "one stream over 300ms Mbit/s", 1, 91)
	for _, want := range []string{
		"| CPU of a byte × frp, 1 stream | at most 0.70 | 0.60 | held |",
		"| relay × a proxy that splices, 1 stream | at most 1.30 | 3.00 | missed |",
		"| one stream at 300 ms, Mbit/s of 100 | at least 90.0 | 91.0 | held |",
	} {
		if table := r.goalTable(); !strings.Contains(table, want) {
			t.Errorf("no line %q in\n%s", want, table)
		}
	}
}

func TestTablesGoBetweenTheMarks(t *testing.T) {
	text := "before\n" + markBegin + "\nold\n" + markEnd + "\nafter\n"
	got, err := between(text, "\nnew\n")
	if want := "before\n" + markBegin + "\n\nnew\n\n" + markEnd + "\nafter\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if again, err := between(got, "new"); err != nil || again != got {
		t.Errorf("a second time: %q, %v", again, err)
	}
	for _, text := range []string{"", markBegin, markEnd + markBegin} {
		if _, err := between(text, "new"); err == nil {
			t.Errorf("%q was taken for a document with marks", text)
		}
	}
}

func TestBenchmarkLineIsRead(t *testing.T) {
	name, figures, ok := parseBenchmark("BenchmarkDecide/3_relays-2 \t 423351\t 3052 ns/op\t 1616 B/op\t 16 allocs/op")
	if want := map[string]float64{"ns/op": 3052, "B/op": 1616, "allocs/op": 16}; !ok || name != "Decide/3_relays" || !reflect.DeepEqual(figures, want) {
		t.Errorf("%q %v %v", name, figures, ok)
	}
	for _, line := range []string{"", "PASS", "ok  \thawser/x\t0.1s", "BenchmarkX-2", "BenchmarkX-2 1 a ns/op"} {
		if _, _, ok := parseBenchmark(line); ok {
			t.Errorf("%q was taken for a benchmark", line)
		}
	}
}

func TestCountOfATestIsRead(t *testing.T) {
	name, value, ok := parseAttribute("=== ATTR  " + carryTest + " count allocations per MiB carried=1991")
	if !ok || name != "allocations per MiB carried" || value != 1991 {
		t.Errorf("%q %v %v", name, value, ok)
	}
	for _, line := range []string{"", "=== ATTR  TestOther count a=1", "=== ATTR  " + carryTest + " count a", "=== ATTR  " + carryTest + " id A=1"} {
		if _, _, ok := parseAttribute(line); ok {
			t.Errorf("%q was taken for a count", line)
		}
	}
}

func TestCommandLineIsChecked(t *testing.T) {
	for _, args := range [][]string{{"-parts", "near,nowhere"}, {"-devices", "many"}, {"-devices", "0"}, {"nonsense"}, {"write", "-json", "/nonexistent"}} {
		if code := run(args, io.Discard, io.Discard); code == 0 {
			t.Errorf("bench %q ended with 0", args)
		}
	}
	var help bytes.Buffer
	if code := run([]string{"-h"}, io.Discard, &help); code != 0 || !strings.Contains(help.String(), "near,line,keys") {
		t.Errorf("help: %d %s", code, &help)
	}
}

// The models are what everything is held against: each carries bytes both ways, and ends.
func TestFloorCarries(t *testing.T) {
	certs := filepath.Join(t.TempDir(), "certs")
	if err := makeCertificates(certs); err != nil {
		t.Fatal(err)
	}
	client, err := tlsConfig(certs, "client")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back := serveBackend(l)
	defer back.close()
	relay := &floorRelay{waiting: map[[16]byte]net.Conn{}}
	middle, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer middle.Close()
	go func() { // ends with the test
		for {
			c, err := middle.Accept()
			if err != nil {
				return
			}
			go relay.serve(c)
		}
	}()
	go floorAgent(middle.Addr().String(), back.addr(), certs)
	tun := &tunnel{dial: func() (net.Conn, error) {
		here, there := net.Pipe()
		go floorStream(there, middle.Addr().String(), client)
		return here, nil
	}}
	if err := tun.works(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := tun.pings(10, 0)
	if err != nil || len(d) != 10 {
		t.Errorf("%d round trips, %v", len(d), err)
	}
}
