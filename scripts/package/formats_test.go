//go:build linux

package main

import (
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// agentFiles is what the agent's packages have to bring: modes of files below their roots. All belong to root.
var (
	openWrtFiles = map[string]string{
		"usr/bin/hawser-agent": "-rwxr-xr-x", "etc/init.d/hawser-agent": "-rwxr-xr-x", "etc/config/hawser": "-rw-------",
		"usr/lib/hawser/uci.sh": "-rw-r--r--", "lib/upgrade/keep.d/hawser-agent": "-rw-r--r--",
	}
	systemdFiles = map[string]string{
		"usr/bin/hawser-agent": "-rwxr-xr-x", "usr/lib/systemd/system/hawser-agent.service": "-rw-r--r--",
		"usr/lib/sysusers.d/hawser-agent.conf": "-rw-r--r--", "usr/share/man/man8/hawser-agent.8.gz": "-rw-r--r--",
		"usr/share/bash-completion/completions/hawser-agent": "-rw-r--r--", "usr/share/fish/vendor_completions.d/hawser-agent.fish": "-rw-r--r--",
	}
)

// machines is what the programs for each target run on, and the architecture by which each format calls it.
var machines = map[string]struct {
	machine             elf.Machine
	class               elf.Class
	order               elf.Data
	deb, rpm, apkAndIpk string
}{
	"linux-amd64":            {elf.EM_X86_64, elf.ELFCLASS64, elf.ELFDATA2LSB, "amd64", "x86_64", "x86_64"},
	"linux-arm64":            {elf.EM_AARCH64, elf.ELFCLASS64, elf.ELFDATA2LSB, "arm64", "aarch64", "aarch64_cortex-a53"},
	"linux-arm-7":            {elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB, "armhf", "armv7hl", "arm_cortex-a7_neon-vfpv4"},
	"linux-arm-5":            {elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB, "armel", "armv5tel", "arm_arm926ej-s"},
	"linux-mipsle-softfloat": {elf.EM_MIPS, elf.ELFCLASS32, elf.ELFDATA2LSB, "mipsel", "mipsel", "mipsel_24kc"},
}

// listed is what an archive of bsdtar's kinds (tar, rpm, apk) holds: mode and owner of each file.
func listed(t *testing.T, archive string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for l := range strings.Lines(run(t, exec.Command("bsdtar", "--numeric-owner", "-tvf", archive))) {
		f := strings.Fields(l)
		name := strings.TrimLeft(f[len(f)-1], "./")
		if f[2] != "0" || f[3] != "0" {
			t.Errorf("%s: %s belongs to %s:%s", filepath.Base(archive), name, f[2], f[3])
		}
		if !strings.HasPrefix(f[0], "d") {
			found[name] = f[0]
		}
	}
	return found
}

// unpack unpacks a package of any format into a directory, and returns the archive of its files.
func unpack(t *testing.T, file, dir string) (archive string) {
	t.Helper()
	switch filepath.Ext(file) {
	case ".ipk": // a tar of tars
		outer := t.TempDir()
		run(t, exec.Command("tar", "-C", outer, "-xzf", file))
		if version := contents(t, filepath.Join(outer, "debian-binary")); version != "2.0\n" {
			t.Errorf("%s has version %q", file, version)
		}
		put(t, filepath.Join(dir, "control/x"), "", 0o600)
		run(t, exec.Command("tar", "-C", filepath.Join(dir, "control"), "-xzf", filepath.Join(outer, "control.tar.gz")))
		archive = filepath.Join(outer, "data.tar.gz")
	case ".deb":
		archive = filepath.Join(t.TempDir(), "data.tar")
		run(t, exec.Command("sh", "-c", `dpkg-deb --fsys-tarfile "$1" >"$2"`, "sh", file, archive))
		run(t, exec.Command("dpkg-deb", "--control", file, filepath.Join(dir, "control")))
	default:
		archive = file
	}
	put(t, filepath.Join(dir, "root/x"), "", 0o600)
	if err := os.Remove(filepath.Join(dir, "root/x")); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("bsdtar", "-C", filepath.Join(dir, "root"), "-xpf", archive))
	return archive
}

// Every package of the agent unpacks into the right files, with the program of the machine that its name promises.
func TestEveryPackageHasItsFiles(t *testing.T) {
	t.Attr("id", "I2")
	packages := 0
	for _, target := range slices.Sorted(maps.Keys(machines)) {
		m := machines[target]
		for pattern, want := range map[string]map[string]string{
			"hawser-agent_*_" + m.deb + ".deb": systemdFiles, "hawser-agent-*." + m.rpm + ".rpm": systemdFiles,
			"hawser-agent_*-1_" + m.apkAndIpk + ".ipk": openWrtFiles, "hawser-agent_*-r1_" + m.apkAndIpk + ".apk": openWrtFiles,
		} {
			dir := t.TempDir()
			file := made(t, "packages/"+pattern)
			found := listed(t, unpack(t, file, dir))
			for name, mode := range want {
				if found[name] != mode {
					t.Errorf("%s: %s has mode %q, want %s", filepath.Base(file), name, found[name], mode)
				}
			}
			program, err := elf.Open(filepath.Join(dir, "root/usr/bin/hawser-agent"))
			if err != nil {
				t.Fatal(err)
			}
			if h := program.FileHeader; h.Machine != m.machine || h.Class != m.class || h.Data != m.order {
				t.Errorf("%s holds a program for %v %v", filepath.Base(file), h.Machine, h.Class)
			}
			program.Close()
			packages++
		}
	}
	t.Attr("count", fmt.Sprintf("packages of the agent unpacked=%d", packages))
}

