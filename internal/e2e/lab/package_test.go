//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A fresh Debian on the gateway with the package, a configuration, a code and nothing else: it installs, enrolls, is online, and
// a session through it carries bytes.
func TestPackageOnAFreshSystemReachesTheInfrastructure(t *testing.T) {
	t.Attr("id", "I4")
	r := newRig(t)
	s := newSystem(t, "device")
	s.put("/tmp/agent.deb", makeDeb(t, r.path("packages")), 0o644)
	s.run("dpkg", "--install", "/tmp/agent.deb")

	var added struct{ UID, Code string }
	r.manager(&added, "device", "add", "press-4", "--json")
	s.put("/etc/hawser/infrastructure.pem", contents(t, r.root), 0o644)
	s.put("/etc/hawser/agent.yaml", fmt.Appendf(nil, "access: [%s]\nroot: infrastructure.pem\n", accessName), 0o644)
	s.run("hawser-agent", "enroll", "--code", added.Code)
	agent := start(t, "device", "chroot", s.root, "hawser-agent", "run")
	online := agent.await(0, "online "+added.UID)
	t.Logf("online %v after the start", online.at.Sub(agent.began))

	g := &gateway{rig: r, name: "press-4", uid: added.UID}
	if !g.online() {
		t.Error("the Access Server does not tell the technician that the gateway is online")
	}
	_, addrs := g.connect(t, echoMachine(t))
	machine := mustUse(t, addrs[0])
	const trips = 20
	for range trips {
		if _, err := machine.trip(outer); err != nil {
			t.Fatal(err)
		}
	}
	t.Attr("count", fmt.Sprintf("round trips through a packaged agent=%d", trips+1))
	s.run("hawser-agent", "status")
	agent.stop()
}

// makeDeb makes the agent's package for this machine of the program that is tested, in a directory of its own.
func makeDeb(t *testing.T, dir string) []byte {
	t.Helper()
	target := "linux-" + runtime.GOARCH
	bin := filepath.Join(dir, "bin", target)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", hawser("hawser-agent"), bin)
	run(t, hawser("package"), "-bin", filepath.Join(dir, "bin"), "-out", filepath.Join(dir, "out"), "-only", "hawser-agent/"+target+"/deb")
	found, err := filepath.Glob(filepath.Join(dir, "out", "*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("made %q, %v; want one package", found, err)
	}
	return contents(t, found[0])
}

// A system is a Debian in a directory, on a host of the lab: fresh, in memory, and gone with the test.
type system struct {
	t          *testing.T
	host, root string
}

func newSystem(t *testing.T, host string) system {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "hawser", "debian-bookworm.tar")
	if _, err := os.Stat(base); err != nil {
		t.Fatalf("%v: scripts/setup test makes it", err)
	}
	s := system{t, host, t.TempDir()}
	s.mount("tmpfs", s.root, "tmpfs", 0)
	run(t, "tar", "-C", s.root, "--no-same-owner", "-xpf", base) // the lab has one user
	s.mount("/proc", s.path("proc"), "", unix.MS_BIND|unix.MS_REC)
	s.put("/dev/null", nil, 0o666)
	s.mount("/dev/null", s.path("dev/null"), "", unix.MS_BIND)
	s.put("/etc/resolv.conf", contents(t, filepath.Join("/etc/netns", host, "resolv.conf")), 0o644)
	return s
}

func (s system) path(name string) string { return filepath.Join(s.root, name) }

func (s system) put(name string, text []byte, mode os.FileMode) {
	s.t.Helper()
	err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(s.path(name), text, mode)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s system) mount(source, target, kind string, flags uintptr) {
	s.t.Helper()
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		s.t.Fatalf("mount %s: %v", target, err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			s.t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// run runs a command in the system that must succeed.
func (s system) run(command ...string) string {
	s.t.Helper()
	chroot, err := exec.LookPath("chroot")
	if err != nil {
		s.t.Fatal(err)
	}
	return run(s.t, append([]string{"lab", "exec", s.host, chroot, s.root}, command...)...)
}
