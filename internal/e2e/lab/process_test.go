//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
)

// outer bounds every wait. What a test asserts it takes from the times at which lines were printed.
const outer = pace.Patience

// watchLab tells how much of the machine others have, from now on: what belongs to the lab is all that can be seen in it.
func watchLab() *pace.Watch { return pace.Start(1) }

// process is a program that runs on a host of the lab.
type process struct {
	*output
	t     *testing.T
	cmd   *exec.Cmd
	began time.Time
	ended chan struct{} // closed when it has, and all it printed is in output
	err   error         // of its end; read after ended
}

// output is what a process has printed so far, on both outputs.
type output struct {
	mu    sync.Mutex
	lines []line
	news  chan struct{} // closed, and replaced, at each line
}

// line is one line with the time at which it was printed.
type line struct {
	text string
	at   time.Time
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for _, l := range o.lines {
		fmt.Fprintln(&b, l.at.Format("05.000"), l.text)
	}
	return b.String()
}

func (o *output) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		o.mu.Lock()
		o.lines = append(o.lines, line{s.Text(), time.Now()})
		close(o.news)
		o.news = make(chan struct{})
		o.mu.Unlock()
	}
}

// since returns the lines after the first n, and what is closed when there are more.
func (o *output) since(n int) ([]line, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lines[n:], o.news
}

// mark is the place from which an await looks for lines that are yet to come.
func (o *output) mark() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.lines)
}

// hawser is one of the programs that are tested.
func hawser(name string) string { return filepath.Join(os.Getenv(programsVariable), name) }

// start starts a program on a host; the test's end kills it.
func start(t *testing.T, host, program string, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command("lab", append([]string{"exec", host, program}, args...)...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{output: &output{news: make(chan struct{})}, t: t, cmd: cmd, ended: make(chan struct{})}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = nil // that of onHost
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.began = time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the program
		var reading sync.WaitGroup
		reading.Go(func() { p.read(stdout) })
		reading.Go(func() { p.read(stderr) })
		reading.Wait()
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("--- %s\n%s", strings.Join(cmd.Args[1:], " "), p)
		}
	})
	return p
}

// await returns the first line after a mark that holds text.
func (p *process) await(mark int, text string) line {
	p.t.Helper()
	limit := time.After(outer)
	for {
		lines, news := p.since(mark)
		for _, l := range lines {
			if strings.Contains(l.text, text) {
				return l
			}
		}
		mark += len(lines)
		select {
		case <-news:
		case <-p.ended:
			if lines, _ := p.since(mark); len(lines) == 0 {
				p.t.Fatalf("%s ended without %q: %v", p.cmd.Path, text, p.err)
			}
		case <-limit:
			p.t.Fatalf("%s did not print %q", strings.Join(p.cmd.Args, " "), text)
		}
	}
}

// kill is a power cut, for what the program has started as well.
func (p *process) kill() {
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // it may have ended already
	p.wait()
}

// stop asks it to end and wants a clean end.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if p.wait(); p.err != nil {
		p.t.Errorf("%s did not end cleanly: %v", strings.Join(p.cmd.Args[1:], " "), p.err)
	}
}

func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(outer):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		p.t.Fatalf("%s does not end", strings.Join(p.cmd.Args[1:], " "))
	}
}

// pid is that of the program itself: what starts it on the host becomes it.
func (p *process) pid() int { return p.cmd.Process.Pid }

// awaitPort returns when the process listens on a TCP port.
func (p *process) awaitPort(port int) {
	p.t.Helper()
	want := fmt.Sprintf(":%04X ", port)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for limit := time.After(outer); ; {
		for _, table := range []string{"tcp", "tcp6"} { // of its host: proc_pid_net(5)
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.pid(), table))
			for row := range strings.Lines(string(text)) {
				if f := strings.Fields(row); len(f) > 3 && strings.HasSuffix(f[1]+" ", want) && f[3] == "0A" {
					return
				}
			}
		}
		select {
		case <-poll.C:
		case <-p.ended:
			p.t.Fatalf("%s ended: %v\n%s", strings.Join(p.cmd.Args[1:], " "), p.err, p)
		case <-limit:
			p.t.Fatalf("%s does not listen on port %d", p.cmd.Path, port)
		}
	}
}

// result is how a program ended.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// finish runs a program on a host to its end.
func finish(t *testing.T, host, program string, args ...string) (r result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), outer)
	defer cancel()
	cmd := exec.CommandContext(ctx, "lab", append([]string{"exec", host, program}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// must is finish for a program that has to succeed. Its JSON answer is decoded into v, unless that is nil.
func must(t *testing.T, v any, host, program string, args ...string) result {
	t.Helper()
	r := finish(t, host, program, args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit %d: %s%s", program, strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
			t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, r.stdout)
		}
	}
	return r
}
