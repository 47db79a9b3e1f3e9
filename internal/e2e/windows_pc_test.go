//go:build linux

package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
)

// hawserDir is where the agent keeps everything on Windows, and programDir where install.cmd puts the programs.
const (
	hawserDir  = "ProgramData/Hawser"
	programDir = "Program Files/Hawser"
	agentExe   = `C:\Program Files\Hawser\hawser-agent.exe`
)

// The server and the technician are programs of this system; the gateway is the Windows build under Wine, installed from
// the zip.
func TestTheWindowsBuildIsAGateway(t *testing.T) {
	t.Attr("id", "I3")
	w := newWine(t)
	unzip(t, windowsZip(t), w.inC("zip"))
	t.Run("the zip installs the service", func(t *testing.T) { t.Attr("id", "I3"); w.t = t; w.installs() })

	echo := machine(t, func(c net.Conn) {
		io.Copy(c, c)
		c.(*net.TCPConn).CloseWrite()
	})
	g := newInfra(t).addDevice("pc", loopbackAllowed)
	agent := w.enrolls(t, g)
	t.Run("netcheck finds the way", func(t *testing.T) { t.Attr("id", "I3"); w.t = t; w.netchecks() })
	t.Run("status answers on the pipe", func(t *testing.T) { t.Attr("id", "I3"); w.t = t; w.answers(g) })
	t.Run("a session carries 8 MiB bit for bit", func(t *testing.T) { t.Attr("id", "I3"); carries(t, g, echo) })
	w.t = t
	w.stops(agent)
	t.Run("a key that others may read is refused", func(t *testing.T) { t.Attr("id", "I3"); w.t = t; w.refusesAnOpenKey() })
	t.Run("uninstall leaves the identity and nothing else", func(t *testing.T) { t.Attr("id", "I3"); w.t = t; w.uninstalls() })
}