func TestOpenWrtPackagesSayWhatTheyAre(t *testing.T) {
	t.Attr("id", "I2")
	dir := t.TempDir()
	unpack(t, made(t, "packages/hawser-agent_*_mipsel_24kc.ipk"), dir)
	control := filepath.Join(dir, "control")
	for _, want := range []string{"Package: hawser-agent\n", "Architecture: mipsel_24kc\n", "Version: 0", "License: Apache-2.0\n"} {
		if text := contents(t, filepath.Join(control, "control")); !strings.Contains(text, want) {
			t.Errorf("control has no %q: %s", want, text)
		}
	}
	if text := contents(t, filepath.Join(control, "conffiles")); strings.TrimSpace(text) != "/etc/config/hawser" {
		t.Errorf("conffiles %q", text)
	}
	// sysupgrade keeps what is listed: the configuration as a conffile, the identity by this.
	if text := contents(t, filepath.Join(dir, "root/lib/upgrade/keep.d/hawser-agent")); text != "/etc/hawser/\n" {
		t.Errorf("keep.d %q", text)
	}
	for _, name := range []string{"postinst", "prerm"} {
		if info, err := os.Stat(filepath.Join(control, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	found := listed(t, made(t, "packages/hawser-agent_*_mipsel_24kc.apk"))
	for _, name := range []string{"PKGINFO", "post-install", "pre-deinstall"} {
		if found[name] == "" {
			t.Errorf("the apk has no .%s: %v", name, found)
		}
	}
}

// Packages of server and Manager for systems without systemd or dpkg.
func TestOtherPackagesHaveTheirFiles(t *testing.T) {
	t.Attr("id", "I2")
	for pattern, want := range map[string][]string{
		"hawser-server_*-r1_x86_64.apk":  {"usr/bin/hawser-server", "etc/init.d/hawser-server", "usr/lib/sysctl.d/60-hawser-server.conf", "pre-install"},
		"hawser-server_*-r1_aarch64.apk": {"usr/bin/hawser-server", "etc/init.d/hawser-server"},
		"hawser_*-r1_x86_64.apk":         {"usr/bin/hawser", "usr/share/man/man1/hawser.1.gz"},
		"hawser-server-*.x86_64.rpm": {"usr/bin/hawser-server", "usr/lib/systemd/system/hawser-server.service",
			"usr/lib/sysusers.d/hawser-server.conf", "usr/lib/tmpfiles.d/hawser-server.conf", "usr/lib/sysctl.d/60-hawser-server.conf"},
		"hawser-0*.aarch64.rpm": {"usr/bin/hawser", "usr/share/man/man1/hawser.1.gz"},
	} {
		found := listed(t, made(t, "packages/"+pattern))
		for _, name := range want {
			if found[name] == "" {
				t.Errorf("%s has no %s: %v", pattern, name, found)
			}
		}
	}
}

// The rpm's scripts are run as rpm runs them, with how many versions there will be, over its unpacked files in a system
// with systemd's tools. That is not an installation, but nothing of them is left untried.
func TestRPMScriptsMakeTheUserAndKeepTheState(t *testing.T) {
	t.Attr("id", "I2")
	d := newDebian(t)
	put(t, d.path("usr/lib/systemd/system-preset/00-test.preset"), "enable hawser-*.service\n", 0o644)
	for i, name := range []string{"hawser-agent", "hawser-server"} {
		run(t, exec.Command("bsdtar", "-C", d.root, "-xpf", made(t, "packages/"+name+"-0*."+machines["linux-"+runtime.GOARCH].rpm+".rpm")))
		p := packing{release: &release{}, pack: pack{program: programs[i], format: "rpm"}}
		script := func(file, versions string) {
			t.Helper()
			d.run("sh", "-euc", p.file("rpm/"+file), "sh", versions)
		}
		script("post", "1")
		d.user(name)
		wants := "/etc/systemd/system/multi-user.target.wants/" + name + ".service"
		if !exists(d.path(wants)) {
			t.Errorf("%s is not enabled, as the preset says", name)
		}
		put(t, d.path(programs[i].daemon.state, "kept"), "", 0o600)
		script("post", "2") // an upgrade: the new one's, then those of the old one
		script("preun", "1")
		script("postun", "1")
		if !exists(d.path(wants)) {
			t.Errorf("the upgrade disabled %s", name)
		}
		script("preun", "0")
		script("postun", "0")
		d.wantGone(wants)
		if !exists(d.path(programs[i].daemon.state, "kept")) {
			t.Errorf("the removal of %s erased its state", name)
		}
	}
	if info, err := os.Stat(d.path("/var/lib/hawser-server")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the server's directory: %v, %v", info, err)
	}
}
