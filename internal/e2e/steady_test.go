//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What explains must not kill what connects: these tests take from a running agent what it explains itself by.

// runWith starts the gateway's agent through a shell, and returns when it can be reached.
func (g *gateway) runWith(script string, args ...string) {
	g.t.Helper()
	agent := []string{program(g.t, "hawser-agent"), "--data", g.data, "run"}
	mustLeaveTheClock(g.t, "hawser-agent", agent[1:])
	g.agent = watch(g.t, exec.Command("sh", append(append([]string{"-c", script, "sh"}, args...), agent...)...))
	g.awaitOnline()
}

// awaitOnline asks the Access Server: the agent itself may have no way to say so.
func (g *gateway) awaitOnline() {
	g.t.Helper()
	limit := time.After(patience)
	for {
		var device struct{ Online bool }
		command(g.t, &device, "hawser", "--home", g.home, "device", "show", g.name, "--json")
		if device.Online {
			return
		}
		select {
		case <-limit:
			g.t.Fatalf("%s is not online", g.name)
		case err := <-g.agent.ended:
			g.agent.ended <- err
			g.t.Fatalf("the agent has ended: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// wantService wants new sessions and what runs to work.
func (g *gateway) wantService(addrs ...string) {
	g.t.Helper()
	p, addr := g.connect(g.echo())
	for _, a := range append(addrs, addr) {
		if err := roundTrip(a); err != nil {
			g.t.Errorf("a forward does not work: %v", err)
		}
	}
	p.stop()
}

func (g *gateway) echo() string { return machine(g.t, func(c net.Conn) { io.Copy(c, c) }) }

// set adds a line to the configuration.
func (g *gateway) set(line string) {
	g.t.Helper()
	f, err := os.OpenFile(filepath.Join(g.data, "agent.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		f.Close()
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) troubles() string {
	g.t.Helper()
	var st struct{ Troubles []string }
	command(g.t, &st, "hawser-agent", "--data", g.data, "status", "--json")
	return strings.Join(st.Troubles, "; ")
}

// logInto starts the agent with both outputs in a pipe, whose other end is returned.
func (g *gateway) logInto() (reader *os.File) {
	g.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { r.Close() })
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil { // full after some twenty lines
		g.t.Fatal(err)
	}
	// Not by os/exec, which would read it.
	g.runWith(`out=$1; shift; exec "$@" >"$out" 2>&1`, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.Fd()))
	w.Close()
	return r
}

func TestAgentOutlivesTheReaderOfItsLog(t *testing.T) {
	t.Attr("id", "L-sigpipe")
	t.Attr("cases", "2")
	in := newInfra(t)
	t.Run("it dies", func(t *testing.T) {
		in.t = t
		g := in.addDevice("press-1", loopbackAllowed)
		g.enroll()
		r := g.logInto()
		_, addr := g.connect(g.echo())
		r.Close()
		for range 3 {
			g.wantService(addr)
		}
		if got := g.troubles(); !strings.Contains(got, "log: ") || !strings.Contains(got, "lines were lost: write ") || !strings.Contains(got, "broken pipe") {
			t.Errorf("troubles %q", got)
		}
		g.agent.stop()
	})
	t.Run("it stands still", func(t *testing.T) {
		in.t = t
		g := in.addDevice("press-2", loopbackAllowed)
		g.enroll()
		r := g.logInto()
		echo := g.echo()
		_, addr := g.connect(echo)
		// Each connection is a line; and nobody reads.
		for try := 0; !strings.Contains(g.troubles(), "nobody reads it"); try++ {
			if try > 100 {
				t.Fatalf("after %d connections: %q", try*100, g.troubles())
			}
			var some sync.WaitGroup
			for range 10 {
				some.Go(func() {
					for range 10 {
						if err := roundTrip(addr); err != nil {
							t.Error(err)
						}
					}
				})
			}
			some.Wait()
		}
		g.wantService(addr)
		// When somebody reads again, he learns what he has missed.
		log := new(tail)
		var reading sync.WaitGroup
		reading.Go(func() { io.Copy(log, r) })
		limit := time.After(patience)
		for !strings.Contains(log.String(), " lines were lost: nobody reads it") || g.troubles() != "" {
			select {
			case <-limit:
				t.Fatalf("troubles %q", g.troubles())
			case <-time.After(20 * time.Millisecond):
				roundTrip(addr)
			}
		}
		g.agent.stop()
		reading.Wait()
	})
}

func TestAgentRunsWithoutWhatExplains(t *testing.T) {
	t.Attr("id", "L-socket")
	in := newInfra(t)
	confined := func(script string) []string {
		return []string{`script=$1; shift; exec unshare --user --map-root-user --mount sh -c "$script" sh "$@"`, script}
	}
	const rest = `shift; exec "$@"`
	for i, c := range []struct {
		name, dir, config string
		script            []string
		said              string // once, in the log
	}{
		{"its path is too long", strings.Repeat("long", 30), "", []string{`exec "$@"`}, `no status socket`},
		{"the state directory is read-only", "", "", confined(`mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ` + rest), `no status socket`},
		{"the disk is full", "", "", confined(`cp -a "$1" "$1.first" && mount -t tmpfs -o mode=0700,size=128k none "$1" && cp -a "$1.first/." "$1" && ` +
			`! dd if=/dev/zero of="$1/filler" bs=1 status=none 2>/dev/null && ` + rest), `msg="save state"`},
		{"watchdog and LEDs are missing", "", "watchdog: /dev/no-watchdog\nleds: {status: no-led, session: no-led-either}", []string{`exec "$@"`}, `no hardware watchdog`},
		{"the service manager does not answer", "", "", []string{`NOTIFY_SOCKET=/nowhere/notify WATCHDOG_USEC=30000000 exec "$@"`}, `service manager cannot be told`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Attr("id", "L-socket")
			in.t = t
			g := in.addDevice(fmt.Sprintf("press-%d", i), loopbackAllowed)
			if c.dir != "" {
				data := filepath.Join(in.dir, c.dir)
				if err := os.Rename(g.data, data); err != nil {
					t.Fatal(err)
				}
				g.data = data
			}
			if c.config != "" {
				g.set(c.config)
			}
			g.enroll()
			if len(c.script) > 1 {
				g.runWith(c.script[0], c.script[1], g.data)
			} else {
				g.runWith(c.script[0])
			}
			g.wantService()
			g.wantService()
			if n := strings.Count(g.agent.log.String(), c.said); n != 1 {
				t.Errorf("%q is said %d times", c.said, n)
			}
			if c.dir == "" && len(c.script) == 1 && !strings.Contains(c.name, "manager") {
				if got := g.troubles(); strings.Count(got, "no such file or directory") != 3 {
					t.Errorf("troubles %q", got)
				}
			}
			g.agent.stop()
		})
	}
}

// TestCheckRefusesWhatRunRefuses starts each agent and asks about it: both agree.
func TestCheckRefusesWhatRunRefuses(t *testing.T) {
	t.Attr("id", "L-check")
	const good = "access: [127.0.0.1]\nports: [1]\ntime: {set_system_clock: never}\n"
	file := func(mode os.FileMode, text string) func(string) error {
		return func(dir string) error {
			name := filepath.Join(dir, "agent.yaml")
			return firstError(os.Mkdir(dir, 0o700), os.WriteFile(name, []byte(text), 0o600), os.Chmod(name, mode))
		}
	}
	after := func(f, more func(string) error) func(string) error {
		return func(dir string) error { return firstError(f(dir), more(dir)) }
	}
	cases := map[string]struct {
		made func(dir string) error
		runs bool
	}{
		"good":                        {file(0o600, good), true},
		"others may read it":          {file(0o644, good), true},
		"its group may write it":      {file(0o664, good), false},
		"others may write it":         {file(0o646, good), false},
		"none":                        {func(dir string) error { return os.Mkdir(dir, 0o700) }, false},
		"empty":                       {file(0o600, ""), false},
		"only a comment":              {file(0o600, "# access: [127.0.0.1]\n"), false},
		"no server":                   {file(0o600, "ports: [1]\n"), false},
		"no server in the list":       {file(0o600, "access: []\n"), false},
		"no port":                     {file(0o600, good+"ports: []\n"), false},
		"unknown key":                 {file(0o600, good+"alow: []\n"), false},
		"a key twice":                 {file(0o600, good+"access: [a.example]\n"), false},
		"a rule that is none":         {file(0o600, good+"allow: [\"10.0.0.0/8\"]\n"), false},
		"allow without a list":        {file(0o600, good+"allow:\n"), false},
		"a root that is not there":    {file(0o600, good+"root: root.pem\n"), false},
		"a root that is none":         {after(file(0o600, good+"root: agent.yaml\n"), func(string) error { return nil }), false},
		"a switch without a line":     {file(0o600, good+"key_switch: {chip: /dev/gpiochip9}\n"), false},
		"a switch that is not there":  {file(0o600, good+"key_switch: {chip: /dev/gpiochip9, line: 3}\n"), true},
		"a watchdog that is no path":  {file(0o600, good+"watchdog: yes\n"), false},
		"a watchdog that is missing":  {file(0o600, good+"watchdog: /dev/no-watchdog\n"), true},
		"a LED in another directory":  {file(0o600, good+"leds: {status: ../led}\n"), false},
		"a limit that is none":        {file(0o600, good+"limits: {streams: 0}\n"), false},
		"others may read the state":   {after(file(0o600, good), func(dir string) error { return os.Chmod(dir, 0o755) }), false},
		"the state is a file":         {file(0o600, good+"data: agent.yaml\n"), true}, // --data overrides it
		"a damaged key":               {after(file(0o600, good), func(dir string) error { return os.WriteFile(filepath.Join(dir, "device.key"), nil, 0o600) }), true},
		"a damaged state":             {after(file(0o600, good), func(dir string) error { return os.WriteFile(filepath.Join(dir, "state.0"), []byte("x"), 0o600) }), true},
		"a directory in its place":    {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "agent.yaml"), 0o700) }, false},
		"over 64 KiB":                 {file(0o600, good+strings.Repeat("# long\n", 10000)), false},
		"a proxy that is a PAC file":  {file(0o600, good+"proxy: http://a.example/proxy.pac\n"), false},
		"a budget that is no number":  {file(0o600, good+"heartbeat: {budget_mb_per_month: much}\n"), false},
		"a resolver that is a name":   {file(0o600, good+"dns: {servers: [dns.example]}\n"), false},
		"a clock policy that is none": {file(0o600, "access: [127.0.0.1]\ntime: {set_system_clock: maybe}\n"), false},
	}
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, c := range cases {
		dir := filepath.Join(t.TempDir(), "data")
		if err := c.made(dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stdout, code, stderr := outcome(t, "hawser-agent", "--data", dir, "config", "check")
		runs, said := runsAtAll(t, dir)
		if runs != c.runs || (code == 0) != c.runs {
			t.Errorf("%s: check says %d %s%s, and run %v %s", name, code, stdout, stderr, runs, said)
		}
		if !runs && !strings.Contains(said, stderr) {
			t.Errorf("%s: check says %q, and run %q", name, stderr, said)
		}
	}
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// runsAtAll starts an agent and returns when it has entered its first state, or has refused to start.
func runsAtAll(t *testing.T, dir string) (runs bool, said string) {
	t.Helper()
	p := watch(t, exec.Command(program(t, "hawser-agent"), "--data", dir, "run"))
	limit := time.After(patience)
	for {
		select {
		case err := <-p.ended:
			p.ended <- err
			return false, p.log.String()
		case <-limit:
			t.Fatalf("%s neither runs nor ends:\n%s", dir, p.log)
		case <-time.After(5 * time.Millisecond):
		}
		if strings.Contains(p.log.String(), "msg=state state=enroll") {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			p.wait()
			return true, p.log.String()
		}
	}
}