// windowsZip packs twice: the same commit makes the same zip.
func windowsZip(t *testing.T) []byte {
	t.Helper()
	var packed [2][]byte
	for i := range packed {
		dir := t.TempDir()
		if out, err := exec.CommandContext(t.Context(), "../../scripts/windows-zip", dir, "amd64").CombinedOutput(); err != nil {
			t.Fatalf("pack: %v\n%s", err, out)
		}
		files, err := filepath.Glob(filepath.Join(dir, "hawser_*_windows_amd64.zip"))
		if err != nil || len(files) != 1 {
			t.Fatalf("packed %q, %v", files, err)
		}
		if packed[i], err = os.ReadFile(files[0]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("the same programs made two different zips")
	}
	return packed[0]
}

func unzip(t *testing.T, packed []byte, dir string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err == nil {
		err = os.CopyFS(dir, z)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keys of the registry that are there while the service is installed.
const (
	serviceKey = `HKLM\System\CurrentControlSet\Services\hawser-agent`
	sourceKey  = `HKLM\System\CurrentControlSet\Services\EventLog\Application\hawser-agent`
)

// installs runs install.cmd twice: the second time is the upgrade.
func (w *wine) installs() {
	w.t.Helper()
	for range 2 {
		w.run(nil, "cmd", "/c", `C:\zip\install.cmd`, "/nostart")
	}
	if state := strings.TrimSpace(w.run(nil, agentExe, "service", "status")); state != "stopped" {
		w.t.Errorf("installed, it is %q", state)
	}
	service := w.run(nil, "reg", "query", serviceKey)
	for _, want := range []string{`"` + agentExe + `" run`, "LocalSystem", "Start    REG_DWORD    0x2", "Hawser Runtime"} {
		if !strings.Contains(service, want) {
			w.t.Errorf("the service has no %s:\n%s", want, service)
		}
	}
	if source := w.run(nil, "reg", "query", sourceKey); !strings.Contains(source, "EventMessageFile") || !strings.Contains(source, "0x7") {
		w.t.Errorf("the event source is\n%s", source)
	}
}

// uninstalls checks what is left.
func (w *wine) uninstalls() {
	w.t.Helper()
	w.run(nil, "cmd", "/c", `C:\zip\uninstall.cmd`)
	for _, key := range []string{serviceKey, sourceKey} {
		if out, code, _ := w.outcome("reg", "query", key); code == 0 {
			w.t.Errorf("left behind:\n%s", out)
		}
	}
	if _, err := os.Stat(w.inC(programDir)); err == nil {
		w.t.Error("the programs are still there")
	}
	if _, err := os.Stat(w.inC(hawserDir + "/identity.pem")); err != nil {
		w.t.Errorf("the identity is gone: %v", err)
	}
	w.run(nil, "cmd", "/c", `C:\zip\uninstall.cmd`, "/purge")
	if _, err := os.Stat(w.inC(hawserDir)); err == nil {
		w.t.Error("the identity outlived /purge")
	}
}

// enrolls leaves the agent running, online. Its directory had been made by somebody and was open to all.
func (w *wine) enrolls(t *testing.T, g *gateway) *process {
	t.Helper()
	w.t = t
	if err := os.MkdirAll(w.inC(hawserDir), 0o777); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(g.data, "agent.yaml"))
	if err == nil {
		config = bytes.ReplaceAll(config, []byte(g.root), []byte("'"+w.path(g.root)+"'"))
		err = os.WriteFile(w.inC(hawserDir+"/agent.yaml"), config, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var enrolled, shown struct{ UID string }
	w.run(&enrolled, agentExe, "enroll", "--code", g.code, "--json")
	w.run(&shown, agentExe, "identity", "show", "--json")
	if enrolled.UID != g.uid || shown.UID != g.uid {
		t.Errorf("enrolled as %s, shows %s, want %s", enrolled.UID, shown.UID, g.uid)
	}
	for _, name := range []string{"", "/device.key", "/identity.pem"} {
		if info, err := os.Stat(w.inC(hawserDir + name)); err != nil || info.Mode()&0o007 != 0 {
			t.Errorf("%s%s: %v, %v; want nothing for others", hawserDir, name, info.Mode(), err)
		}
	}
	agent := watch(t, w.command(agentExe, "run"))
	agent.line("online " + g.uid)
	return agent
}

func (w *wine) netchecks() {
	w.t.Helper()
	var report struct {
		Verdict struct{ OK bool }
		Ways    []struct{ OK bool }
	}
	w.run(&report, agentExe, "netcheck", "--json")
	if !report.Verdict.OK || len(report.Ways) == 0 {
		w.t.Errorf("%+v", report)
	}
}

// answers asks for the status several times: the pipe is there for each client.
func (w *wine) answers(g *gateway) {
	w.t.Helper()
	for range 3 {
		var st struct {
			State, UID string
			Access     struct{ Way string }
			Clock      struct{ State string }
		}
		w.run(&st, agentExe, "status", "--json")
		if st.State != "attached" || st.UID != g.uid || st.Access.Way != "direct" || st.Clock.State != "authentic" {
			w.t.Errorf("%+v", st)
		}
	}
	if _, code, errs := w.outcome(agentExe, "--data", `C:\another`, "status"); code != 1 || !strings.Contains(errs, "no hawser-agent is running") {
		w.t.Errorf("the agent of another directory: exit %d: %s", code, errs)
	}
	if _, code, errs := w.outcome(agentExe, "identity", "reset", "--yes"); code != 1 || !strings.Contains(errs, "the agent is running") {
		w.t.Errorf("reset under a running agent: exit %d: %s", code, errs)
	}
}

func carries(t *testing.T, g *gateway, echo string) {
	const size = 8 << 20
	_, addr := g.connect(echo)
	c := dial(t, new(pace.Progress), addr)
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, noise(3, size))
		sent <- err
		c.CloseWrite()
	}()
	got, n := sum(t, c)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if want, _ := sum(t, noise(3, size)); got != want {
		t.Errorf("%d of %d bytes came back, or others", n, size)
	}
}

// stops presses ^C.
func (w *wine) stops(agent *process) {
	w.t.Helper()
	agent.cmd.Process.Signal(syscall.SIGINT)
	if err := agent.wait(); err != nil {
		w.t.Errorf("it did not end cleanly: %v", err)
	}
}

// refusesAnOpenKey lets everybody read the key, and then nobody again.
func (w *wine) refusesAnOpenKey() {
	w.t.Helper()
	key := w.inC(hawserDir + "/device.key")
	if err := os.Chmod(key, 0o604); err != nil {
		w.t.Fatal(err)
	}
	if _, code, errs := w.outcome(agentExe, "identity", "show"); code != 1 || !strings.Contains(errs, "Everyone") || !strings.Contains(errs, "open to other users") {
		w.t.Errorf("exit %d: %s", code, errs)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.run(nil, agentExe, "identity", "show")
}

// Packages with code for Windows, and the tests of theirs that this Wine cannot run: it lets a second process make the
// first instance of a pipe. Other tests of transport's want the errors of POSIX, as the network in memory has them.
const (
	windowsPackages = "./board/... ./internal/durable"
	notUnderWine    = "^TestAnAddressIsServedOnce$"
	ofTransport     = "^TestProxiesOfWindowsAreRead$"
)

func TestTheWindowsCodePassesItsTests(t *testing.T) {
	t.Attr("id", "I3")
	w := newWine(t)
	// A service that Wine starts on the way outlives the program, and has its output open: go test would wait for it. So
	// that goes to a file first.
	loader := filepath.Join(t.TempDir(), "loader")
	script := "#!/bin/sh\n" + `out=$(mktemp) && "` + w.loader + `" "$@" >"$out" 2>&1 </dev/null; code=$?; cat "$out"; rm "$out"; exit $code` + "\n"
	if err := os.WriteFile(loader, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, which := range []string{"-skip " + notUnderWine + " " + windowsPackages, "-run " + ofTransport + " ./transport"} {
		args := append([]string{"test", "-json", "-trimpath", "-exec", loader}, strings.Fields(which)...)
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env, cmd.WaitDelay = "../..", append(w.env, "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0"), time.Second
		one, err := cmd.Output()
		if err != nil {
			t.Errorf("%v\n%s", err, one)
		}
		out = append(out, one...)
	}
	if !bytes.Contains(out, []byte(`"Test":"TestProxiesOfWindowsAreRead","Output":"--- PASS`)) {
		t.Error("the settings of Windows were not read")
	}
	passed := 0
	for line := range bytes.Lines(out) {
		var e struct{ Action, Test string }
		if json.Unmarshal(line, &e) == nil && e.Action == "pass" && e.Test != "" {
			passed++
		}
	}
	if passed < 40 {
		t.Errorf("only %d tests passed", passed)
	}
	t.Logf("%d tests passed as a Windows program", passed)
}
