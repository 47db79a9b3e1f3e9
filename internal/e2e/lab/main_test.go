//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const labSource = "../../../scripts/lab"

// programsVariable names the directory of the programs that are tested, built once for the whole run.
const programsVariable = "HAWSER_LAB_PROGRAMS"

func TestMain(m *testing.M) {
	role, inLab := os.Getenv(roleVariable), os.Getenv("LAB_DIR") != ""
	switch {
	case role != "":
		os.Exit(play(role, os.Args[1:]))
	case !inLab:
		runtime.LockOSThread() // the lab ends when the thread that started it does
		code, err := runInLab()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	// The go command notes what a test reads, and so does not take an old result for a changed lab.
	_, _ = os.ReadDir(labSource)
	os.Exit(m.Run())
}

// runInLab builds the lab's program, the three that are tested, as a release is built, and what makes packages of them, and
// runs this one, as it was started, within a lab.
func runInLab() (int, error) {
	dir, err := os.MkdirTemp("", "hawser-lab-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", labSource, "hawser/scripts/package", "hawser/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build programs: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(filepath.Join(dir, "lab"), append([]string{"-relays", "7", "--", self}, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), programsVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return attend(cmd)
}

// attend runs cmd and hands signals on to it: the go command sends SIGQUIT to a test that takes too long.
func attend(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may have ended already
		case <-ended:
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// description is what scripts/lab says of the lab.
type description struct {
	Hosts   map[string][]netip.Addr
	Names   map[string]string
	BuiltMS int64 `json:"built_ms"`
}

func describe(t *testing.T) (d description) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("LAB_DIR"), "lab.json"))
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ways are a host's first addresses: one IPv4, one IPv6.
func (d description) ways(host string) []netip.Addr { return d.Hosts[host][:2] }

// run runs a command that must succeed and returns what it printed.
func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// firewall replaces the site's rules for the rest of the test.
func firewall(t *testing.T, clauses ...string) {
	t.Helper()
	run(t, append([]string{"lab", "firewall"}, clauses...)...)
	t.Cleanup(func() {
		if err := exec.Command("lab", "firewall", "clear").Run(); err != nil {
			t.Errorf("clear the firewall: %v", err)
		}
	})
}
