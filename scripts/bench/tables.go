//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// The marks between which a document has the tables.
const (
	markBegin = "<!-- bench: begin, written by make bench -->"
	markEnd   = "<!-- bench: end -->"
)

// putInto replaces what is between the marks of a document.
func putInto(file, tables string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	replaced, err := between(string(text), tables)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(replaced), 0o644)
}

func between(text, tables string) (string, error) {
	head, rest, ok := strings.Cut(text, markBegin)
	_, tail, ended := strings.Cut(rest, markEnd)
	if !ok || !ended {
		return "", fmt.Errorf("has no lines %q and %q in this order", markBegin, markEnd)
	}
	return head + markBegin + "\n\n" + strings.TrimSpace(tables) + "\n\n" + markEnd + tail, nil
}

// tables are all that was measured, in Markdown. A table of which nothing was measured is left out.
func (r *result) tables() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, medians of %d rounds.\n", r.Date.Format("2006-01-02"), r.Rounds)
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		versions = append(versions, "| "+name+" | "+r.Versions[name]+" |\n")
	}
	fmt.Fprintf(&b, "\n| what | version |\n|---|---|\n| machine | %s |\n%s", r.Machine, strings.Join(versions, ""))
	for _, t := range []func() string{
		r.costTable, r.latencyTable, r.memoryTable, r.lineTable, r.keysTable, r.openingTable, r.idleTable, r.armTable, r.countTable, r.goalTable,
	} {
		b.WriteString(t())
	}
	if len(r.Missing) > 0 {
		b.WriteString("\n### Not measured\n\n| what | why |\n|---|---|\n")
		for _, a := range r.Missing {
			fmt.Fprintf(&b, "| %s | %s |\n", a.What, strings.ReplaceAll(a.Why, "|", "\\|"))
		}
	}
	return b.String()
}

// column is one of a table whose rows are systems.
type column struct {
	head string
	cell func(system string) string
}

// table has a row for each system of which metric was measured.
func (r *result) table(title, metric string, columns ...column) string {
	names := r.systems(metric)
	if len(names) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n| system |", title)
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.head)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, name := range names {
		fmt.Fprintf(&b, "| %s |", name)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", c.cell(name))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// medians shows several metrics of a system in one cell.
func (r *result) medians(head string, metrics ...string) column {
	return column{head, func(system string) string {
		return cells(metrics, func(m string) float64 { return r.median(system, m) })
	}}
}

// ratios shows them as parts of the unit's.
func (r *result) ratios(head string, metrics ...string) column {
	return column{head, func(system string) string {
		return cells(metrics, func(m string) float64 { return r.ratio(system, m, unit) })
	}}
}

func cells(metrics []string, value func(string) float64) string {
	shown := make([]string, len(metrics))
	for i, m := range metrics {
		shown[i] = figure(value(m))
	}
	return strings.Join(shown, " / ")
}

// figure writes three digits that count.
func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *result) costTable() string {
	const d1, d8, u1, u8 = "down 1 ", "down 8 ", "up 1 ", "up 8 "
	return r.table("What a byte costs: loopback, 1 and 8 streams", d1+"MB/s",
		r.medians("CPU s/GiB down", d1+"CPU s/GiB", d8+"CPU s/GiB"), r.ratios("× "+unit, d1+"CPU s/GiB", d8+"CPU s/GiB"),
		r.medians("CPU s/GiB up", u1+"CPU s/GiB", u8+"CPU s/GiB"), r.ratios("× "+unit, u1+"CPU s/GiB", u8+"CPU s/GiB"),
		r.medians("relay CPU s/GiB", d1+"relay CPU s/GiB", d8+"relay CPU s/GiB"),
		r.ratios("× frps", d1+"relay CPU s/GiB", d8+"relay CPU s/GiB"),
		r.ratios("agent × frpc, down / up", d1+"agent CPU s/GiB", u1+"agent CPU s/GiB"),
		r.medians("MB/s down", d1+"MB/s", d8+"MB/s"), r.ratios("× "+unit, d1+"MB/s", d8+"MB/s"))
}

func (r *result) latencyTable() string {
	p50, p99, opening := "round trip p50 µs", "round trip p99 µs", "stream opening µs"
	return r.table("Round trip of one byte, and opening a stream: loopback", p50,
		r.medians("p50 / p99 µs", p50, p99), r.ratios("× "+unit, p50, p99),
		r.medians("opening µs", opening), r.ratios("× "+unit, opening))
}

func (r *result) memoryTable() string {
	fresh, after := "agent RSS fresh MiB", "agent RSS after MiB"
	return r.table("Resident memory, fresh and after all loads", "relay RSS fresh MiB",
		r.medians("agent MiB", fresh, after), r.ratios("× frpc", fresh, after),
		r.medians("relay MiB", "relay RSS fresh MiB", "relay RSS after MiB"),
		r.ratios("× frps", "relay RSS fresh MiB", "relay RSS after MiB"))
}

func (r *result) lineTable() string {
	var metrics []string
	for _, rtt := range lineRates {
		metrics = append(metrics, fmt.Sprintf("one stream over %v Mbit/s", rtt))
	}
	return r.table("One stream on a line of 100 Mbit/s to the gateway", metrics[0],
		r.medians("Mbit/s at 50 / 100 / 300 ms of round trip", metrics...))
}

