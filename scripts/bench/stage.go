//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for a program.
const patience = 60 * time.Second

// errAbsent: a program is not on this machine.
var errAbsent = errors.New("is not on this machine")

// tunnel is one system that is up.
type tunnel struct {
	dial         func() (net.Conn, error) // a connection that reaches the backend
	roots        []*process               // all of its processes; their children count too
	agent, relay *process                 // who dials out, and who is in the middle; nil: there is none
}

// system is one that can be measured.
type system struct {
	name, note string
	start      func(context.Context, *stage) (*tunnel, error)
}

// site is where a process stands: on the loopback of this machine they all stand at one place.
type site int

const (
	atRelay site = iota
	atAgent
	atClient
)

// stage is where one system plays: its directory, its processes, and the network between them.
type stage struct {
	*bench
	dir     string
	host    string    // the relay's address, as both ends dial it
	backend string    // the backend, as the agent dials it
	nets    *networks // nil: all is on loopback
	procs   []*process
}

// newStage makes a place for a system.
func (b *bench) newStage(name, backend string, nets *networks) (*stage, error) {
	b.stages++
	dir := filepath.Join(b.dir, fmt.Sprintf("%02d-%s", b.stages, strings.ReplaceAll(name, " ", "-")))
	s := &stage{bench: b, dir: dir, host: "127.0.0.1", backend: backend, nets: nets}
	if nets != nil {
		s.host = nets.relay
	}
	return s, os.MkdirAll(dir, 0o700)
}

func (s *stage) file(name string) string { return filepath.Join(s.dir, name) }

// write makes a file and gives its path.
func (s *stage) write(name, text string) (string, error) {
	return s.file(name), os.WriteFile(s.file(name), []byte(text), 0o600)
}

// find looks for a program: ours first, then in the directories of peers, then on the PATH.
func (b *bench) find(program string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, dir := range b.path {
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s %w", program, errAbsent)
}

// ports picks n that are free, below those that the system gives to outgoing connections.
func ports(n int) (free []string) {
	for len(free) < n {
		var random [2]byte
		rand.Read(random[:])
		port := strconv.Itoa(20000 + int(binary.NativeEndian.Uint16(random[:]))%12000)
		l, err := net.Listen("tcp", "0.0.0.0:"+port)
		if err != nil || slices.Contains(free, port) {
			continue
		}
		l.Close()
		free = append(free, port)
	}
	return free
}

// command prepares a program to run at a site.
func (s *stage) command(ctx context.Context, at site, program string, args ...string) (*exec.Cmd, error) {
	file, err := s.find(program)
	if err != nil {
		return nil, err
	}
	if s.nets == nil {
		cmd := exec.CommandContext(ctx, file, args...)
		cmd.Dir, cmd.SysProcAttr = s.dir, attributes()
		return cmd, nil
	}
	cmd, err := s.nets.command(ctx, at, file, args...)
	if err == nil {
		cmd.Dir, cmd.SysProcAttr = s.dir, attributes()
	}
	return cmd, err
}

// attributes give each child a group of its own, so that ^C reaches the bench alone, and end it with the bench.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// call runs a program to its end and gives its standard output.
func (s *stage) call(ctx context.Context, at site, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd, err := s.command(ctx, at, program, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(x.Stderr)))
	}
	return string(out), err
}

// process is a program that runs until it is stopped.
type process struct {
	name  string
	cmd   *exec.Cmd
	lines chan string // of its output, until nobody takes them
	done  chan struct{}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// spawn starts a program. What it prints goes to a file of the stage.
func (s *stage) spawn(at site, program string, args ...string) (*process, error) {
	cmd, err := s.command(context.Background(), at, program, args...)
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(program), cmd: cmd, lines: make(chan string, 64), done: make(chan struct{})}
	log, err := os.Create(s.file(fmt.Sprintf("%02d-%s.log", len(s.procs), p.name)))
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout // the same pipe
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	s.procs = append(s.procs, p)
	go p.watch(output, log)
	return p, nil
}

// watch ends with the program, for which stop waits.
func (p *process) watch(output io.Reader, log *os.File) {
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
	io.Copy(log, output) // what is behind a line that was too long
	close(p.lines)
	p.cmd.Wait()
}

// await gives the next line that begins with prefix.
func (p *process) await(ctx context.Context, prefix string) (string, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return "", fmt.Errorf("%s ended without the line %q", p.name, prefix)
			}
			if strings.HasPrefix(line, prefix) {
				return line, nil
			}
		case <-limit.C:
			return "", fmt.Errorf("%s printed no line %q within %v", p.name, prefix, patience)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// tell asks a process to end.
func (p *process) tell() { p.cmd.Process.Signal(syscall.SIGTERM) }

// stop ends a process, with SIGKILL if it does not hear SIGTERM.
func (p *process) stop() {
	p.tell()
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.done
	}
}

// stop ends all processes of the stage. They are told together: there may be a thousand.
func (s *stage) stop() {
	for _, p := range slices.Backward(s.procs) {
		p.tell()
	}
	for _, p := range slices.Backward(s.procs) {
		p.stop()
	}
	s.procs = nil
}

// awaitListen waits until somebody accepts at addr, as seen from a site.
func (s *stage) awaitListen(ctx context.Context, at site, addr string) error {
	return until(ctx, addr+" does not listen", func() bool {
		c, err := s.dialFrom(at, addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// until waits for a condition.
func until(ctx context.Context, complaint string, ok func() bool) error {
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return errors.Join(errors.New(complaint), ctx.Err())
}

// dialFrom dials as a program at a site would.
func (s *stage) dialFrom(at site, addr string) (c net.Conn, err error) {
	dial := func() error {
		c, err = net.DialTimeout("tcp", addr, 10*time.Second)
		return err
	}
	if s.nets == nil {
		return c, dial()
	}
	return c, s.nets.inside(at, dial)
}

// dialer is dialFrom the technician's site.
func (s *stage) dialer(addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return s.dialFrom(atClient, addr) }
}
