// Package pace keeps tests of real programs from failing because the machine is busy with something else, and lets no
// programs of ours that became slower pass for it.
//
// A promise such as "online within 8 s" holds on a machine that has nothing else to do. Work of others can make something
// late by no more than the CPU time that they take meanwhile: whenever ours wait for a CPU without their own fault, one
// of the others has it. So a Watch adds that time to the bound. On a quiet machine it is next to nothing.
//
//	watch := pace.Start(os.Getpid())
//	took := online(t)
//	watch.Within(t, "online", took, 8*time.Second)
//
// A wait that promises nothing has no bound of its own, but gives up when nothing has moved for a long time; see Progress.
package pace

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Watch tells how long others have had the machine since it was started.
type Watch struct {
	root   int
	before spent
}

// Start starts a Watch. Ours are the processes below root, itself included; 1 is all that this process can see, which in
// a PID namespace is what belongs to it.
func Start(root int) *Watch { return &Watch{root, spentNow(root)} }

// Others is the CPU time that others took since the start, and that in which CPUs had nothing to do but wait for a disk.
func (w *Watch) Others() time.Duration {
	now := spentNow(w.root)
	return max(0, (now.all-w.before.all)-(now.ours-w.before.ours))
}

// Within fails the test if something took longer than bound, and what others did meanwhile does not explain it.
func (w *Watch) Within(tb testing.TB, what string, took, bound time.Duration) {
	tb.Helper()
	if took <= bound {
		return
	}
	if others := w.Others(); took > bound+others {
		tb.Errorf("%s after %v, want at most %v, and the %v that others had the machine", what, took, bound, others)
	}
}

// spent is how much CPU time has been used so far.
type spent struct{ all, ours time.Duration }

// spentNow is zero where there is no /proc: then nobody is excused.
func spentNow(root int) spent {
	s, err := read(os.DirFS("/proc"), root)
	if err != nil {
		return spent{}
	}
	return s
}

// tick is the unit of proc(5), which is the same on every Linux that we test on.
const tick = time.Second / 100

// read adds up what /proc says.
func read(proc fs.FS, root int) (s spent, err error) {
	text, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return s, err
	}
	// proc_stat(5): cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL …
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return s, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return s, err
		}
		if i != 3 {
			s.all += time.Duration(n) * tick
		}
	}
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return s, err
	}
	parents, used := map[int]int{}, map[int]time.Duration{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, took, err := process(proc, pid); err == nil { // else it has just ended, and its parent has its time
			parents[pid], used[pid] = parent, took
		}
	}
	for pid, took := range used {
		for p := pid; p != 0; p = parents[p] {
			if p == root {
				s.ours += took
				break
			}
		}
	}
	return s, nil
}

// process reads the CPU time of a process and of its children that have ended.
func process(proc fs.FS, pid int) (parent int, used time.Duration, err error) {
	text, err := fs.ReadFile(proc, strconv.Itoa(pid)+"/stat")
	if err != nil {
		return 0, 0, err
	}
	// proc_pid_stat(5): PID (NAME) STATE PPID …; fields 14 to 17 are its own and its children's times. A name may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		used += time.Duration(n) * tick
	}
	return parent, used, nil
}
