//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dirVariable names the directory with what the tests are about, made once for all of them: bin/, packages/ and, of the
// version after that one, next/. It also says that this process is in namespaces of its own.
const dirVariable = "HAWSER_PACKAGE_TEST"

// TestMain starts the test program anew where it may mount, be any user and start servers, and nobody sees it: packages
// are tried by installing them. Root only needs to go apart for that; anybody else becomes root in a user namespace.
func TestMain(m *testing.M) {
	var code int
	var err error
	if dir := os.Getenv(dirVariable); dir == "" {
		code, err = runApart()
	} else if err = makeAll(dir); err == nil {
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runApart() (code int, err error) {
	dir, err := os.MkdirTemp("", "hawser-packages-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	args := []string{"--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			return 1, fmt.Errorf("packages are installed in a chroot with users of its own, which takes root, or newuidmap and a line "+
				"for you in /etc/subuid and /etc/subgid: %w; on Debian, as root:  apt-get install uidmap", err)
		}
		args = append(args, "--user", "--map-root-user", "--map-auto")
	}
	// Whatever runs in there, an agent with the configuration that enroll writes among it: the clock is this machine's.
	args = append(args, "--", "setpriv", "--bounding-set=-sys_time", self)
	cmd := exec.Command("unshare", append(args, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), dirVariable+"="+dir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// makeAll builds the programs for every target, and of them what a release consists of.
func makeAll(dir string) error {
	for _, t := range targets {
		names := []string{"hawser-agent"}
		if t.all {
			names = append(names, "hawser-server", "hawser")
		}
		if err := buildPrograms("../..", filepath.Join(dir, "bin", t.dir), t.dir, names...); err != nil {
			return err
		}
	}
	var errs []error
	for out, next := range map[string]bool{"packages": false, "next": true} {
		r := release{bin: filepath.Join(dir, "bin"), out: filepath.Join(dir, out), nfpm: nfpmFile(), only: "*/*/*", maintainer: "Test <test@hawser.example.com>"}
		if next {
			r.only = "*/linux-" + runtime.GOARCH + "/deb"
		}
		errs = append(errs, r.readVersion(next), r.make())
	}
	return errors.Join(errs...)
}

// buildPrograms builds programs of the repository at root for a target, as a release is built.
func buildPrograms(root, out, target string, names ...string) error {
	words := append(strings.Split(target, "-"), "")
	cmd := exec.Command("scripts/build", append([]string{out}, names...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+words[0], "GOARCH="+words[1], "GOMIPS=softfloat", "CGO_ENABLED=0")
	if words[1] == "arm" {
		cmd.Env = append(cmd.Env, "GOARM="+words[2])
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", names, target, err, text)
	}
	return nil
}

func nfpmFile() string {
	cache, _ := os.UserCacheDir()
	return filepath.Join(cache, "hawser", "tools", "nfpm-"+nfpmVersion)
}

// made is the one file in a directory of what was made that matches a pattern.
func made(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv(dirVariable), pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: found %q, %v; want one", pattern, found, err)
	}
	return found[0]
}

// deb is the package of a program for this machine.
func deb(t *testing.T, dir, program string) string {
	t.Helper()
	return made(t, dir+"/"+program+"_*_"+runtime.GOARCH+".deb")
}

// run runs a command that must succeed and returns what it printed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func contents(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// patience bounds every wait; what waits so long has failed.
const patience = 2 * time.Minute

// native is a program for this machine.
func native(name string) string {
	return filepath.Join(os.Getenv(dirVariable), "bin", "linux-"+runtime.GOARCH, name)
}
