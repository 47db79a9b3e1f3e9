//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/agent"
	"hawser/agent/clock"
	"hawser/internal/e2e/pace"
	"hawser/server/store/storetest"
)

const binEnv = "HAWSER_E2E_BIN" // the directory that TestMain removes

// cluster is the PostgreSQL of the tests here.
var cluster storetest.Cluster

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hawser-e2e-")
	if err != nil {
		panic(err)
	}
	os.Setenv(binEnv, dir)
	code := cluster.Run(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// programs builds the three programs once for all tests, as a release is built.
var programs = sync.OnceValues(func() (string, error) {
	dir := os.Getenv(binEnv)
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "hawser/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build programs: %v\n%s", err, out)
	}
	return dir, nil
})

// patience bounds every wait for a program.
const patience = pace.Patience

// process is a program that runs; its output lines can be waited for.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of stdout
	log   *tail       // of both
	ended chan error
}

// tail keeps what a program printed, for the report of a failure.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// mustLeaveTheClock refuses to start an agent that could set the clock of the machine which tests, where it may run as root.
func mustLeaveTheClock(t *testing.T, name string, args []string) {
	t.Helper()
	if name != "hawser-agent" || !slices.Contains(args, "run") {
		return
	}
	c, err := agent.LoadConfig(filepath.Join(args[slices.Index(args, "--data")+1], "agent.yaml"))
	if err != nil || c.SystemClock != clock.Never {
		t.Fatalf("start hawser-agent %q: system clock %q, %v; want never", args, c.SystemClock, err)
	}
}

// start starts a program that goes on; the test's end kills it.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	mustLeaveTheClock(t, name, args)
	return watch(t, exec.Command(program(t, name), args...))
}

// watch starts a command as start does.
func watch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, lines: make(chan string, 256), log: new(tail), ended: make(chan error, 1)}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the program
		for s := bufio.NewScanner(out); s.Scan(); {
			fmt.Fprintln(p.log, s.Text())
			select {
			case p.lines <- s.Text():
			default: // nobody waits for lines any more
			}
		}
		p.ended <- p.cmd.Wait()
		close(p.lines)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("--- %s\n%s", strings.Join(cmd.Args, " "), p.log)
		}
	})
	return p
}

// kill is a power cut: no signal handler runs.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.wait()
}

// stop asks it to end and wants a clean end.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		p.t.Errorf("%s did not end cleanly: %v", filepath.Base(p.cmd.Path), err)
	}
}

func (p *process) wait() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		p.t.Fatalf("%s does not end", p.cmd.Path)
		return nil
	}
}

// line waits for a line of stdout with this prefix.
func (p *process) line(prefix string) string {
	p.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case l, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%s ended without the line %q", p.cmd.Path, prefix)
			}
			if strings.HasPrefix(l, prefix) {
				return l
			}
		case <-limit:
			p.t.Fatalf("%s printed no line %q", p.cmd.Path, prefix)
		}
	}
}

// command runs a program to its end and decodes its JSON answer into v.
func command(t *testing.T, v any, name string, args ...string) {
	t.Helper()
	out, code, errs := outcome(t, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit %d: %s", name, strings.Join(args, " "), code, errs)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
}

// outcome runs a program to its end.
func outcome(t *testing.T, name string, args ...string) (stdout string, code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode(), errs.String()
}

// infra is a Server Infrastructure on loopback, with a technician who has
// logged in.
type infra struct {
	t      *testing.T
	dir    string
	ports  []string
	root   string // file
	server *process
	home   string // the technician's
}

func newInfra(t *testing.T) *infra {
	t.Helper()
	in := &infra{t: t, dir: t.TempDir(), ports: freePorts(t, 3)}
	in.home = filepath.Join(in.dir, "home")
	var made struct {
		RootFile string `json:"root_file"`
		Code     string `json:"admin_code"`
	}
	command(t, &made, "hawser-server", "init", "--dir", in.path("server"), "--host", "127.0.0.1", "--ports", strings.Join(in.ports, ","), "--json")
	in.root = made.RootFile
	in.serve()
	command(t, nil, "hawser", "--home", in.home, "login", "127.0.0.1:"+in.ports[0], "--code", made.Code, "--root", in.root, "--no-passphrase")
	return in
}

// addUser makes a technician who has logged in, and returns his home: one has 4 sessions at a gateway.
func (in *infra) addUser(name string) (home string) {
	in.t.Helper()
	var added struct{ Code string }
	command(in.t, &added, "hawser", "--home", in.home, "user", "add", name, "--json")
	home = in.path(name + ".home")
	command(in.t, nil, "hawser", "--home", home, "login", "127.0.0.1:"+in.ports[0], "--code", added.Code, "--root", in.root)
	return home
}

func (in *infra) path(name string) string { return filepath.Join(in.dir, name) }

func (in *infra) serve() {
	in.t.Helper()
	in.server = start(in.t, "hawser-server", "run", "--config", in.path("server/server.yaml"))
	in.server.line("ready ")
}

// gateway is one device and its agent.
type gateway struct {
	*infra
	name, uid, code, data string
	agent                 *process
}

// addDevice registers a device; allow is its owner's policy.
func (in *infra) addDevice(name string, allow ...string) *gateway {
	in.t.Helper()
	g := &gateway{infra: in, name: name, data: in.path(name)}
	var added struct{ UID, Code string }
	command(in.t, &added, "hawser", "--home", in.home, "device", "add", name, "--json")
	g.uid, g.code = added.UID, added.Code
	if err := os.MkdirAll(g.data, 0o700); err != nil {
		in.t.Fatal(err)
	}
	config := fmt.Sprintf("access: [127.0.0.1]\nports: [%s]\nroot: %s\nallow: [%s]\ntime: {set_system_clock: never}\nlog: debug\n",
		strings.Join(in.ports, ", "), in.root, strings.Join(allow, ", "))
	if err := os.WriteFile(filepath.Join(g.data, "agent.yaml"), []byte(config), 0o600); err != nil {
		in.t.Fatal(err)
	}
	return g
}

func (g *gateway) enroll() (uid string) {
	g.t.Helper()
	var got struct{ UID string }
	command(g.t, &got, "hawser-agent", "--data", g.data, "enroll", "--code", g.code, "--json")
	return got.UID
}

func (g *gateway) run() {
	g.t.Helper()
	g.agent = start(g.t, "hawser-agent", "--data", g.data, "run")
	g.agent.line("online " + g.uid)
}

// connect opens a session with one forward to target and returns the local
// address at which a tool reaches it.
func (g *gateway) connect(target string) (*process, string) {
	g.t.Helper()
	p := start(g.t, "hawser", "--home", g.home, "connect", g.name, "-L", "0:"+target)
	words := strings.Fields(p.line("forward "))
	return p, words[1]
}

// freePorts picks ports below those that the system gives to outgoing
// connections: one of these could take the port while its server is restarted.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for tries := 0; len(ports) < n; tries++ {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil && tries > 100 {
			t.Fatal(err)
		}
		if err == nil {
			defer l.Close() // after the last, so that they differ
			ports = append(ports, port)
		}
	}
	return ports
}

// machine is a TCP server on the gateway's LAN side, which is 127.0.0.2 here.
func machine(t *testing.T, serve func(net.Conn)) (target string) {
	t.Helper()
	return machineAt(t, "127.0.0.2:0", serve)
}

func machineAt(t *testing.T, address string, serve func(net.Conn)) (target string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}
