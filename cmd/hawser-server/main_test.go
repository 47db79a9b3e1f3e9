package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"hawser/internal/answer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hawser-server": main,
	})
}

// TestScripts plays testdata/script. Besides testscript's own commands there
// are `start CONFIG`, which runs a server until its ready line, and `stop`,
// which sends it SIGTERM, wants exit code 0 and leaves its log as stderr. exit CODE ARGS… runs
// hawser-server and wants that exit code and, unless it is 0, one line on
// stderr. read VAR FILE sets a variable to what a file holds, and normal stdout
// puts SPKI and TIME where keys and times are. $PORT1, $PORT2 and $PORT3 are free.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: func(env *testscript.Env) error { return freePorts(env, "PORT1", "PORT2", "PORT3") },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": start, "stop": stop, "exit": exit, "read": read, "normal": normal,
		},
	})
}

// freePorts picks ports below those that the system gives to outgoing
// connections, which could take one before its server does.
func freePorts(env *testscript.Env, names ...string) error {
	env.Values[runningKey{}] = new(*running)
	for tries := 0; len(names) > 0; tries++ {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil && tries > 100 {
			return err
		}
		if err == nil {
			defer ln.Close() // after the last, so that they differ
			env.Setenv(names[0], port)
			names = names[1:]
		}
	}
	return nil
}

type runningKey struct{}

// running is a server that was started by a script.
type running struct {
	cmd *exec.Cmd
	out *bufio.Reader
	log *strings.Builder
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: start CONFIG")
	}
	cmd := exec.Command("hawser-server", "run", "--config", ts.MkAbs(args[0]))
	log := new(strings.Builder) // to be read after Wait
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { cmd.Process.Kill() })
	r := &running{cmd, bufio.NewReader(out), log}
	line, err := r.out.ReadString('\n')
	if err != nil {
		ts.Fatalf("no ready line: %v, %v: %s", err, cmd.Wait(), log)
	}
	ts.Setenv("READY", strings.TrimSuffix(line, "\n"))
	*ts.Value(runningKey{}).(**running) = r
}

func stop(ts *testscript.TestScript, neg bool, args []string) {
	r := *ts.Value(runningKey{}).(**running)
	ts.Check(r.cmd.Process.Signal(syscall.SIGTERM))
	rest, err := io.ReadAll(r.out)
	ts.Check(err)
	if err := r.cmd.Wait(); err != nil {
		ts.Fatalf("server ended with %v: %s", err, r.log)
	}
	if len(rest) > 0 {
		ts.Fatalf("on stdout, besides the ready line: %q", rest)
	}
	fmt.Fprint(ts.Stderr(), r.log)
}

func read(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: read VAR FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func normal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: normal stdout")
	}
	s := regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(ts.ReadFile(args[0]), "SPKI")
	s = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(s, "TIME")
	fmt.Fprint(ts.Stdout(), s)
}

func exit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exit CODE ARGS…")
	}
	var stdout, stderr strings.Builder
	cmd := exec.Command("hawser-server", args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), &stdout, &stderr
	err := cmd.Run()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		ts.Check(err)
	}
	fmt.Fprint(ts.Stdout(), stdout.String())
	fmt.Fprint(ts.Stderr(), stderr.String())
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s: %s", got, args[0], stderr.String())
	}
	if args[0] != "0" && strings.Count(stderr.String(), "\n") != 1 {
		ts.Fatalf("want one line on stderr, got %q", stderr.String())
	}
}

func TestVersionIsComplete(t *testing.T) {
	v := thisVersion()
	if v.Program != "hawser-server" || v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("got %+v", v)
	}
}

// TestUsageErrorsExitWith2 calls Main itself.
func TestUsageErrorsExitWith2(t *testing.T) {
	const (
		testCode = "0000-0000-0000-0000-0000-0000-0000-00000"
		relay    = "--dir d --host h --access a --code " + testCode
		pin      = "--pin 1111111111111111111111111111111111111111111111111111111111111111"
	)
	enroll := func(flags, trust string) string { return "enroll " + flags + " " + trust }
	t.Attr("id", "A1-input")
	tests := []string{
		"", "nonsense", "--nonsense", "init", "init --dir d", "init --host h", "init --dir", "init --dir d --host h extra",
		"init --dir d --host h --ports x", "init --dir d --host h --ports 70000", "init --dir d --host h --ports 0",
		"init --dir d --host h --join r", "init --dir d --host h --store http://n", "init --dir d --host h --join r --store postgres://n/d --domain x",
		"init --dir d --host h --store postgres://n", "init --dir d --host h:443", "init --dir d --host a/b", "init --dir d --host h --domain D!",
		"enroll", enroll("--host h --access a --code "+testCode, pin), enroll("--dir d --access a --code "+testCode, pin),
		enroll("--dir d --host h --code "+testCode, pin), enroll("--dir d --host h --access a", pin), enroll(relay, ""),
		enroll(relay, pin+" --root r.pem"), enroll(relay, "--pin xyz"), enroll(relay, "--pin "), enroll(relay, "--root none.pem"),
		enroll(relay, pin+" --ports 0"), enroll(relay, pin+" --ports 443,443"), enroll(relay, pin+" --access-ports 70000"),
		enroll(relay, pin+" --access a:0"), enroll(relay, pin+" --host h:443"), enroll(relay, pin+" extra"),
		enroll("--dir d --host h --access a --code HELLO", pin),
		"run", "run --config", "run --config none.yaml", "check", "check --config none.yaml", "version --xml",
	}
	t.Attr("cases", fmt.Sprint(len(tests)))
	t.Chdir(t.TempDir())
	for _, args := range tests {
		var stderr strings.Builder
		if got := Main(strings.Fields(args), io.Discard, &stderr); got != answer.ExitUsage {
			t.Errorf("%q: exit code %d, want %d", args, got, answer.ExitUsage)
		}
		if s := stderr.String(); strings.Count(s, "\n") != 1 || !strings.HasPrefix(s, "hawser-server: ") {
			t.Errorf("%q: stderr %q, want one line", args, s)
		}
	}
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
