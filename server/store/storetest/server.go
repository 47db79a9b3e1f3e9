//go:build linux

package storetest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Server is a PostgreSQL server with fsync, as it is run in earnest. Of its methods only URL is safe for concurrent use.
type Server struct {
	dir  string // its socket and its data
	bin  string
	user *syscall.Credential
	proc *process // nil: it does not run
}

// process is a postmaster that has been started. lines is what it and its children said, before done is closed.
type process struct {
	pid   int
	ready chan struct{}
	done  chan struct{}
	lines []string
	err   error
}

// Data returns the directory of the server's files.
func (s *Server) Data() string { return filepath.Join(s.dir, "data") }

// Socket returns the path of the server's socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// own gives a path to who runs the programs.
func (s *Server) own(path string) error {
	if s.user == nil {
		return nil
	}
	return os.Chown(path, int(s.user.Uid), int(s.user.Gid))
}

// maxStarts is how often a start is tried: after a kill the children of the last server may hold its memory for a moment.
const maxStarts = 10

// Start starts the server, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// start tries again only when the server ended by itself: one that hangs is a finding.
func (s *Server) start() (err error) {
	if s.proc != nil {
		return errors.New("start postgres: it runs already")
	}
	for range maxStarts {
		p := &process{ready: make(chan struct{}), done: make(chan struct{})}
		go p.run(s)
		select {
		case <-p.ready:
			s.proc = p
			return nil
		case <-p.done:
			err = fmt.Errorf("start postgres: %w\n%s", p.err, strings.Join(p.lines, "\n"))
		}
	}
	return err
}

// run is the life of a process.
func (p *process) run(s *Server) {
	defer close(p.done)
	runtime.LockOSThread() // the kernel sends Pdeathsig when this thread ends
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		p.err = err
		return
	}
	defer r.Close()
	// No autovacuum: it would come in between where a test counts. Little memory: many of these run at once.
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.Data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=on",
		"-c", "shared_buffers=16MB", "-c", "max_connections=100", "-c", "autovacuum=off", "-c", "log_checkpoints=off")
	cmd.Dir, cmd.Stderr = s.dir, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Pdeathsig: syscall.SIGQUIT}
	if p.err = errors.Join(cmd.Start(), w.Close()); p.err != nil {
		return
	}
	p.pid = cmd.Process.Pid
	ready := p.ready
	for in := bufio.NewScanner(r); in.Scan(); { // until its children are gone, too
		p.lines = append(p.lines, in.Text())
		if ready != nil && strings.Contains(in.Text(), "database system is ready to accept connections") {
			close(ready)
			ready = nil
		}
	}
	if p.err = cmd.Wait(); p.err == nil {
		p.err = errors.New("it ended")
	}
}

// Stop ends the server in order, and its connections.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.proc == nil {
		return
	}
	if err := syscall.Kill(s.proc.pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-s.proc.done
	s.proc = nil
}

// Restart lets a server go on that ended itself, as the system's service manager does. One that runs is left alone.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	select {
	case <-s.proc.done:
		s.proc = nil
		s.Start(t)
	default:
	}
}

// Kill ends all processes of the server as they stand, with SIGKILL.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.kill()
}

func (s *Server) kill() {
	if s.proc == nil {
		return
	}
	// Before the postmaster is gone: then they are nobody's children.
	children := childrenOf(s.proc.pid)
	syscall.Kill(s.proc.pid, syscall.SIGKILL)
	for _, pid := range children { // they would notice, but have time to finish something
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.proc.done
	s.proc = nil
}

// Pause stops all processes of the server without ending them, as a machine that hangs; the function that it returns
// lets them go on.
func (s *Server) Pause(t testing.TB) (resume func()) {
	t.Helper()
	// The one that starts the others first: one that it starts meanwhile would answer.
	syscall.Kill(s.proc.pid, syscall.SIGSTOP)
	for range 100_000 {
		if b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.proc.pid), "stat")); strings.Contains(string(b), ") T ") {
			break
		}
	}
	pids := append([]int{s.proc.pid}, childrenOf(s.proc.pid)...)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	return func() {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) (children []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, _ := os.ReadFile(filepath.Join(dir, "stat"))
		_, rest, _ := strings.Cut(string(b), ") ") // pid (name) state ppid
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(dir))
			if err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}
