package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// callPatience bounds a command that is expected to end by itself.
const callPatience = time.Minute

// call runs a program to its end and returns its standard output. The error holds what it said on standard error.
func call(ctx context.Context, file string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, fmt.Errorf("no answer within %v", callPatience))
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, attributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// A command that does not hear SIGTERM, or whose child holds the pipe, is killed then.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(file), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// program is one that runs until it is stopped. All that it prints goes to logFile. Stdout and stderr share one pipe,
// so that the log has them in the order in which they were printed.
type program struct {
	name    string // of its log, which tells three relays apart
	logFile string
	cmd     *exec.Cmd
	lines   chan string   // of its output, until nobody takes them
	done    chan struct{} // closed when the program has ended
	code    int           // exit code, valid after done; -1 by a signal
}

// start begins a program. The goroutine that watches it ends with it, and stop waits for both.
func start(logFile, file string, args ...string) (*program, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	p := &program{name: strings.TrimSuffix(filepath.Base(logFile), ".log"), logFile: logFile, lines: make(chan string, 64), done: make(chan struct{})}
	p.cmd = exec.Command(file, args...)
	p.cmd.SysProcAttr = attributes()
	output, err := p.cmd.StdoutPipe()
	p.cmd.Stderr = p.cmd.Stdout // the same pipe
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close())
	}
	go p.watch(output, log)
	return p, nil
}

func (p *program) watch(output io.Reader, log *os.File) {
	defer close(p.done)
	defer log.Close()
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		select {
		case p.lines <- lines.Text():
		default: // nobody waits for a line any more
		}
	}
	_, _ = io.Copy(log, output) // what is behind a line that was too long
	close(p.lines)
	_ = p.cmd.Wait() // the exit code says it
	p.code = p.cmd.ProcessState.ExitCode()
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// await returns the next line of output that begins with prefix.
func (p *program) await(ctx context.Context, prefix string, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		fmt.Errorf("%s printed no line %q within %v", p.name, prefix, patience))
	defer cancel()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				<-p.done
				return "", p.endedEarly()
			}
			if strings.HasPrefix(line, prefix) {
				return line, nil
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// endedEarly says how a program ended that should still be running.
func (p *program) endedEarly() error {
	return fmt.Errorf("%s ended by itself with exit code %d", p.name, p.code)
}

// ended reports whether it has ended, for whatever reason.
func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends it with SIGKILL, on which it can say nothing to anybody, and waits.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop sends SIGTERM and waits; SIGKILL follows when that is not heard. A program that does not end with exit code 0
// is an error, and so is one that had ended before. SIGTERM first, as a service manager does: that a program ends in
// order is one of the things shown.
func (p *program) stop(patience time.Duration) error {
	if p.ended() {
		return p.endedEarly()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may end at this moment, which is what is wanted
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, patience)
	}
	if p.code != 0 {
		return fmt.Errorf("%s ended on SIGTERM with exit code %d, want 0", p.name, p.code)
	}
	return nil
}
