//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// result is what a run has found. It is kept as JSON, from which the tables can be made again.
type result struct {
	Date     time.Time         `json:"date"`
	Rounds   int               `json:"rounds"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Missing  []absence         `json:"missing"`
	Samples  []sample          `json:"samples"`
}

// sample is one figure. Figures of the same round were measured in the same minute.
type sample struct {
	System string  `json:"system"`
	Metric string  `json:"metric"`
	Round  int     `json:"round"`
	Value  float64 `json:"value"`
}

// absence is what was not measured, and why.
type absence struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

func newResult(b *bench) *result {
	return &result{Date: time.Now().UTC().Truncate(time.Second), Rounds: b.rounds, Machine: machine(), Versions: b.versions()}
}

func (r *result) add(system, metric string, round int, value float64) {
	r.Samples = append(r.Samples, sample{system, metric, round, value})
}

// missing notes once what is not measured. Only the first line says why: the rest is a program's log.
func (r *result) missing(what, why string) {
	why, _, _ = strings.Cut(why, "\n")
	if a := (absence{what, why}); !slices.Contains(r.Missing, a) {
		r.Missing = append(r.Missing, a)
	}
}

func (r *result) save(file string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func load(file string) (*result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// values are the figures of a system by round. Where a round has several, the last counts.
func (r *result) values(system, metric string) map[int]float64 {
	m := map[int]float64{}
	for _, s := range r.Samples {
		if s.System == system && s.Metric == metric {
			m[s.Round] = s.Value
		}
	}
	return m
}

// median of the rounds; NaN: it was not measured.
func (r *result) median(system, metric string) float64 {
	var all []float64
	for _, v := range r.values(system, metric) {
		all = append(all, v)
	}
	return median(all)
}

// ratio is the median of the rounds' ratios to another system.
func (r *result) ratio(system, metric, to string) float64 {
	var all []float64
	unit := r.values(to, metric)
	for round, v := range r.values(system, metric) {
		if u, ok := unit[round]; ok && u != 0 {
			all = append(all, v/u)
		}
	}
	return median(all)
}

func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// systems lists who was measured, in the order of the samples.
func (r *result) systems(metric string) (names []string) {
	for _, s := range r.Samples {
		if s.Metric == metric && !slices.Contains(names, s.System) {
			names = append(names, s.System)
		}
	}
	return names
}

// machine says in a line what this is.
func machine() string {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	congestion, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	var u unix.Utsname
	unix.Uname(&u)
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-") // what follows is whose build it is
	return fmt.Sprintf("%s, %d processors, %d GiB, Linux %s %s, TCP %s", cpu, runtime.NumCPU(),
		(fields("/proc/meminfo")["MemTotal"]+1<<19)>>20, release, runtime.GOARCH, strings.TrimSpace(string(congestion)))
}

// versions asks each program that is there. They answer in different ways, some on standard error.
func (b *bench) versions() map[string]string {
	found := map[string]string{"go": runtime.Version()}
	for program, flag := range map[string]string{
		"hawser": "version", "frps": "--version", "chisel": "--version", "ssh": "-V", "qemu-arm-static": "--version",
	} {
		file, err := b.find(program)
		if err != nil {
			continue
		}
		out, _ := exec.Command(file, flag).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		found[program] = line
	}
	return found
}
