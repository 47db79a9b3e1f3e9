//go:build linux

package main

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// What a process has started counts with it: sshd serves each connection in a child.
func TestUsageCountsChildren(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "cat; true")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const size = 100_000
	carry := func() {
		go in.Write(make([]byte, size)) // ends when cat has taken it
		if _, err := io.CopyN(io.Discard, out, size); err != nil {
			t.Error(err)
		}
	}
	carry() // by now cat runs
	p := &process{cmd: cmd}
	pids := tree(p)
	if len(pids) != 2 || pids[0] != p.pid() {
		t.Errorf("tree of %d: %v, want it and its child", p.pid(), pids)
	}
	before := usageOf(pids)
	carry()
	u := usageOf(pids).minus(before)
	if u.copied < size || u.calls < 1 { // the last write may not have returned yet, but all reads have
		t.Errorf("for %d bytes through cat: %+v", size, u)
	}
	if rss, anonymous := resident(p); rss <= anonymous || anonymous <= 0 {
		t.Errorf("resident %d, anonymous %d", rss, anonymous)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if u := usageOf(pids); u != (usage{}) {
		t.Errorf("ended processes have used %+v", u)
	}
}

func TestUsageCountsProcessorTime(t *testing.T) {
	self := []int{os.Getpid()}
	before := usageOf(self)
	for range 1000 {
		slices.Sort(make([]int, 10_000))
	}
	if u := usageOf(self).minus(before); u.cpu <= 0 {
		t.Errorf("work took %v", u.cpu)
	}
}
