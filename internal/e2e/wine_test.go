//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wine runs Windows programs in a prefix, which is a Windows of their own: registry, services, %ProgramData%.
type wine struct {
	t      *testing.T
	loader string // wine64
	server string // wineserver
	prefix string
	env    []string
}

// newWine makes a prefix, which takes about ten seconds, and ends with the test what runs in it.
func newWine(t *testing.T) *wine {
	t.Helper()
	w := &wine{t: t, prefix: filepath.Join(t.TempDir(), "prefix")}
	w.loader = find(t, "wine64", "/usr/lib/wine/wine64", "/usr/bin/wine64")
	w.server = find(t, "wineserver", "/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver")
	// No window, no .NET, no HTML: nothing of it is needed, and each would be asked for.
	w.env = append(os.Environ(), "WINEPREFIX="+w.prefix, "WINEARCH=win64", "WINEDEBUG=-all", "DISPLAY=",
		"WINEDLLOVERRIDES=mscoree,mshtml=", "WINESERVER="+w.server)
	t.Cleanup(w.shutDown)
	w.session()
	dll := filepath.Join(w.prefix, "drive_c/windows/system32/bcryptprimitives.dll")
	if _, err := os.Stat(dll); err != nil {
		cc := find(t, "x86_64-w64-mingw32-gcc")
		if out, err := exec.Command(cc, "-shared", "-O2", "-s", "-o", dll, "testdata/wine/bcryptprimitives.c", "-ladvapi32").CombinedOutput(); err != nil {
			t.Fatalf("build bcryptprimitives.dll: %v\n%s", err, out)
		}
	}
	return w
}

// session makes the prefix, and keeps it in use by a prompt that nobody types at: with the last program its services
// would end, and start again with the next. They write to what the first program wrote to, which therefore is no pipe of
// ours.
func (w *wine) session() {
	w.t.Helper()
	log, err := os.Create(w.prefix + ".log")
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	boot, prompt := w.command("wineboot", "-i"), w.command("cmd")
	boot.Stdout, boot.Stderr, prompt.Stdout, prompt.Stderr = log, log, log, log
	hung := time.AfterFunc(patience, w.shutDown)
	defer hung.Stop()
	if err = boot.Run(); err != nil {
		b, _ := os.ReadFile(log.Name())
		w.t.Fatalf("make prefix: %v\n%s", err, b)
	}
	w.shutDown()
	stdin, err := prompt.StdinPipe()
	if err == nil {
		err = prompt.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { stdin.Close(); prompt.Wait() })
}

// find returns the first of these programs that is there.
func find(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: scripts/setup test installs it", names[0])
	return ""
}

// shutDown ends the services of the prefix; its programs have ended.
func (w *wine) shutDown() {
	for _, how := range []string{"-k", "-w"} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, w.server, how)
		cmd.Env = w.env
		cmd.Run() // -k fails when nothing runs any more
		cancel()
	}
}

// command is a Windows program and its arguments; the test's end ends it.
func (w *wine) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.t.Context(), w.loader, args...)
	cmd.Env = w.env
	return cmd
}

// outcome runs a program to its end.
func (w *wine) outcome(args ...string) (stdout string, code int, stderr string) {
	w.t.Helper()
	ended := time.AfterFunc(patience, func() { w.t.Errorf("%q takes too long", args); w.shutDown() })
	defer ended.Stop()
	var out, errs bytes.Buffer
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode(), errs.String()
}

// run wants a program to succeed, and decodes its JSON answer into v.
func (w *wine) run(v any, args ...string) (stdout string) {
	w.t.Helper()
	out, code, errs := w.outcome(args...)
	if code != 0 {
		w.t.Fatalf("%q: exit %d: %s", args, code, errs)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(out), v); err != nil {
			w.t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	return out
}

// path is what Windows calls a file of this system.
func (*wine) path(file string) string { return `Z:` + strings.ReplaceAll(file, "/", `\`) }

// inC is what this system calls a file of drive C.
func (w *wine) inC(file string) string { return filepath.Join(w.prefix, "drive_c", file) }
