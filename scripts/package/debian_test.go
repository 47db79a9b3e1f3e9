//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A debian is a Debian system of the test's own. It lives in memory, so that nothing of it is left, and starts no service.
type debian struct {
	t    *testing.T
	root string
}

func newDebian(t *testing.T) debian {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "hawser", "debian-bookworm.tar")
	if !exists(base) {
		t.Fatalf("missing %s: scripts/setup test makes it", base)
	}
	d := debian{t, t.TempDir()}
	d.mount("tmpfs", d.root, "tmpfs", 0)
	run(t, exec.Command("tar", "-C", d.root, "--numeric-owner", "-xpf", base))
	d.mount("proc", d.path("proc"), "proc", 0)
	for _, device := range []string{"null", "zero", "urandom"} {
		put(t, d.path("dev", device), "", 0o666)
		d.mount("/dev/"+device, d.path("dev", device), "", unix.MS_BIND)
	}
	put(t, d.path("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n", 0o755)
	return d
}

func (d debian) mount(source, target, kind string, flags uintptr) {
	d.t.Helper()
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		d.t.Fatalf("mount %s: %v", target, err)
	}
	d.t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			d.t.Errorf("unmount %s: %v", target, err)
		}
	})
}

func (d debian) path(parts ...string) string {
	return filepath.Join(d.root, filepath.Join(parts...))
}

// command runs in the system, as root.
func (d debian) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Path = name // as it is there, not here
	if !strings.Contains(name, "/") {
		cmd.Path = "/usr/bin/" + name
	}
	cmd.Err = nil
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: d.root, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command in the system that must succeed.
func (d debian) run(name string, args ...string) string {
	d.t.Helper()
	return run(d.t, d.command(name, args...))
}

// install installs packages: these files, whatever was there before.
func (d debian) install(debs ...string) {
	d.t.Helper()
	args := []string{"--install"}
	for _, file := range debs {
		put(d.t, d.path("tmp", filepath.Base(file)), contents(d.t, file), 0o644)
		args = append(args, "/tmp/"+filepath.Base(file))
	}
	d.run("dpkg", args...)
}

// as is a command of a user of the system.
func (d debian) as(user, name string, args ...string) *exec.Cmd {
	d.t.Helper()
	uid, gid := d.user(user)
	cmd := d.command(name, args...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return cmd
}

func (d debian) user(name string) (uid, gid uint32) {
	d.t.Helper()
	for l := range strings.Lines(contents(d.t, d.path("etc/passwd"))) {
		if f := strings.Split(l, ":"); f[0] == name {
			if _, err := fmt.Sscan(f[2]+" "+f[3], &uid, &gid); err != nil {
				d.t.Fatal(err)
			}
			if uid == 0 || uid >= 1000 || !strings.HasSuffix(strings.TrimSpace(l), "/nologin") {
				d.t.Errorf("%s is no user for a service: %s", name, l)
			}
			return uid, gid
		}
	}
	d.t.Fatalf("there is no user %s", name)
	return 0, 0
}

// chown does what systemd does with a StateDirectory before it starts the service (systemd.exec(5)).
func (d debian) chown(user, dir string) {
	d.t.Helper()
	d.run("chown", "--recursive", user+":"+user, dir)
}

// start starts a program that runs until the test ends, or stop, and returns when it has printed a line with text.
func (d debian) start(cmd *exec.Cmd, text string) (stop func()) {
	d.t.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	w.Close()
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // which ends the output
	defer late.Stop()
	lines := bufio.NewScanner(out)
	var seen strings.Builder
	found := false
	for !found && lines.Scan() {
		fmt.Fprintln(&seen, lines.Text())
		found = strings.Contains(lines.Text(), text)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
		out.Close()
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			<-drained
		}
	}
	d.t.Cleanup(stop)
	if !found {
		d.t.Fatalf("%s did not print %q:\n%s", cmd.Path, text, &seen)
	}
	return stop
}

// json runs a command in the system and decodes what it answers.
func (d debian) json(v any, cmd *exec.Cmd) {
	d.t.Helper()
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		d.t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, out)
	}
}

// wantFile wants a file to have a mode, and to belong to root.
func (d debian) wantFile(path string, mode fs.FileMode) {
	d.t.Helper()
	info, err := os.Lstat(d.path(path))
	if err != nil {
		d.t.Error(err)
		return
	}
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != mode || owner.Uid != 0 || owner.Gid != 0 {
		d.t.Errorf("%s: %v of %d:%d, want %v of root", path, info.Mode(), owner.Uid, owner.Gid, mode)
	}
}

func (d debian) wantGone(paths ...string) {
	d.t.Helper()
	for _, path := range paths {
		if exists(d.path(path)) {
			d.t.Errorf("%s is still there", path)
		}
	}
}

// snapshot is what an upgrade or a removal must not touch: names, modes, owners and contents below directories.
func (d debian) snapshot(dirs ...string) string {
	d.t.Helper()
	return d.run("sh", append([]string{"-c", `find "$@" -printf '%p %M %U:%G\n' -type f -exec sha256sum {} + | sort`, "sh"}, dirs...)...)
}