func (r *result) keysTable() string {
	var columns []column
	for _, where := range []string{"technician", "gateway"} {
		columns = append(columns, r.medians("slow line at the "+where+": median / p99 ms", keysMetric(where, "median ms"), keysMetric(where, "p99 ms")),
			r.medians("download KB/s", keysMetric(where, "download KB/s")))
	}
	return r.table("A keystroke beside a download that fills 100 KB/s of 50 ms", keysMetric("technician", "median ms"), columns...)
}

func (r *result) openingTable() string {
	var columns []column
	for _, o := range openings {
		columns = append(columns, r.medians(o.name+": round trips / ms at 50 ms", o.name+" opening, round trips", o.name+" opening over 50 ms, ms"))
	}
	return r.table("Openings in round trips of one line, of which there are two", openings[0].name+" opening, round trips", columns...)
}

// idleTable has a row for each figure of Hawser's that has no peer here.
func (r *result) idleTable() string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, s := range r.Samples {
		known := strings.Contains(s.Metric, "idle") || strings.Contains(s.Metric, "sessions") || strings.Contains(s.Metric, "devices") ||
			strings.Contains(s.Metric, "technician's program")
		if s.System != "hawser" || !known || seen[s.Metric] {
			continue
		}
		seen[s.Metric] = true
		fmt.Fprintf(&b, "| %s | %s |\n", s.Metric, figure(r.median(s.System, s.Metric)))
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n### Hawser with many devices and sessions\n\n| what | figure |\n|---|---|\n" + b.String()
}

const (
	onARM    = "agent ARMv7 in QEMU"
	onNative = "agent amd64"
)

func (r *result) armTable() string {
	down, up := "down 1 agent CPU s/GiB", "up 1 agent CPU s/GiB"
	if len(r.systems(down)) == 0 || math.IsNaN(r.median(onARM, down)) {
		return ""
	}
	return fmt.Sprintf("\n### The agent as built for ARMv7, emulated\n\n| direction | amd64 CPU s/GiB | ARMv7 in QEMU | ratio |\n|---|---|---|---|\n"+
		"| down | %s | %s | %s |\n| up | %s | %s | %s |\n",
		figure(r.median(onNative, down)), figure(r.median(onARM, down)), figure(r.ratio(onARM, down, onNative)),
		figure(r.median(onNative, up)), figure(r.median(onARM, up)), figure(r.ratio(onARM, up, onNative)))
}

// goal is a bound that Hawser has to hold.
type goal struct {
	what  string
	value float64
	bound float64
	least bool // the bound is the least, not the most
}

func (r *result) goals() []goal {
	most := func(what string, value, bound float64) goal { return goal{what, value, bound, false} }
	own := func(metric string) float64 { return r.median("hawser", metric) }
	to := func(metric, system string) float64 { return r.ratio("hawser", metric, system) }
	goals := []goal{
		most("CPU of a byte × frp, 1 stream", to("down 1 CPU s/GiB", unit), .70),
		most("CPU of a byte × frp, 8 streams", to("down 8 CPU s/GiB", unit), .85),
		most("CPU of a byte × chisel, 1 stream", to("down 1 CPU s/GiB", "chisel"), .40),
		most("relay × frps, 1 stream", to("down 1 relay CPU s/GiB", unit), .20),
		most("relay × a proxy that splices, 1 stream", to("down 1 relay CPU s/GiB", "floor proxy"), 1.3),
		most("round trip p50 × frp", to("round trip p50 µs", unit), 1),
		most("round trip p99 × frp", to("round trip p99 µs", unit), 1),
		most("opening a stream × frp", to("stream opening µs", unit), 1),
		most("agent's memory after load × frpc", to("agent RSS after MiB", unit), .40),
		most("agent's memory fresh × frpc", to("agent RSS fresh MiB", unit), .60),
		{"one stream at 100 ms, Mbit/s of 100", own("one stream over 100ms Mbit/s"), 90, true},
		{"one stream at 300 ms, Mbit/s of 100", own("one stream over 300ms Mbit/s"), 90, true},
		most("keystroke, slow line at the technician, median ms", own(keysMetric("technician", "median ms")), 200),
		most("keystroke, slow line at the gateway, median ms", own(keysMetric("gateway", "median ms")), 200),
		most("start of the agent, round trips", tenths(own("agent opening, round trips")), 4),
		most("opening a session, round trips", tenths(own("session opening, round trips")), 6),
		most("opening a stream, round trips of two lines", tenths(own("stream opening, round trips")), 2),
		most("idle session at the relay, KiB", own("relay, KiB per idle session"), 64),
		most("idle session at the agent, KiB", own("agent, KiB per idle session"), 64),
	}
	for _, n := range []int{1000, 10000} {
		goals = append(goals, most(fmt.Sprintf("idle device at the Access Server, KiB, of %d", n), own(fmt.Sprintf("%d idle devices, KiB each", n)), 16))
	}
	return slices.DeleteFunc(goals, func(g goal) bool { return math.IsNaN(g.value) })
}

// tenths is how exactly round trips can be counted: what programs take is not quite the same on both lines.
func tenths(v float64) float64 { return math.Round(v*10) / 10 }

func (r *result) goalTable() string {
	goals := r.goals()
	if len(goals) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n### Goals\n\n| goal | bound | measured | |\n|---|---|---|---|\n")
	for _, g := range goals {
		word, held := "at most", g.value <= g.bound
		if g.least {
			word, held = "at least", g.value >= g.bound
		}
		verdict := "missed"
		if held {
			verdict = "held"
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s |\n", g.what, word, figure(g.bound), figure(g.value), verdict)
	}
	return b.String()
}
