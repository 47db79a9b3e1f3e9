//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what processes have used up so far. Calls and copied count read and write calls only, as /proc/PID/io does:
// a splice, which copies nothing through user space, is not among them.
type usage struct {
	cpu      time.Duration
	calls    int64 // read and write calls
	copied   int64 // bytes that these moved between kernel and program
	switches int64 // context switches
}

func (u usage) minus(v usage) usage {
	return usage{u.cpu - v.cpu, u.calls - v.calls, u.copied - v.copied, u.switches - v.switches}
}

// usageOf sums what processes have used. One that has ended counts as nothing.
func usageOf(pids []int) (sum usage) {
	for _, pid := range pids {
		// The CPU clock of a process counts its threads that have ended, too; the kernel has a number for it
		// (clock_getcpuclockid).
		var ts unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|2), &ts) == nil {
			sum.cpu += time.Duration(ts.Nano())
		}
		io := fields(fmt.Sprintf("/proc/%d/io", pid))
		sum.calls += io["syscr"] + io["syscw"]
		sum.copied += io["rchar"] + io["wchar"]
		// The status of a process counts the switches of its first thread only.
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, file := range tasks {
			status := fields(file)
			sum.switches += status["voluntary_ctxt_switches"] + status["nonvoluntary_ctxt_switches"]
		}
	}
	return sum
}

// resident is the memory of a process in bytes: all that is in RAM, and what of it no file backs.
func resident(p *process) (rss, anonymous int64) {
	status := fields(fmt.Sprintf("/proc/%d/status", p.pid()))
	return status["VmRSS"] << 10, status["RssAnon"] << 10
}

// fields reads a file of lines "name: number …".
func fields(file string) map[string]int64 {
	m := map[string]int64{}
	text, err := os.ReadFile(file)
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(line, ":")
		if words := strings.Fields(value); ok && len(words) > 0 {
			if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
				m[name] = n
			}
		}
	}
	return m
}

// tree lists the processes and all that they have started: sshd serves each connection in a child.
func tree(roots ...*process) (pids []int) {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name stands in brackets and may hold spaces and brackets.
		words := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(words) > 1 {
			parent, _ := strconv.Atoi(words[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var walk func(int)
	walk = func(pid int) {
		pids = append(pids, pid)
		for _, child := range children[pid] {
			walk(child)
		}
	}
	for _, p := range roots {
		if p != nil {
			walk(p.pid())
		}
	}
	return pids
}
