//go:build linux

package lab

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests build a second lab within the first, where its processes can be seen.

func TestLabEndsLikeItsCommand(t *testing.T) {
	for script, want := range map[string]int{"true": 0, "exit 7": 7, "kill -KILL $$": 128 + 9} {
		cmd := exec.Command("lab", "-relays", "1", "--", "sh", "-c", script)
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit code %d, want %d", script, got, want)
		}
	}
}

// TestNothingOutlivesTheLab ends a lab that has started something in the background, by each of the ways it can end.
func TestNothingOutlivesTheLab(t *testing.T) {
	for _, tt := range []struct {
		name   string
		signal syscall.Signal // 0: the command ends by itself
	}{{"command done", 0}, {"SIGINT", syscall.SIGINT}, {"SIGTERM", syscall.SIGTERM}, {"SIGKILL", syscall.SIGKILL}} {
		t.Run(tt.name, func(t *testing.T) {
			before := running(t)
			cmd := exec.Command("lab", "-relays", "1", "--", "sh", "-c", "sleep 600 & echo built; read end")
			stdin := startSaying(t, cmd, "built\n")
			awaitRunning(t, before+11) // 10 servers, and sleep
			if tt.signal == 0 {
				stdin.Close()
			} else if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			awaitRunning(t, before) // after a SIGKILL nobody is left who could wait for the others
		})
	}
}

// awaitRunning returns when that many are running.
func awaitRunning(t *testing.T, want int) {
	t.Helper()
	deadline, poll := time.After(outer), time.NewTicker(5*time.Millisecond)
	defer poll.Stop()
	for running(t) != want {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("%d processes, want %d", running(t), want)
		}
	}
}

// startSaying starts a command, waits for the line in which it says that it is there, and returns its input.
func startSaying(t *testing.T, cmd *exec.Cmd, want string) io.Closer {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != want {
		cmd.Process.Kill()
		t.Fatalf("%s says %q, %v; want %q", cmd, line, err, want)
	}
	return stdin
}

// running counts the processes that a lab starts, and that have not ended.
func running(t *testing.T) (count int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	process := regexp.MustCompile(`^\d+ \((unbound|dnsmasq|chronyd|ntpd|sleep)\) [^Z]`) // proc_pid_stat(5): PID (NAME) STATE …
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && process.Match(text) {
			count++
		}
	}
	return count
}

func TestWithinALabOnlyItsOwnNetworkIsSeen(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(run(t, "ip", "-o", "link")), "\n") {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		name = strings.TrimSuffix(name, ":")
		dash := max(0, strings.LastIndex(name, "-"))
		known := strings.Contains(" lo wan site lan ", " "+name+" ") || describe(t).Hosts[name[:dash]] != nil
		if !known {
			t.Errorf("interface %s is not the lab's", name)
		}
	}
}
