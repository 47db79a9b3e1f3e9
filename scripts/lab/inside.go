//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// labDir is the lab's own directory, in memory: the servers' files and logs, and lab.json. COMMAND may use it as well.
const labDir = "/run/lab"

// dirVariable names labDir to COMMAND, and tells this program that it runs within a lab.
const dirVariable = "LAB_DIR"

// description is what COMMAND is told about the lab, in labDir/lab.json.
type description struct {
	Dir     string                  `json:"dir"`
	Hosts   map[string][]netip.Addr `json:"hosts"`    // by name; a host's WAN or site addresses come first, IPv4 before IPv6
	Names   map[string]string       `json:"names"`    // what the resolver knows, and the host it leads to
	BuiltMS int64                   `json:"built_ms"` // how long building took
}

// inside builds the lab in the namespaces of this process, runs COMMAND and returns its exit code.
func inside(o options) (int, error) {
	began := time.Now()
	if err := checkAlone(); err != nil {
		return 0, err
	}
	hosts := o.hosts()
	// In this order: mounts first, because ip keeps its namespaces in /run; the firewall before anybody could pass it.
	for _, step := range []func() error{
		func() error { return isolate(hosts) },
		func() error { return wire(hosts) },
		func() error { return policy{}.load() },
		func() error { return startServers(o) },
		func() error { return o.describe(time.Since(began)).write() },
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return o.runCommand()
}

// checkAlone refuses to build in a network that has anything in it: it would be somebody else's.
func checkAlone() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if os.Getpid() != 1 || len(interfaces) != 1 {
		return errors.New("not in namespaces of its own")
	}
	return nil
}

// isolate makes /run and /etc private and fills in what the lab has there: ip-netns(8) keeps its names in /run/netns, and
// gives each host the files of /etc/netns/HOST. /proc shows the lab's own processes. These mounts are seen by nobody else.
func isolate(hosts []host) error {
	const private, own = syscall.MS_REC | syscall.MS_PRIVATE, syscall.MS_NOSUID | syscall.MS_NODEV
	// Before all others, or these mounts would show outside on systems that share theirs (systemd's default).
	if err := mount("", "/", "", private, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", own|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", own, "mode=0755"); err != nil {
		return err
	}
	// Files are put into the upper layer before it is mounted: those of the host belong to a user that does not exist here,
	// and could be replaced but not written.
	etc, work := filepath.Join(labDir, "etc"), filepath.Join(labDir, "etc.work")
	if err := writeFiles(etc, etcFiles(hosts)); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+etc+",workdir="+work)
}

// mount is mount(2) with an error that says what was to be where.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

// etcFiles are the files that shadow the host's in /etc: names come from the lab's resolver alone. A host has a copy of
// its own, so that a test may point one of them elsewhere.
func etcFiles(hosts []host) map[string]string {
	dns, _ := find(hosts, "dns")
	resolv := fmt.Sprintf("nameserver %s\n", dns.addrs()[0])
	files := map[string]string{"hosts": "127.0.0.1 localhost\n::1 localhost\n", "resolv.conf": resolv}
	for _, h := range hosts {
		files["netns/"+h.name+"/resolv.conf"] = resolv
	}
	return files
}

// writeFiles writes texts by their names below dir, with the directories they need.
func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	return nil
}

// describe is what COMMAND is told of a lab that took so long to build.
func (o options) describe(took time.Duration) description {
	d := description{Dir: labDir, Hosts: map[string][]netip.Addr{}, Names: o.names(), BuiltMS: took.Milliseconds()}
	for _, h := range o.hosts() {
		d.Hosts[h.name] = h.addrs()
	}
	return d
}

// write puts d where readDescription finds it.
func (d description) write() error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("encode description: %w", err)
	}
	return writeFiles(d.Dir, map[string]string{"lab.json": string(text) + "\n"})
}

// readDescription reads that of the lab in which this process runs.
func readDescription() (d description, err error) {
	text, err := os.ReadFile(filepath.Join(labDir, "lab.json"))
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return d, fmt.Errorf("read description of the lab: %w", err)
	}
	return d, nil
}

// runCommand runs COMMAND, or a shell, with this program on its PATH as lab. How a shell that a person uses ends says
// nothing about the lab.
func (o options) runCommand() (int, error) {
	bin, command := filepath.Join(labDir, "bin"), o.command
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(bin, 0o755)
	}
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "lab"))
	}
	if err != nil {
		return 0, fmt.Errorf("put lab on PATH: %w", err)
	}
	if len(command) == 0 {
		command = []string{"/bin/sh"}
		if shell := os.Getenv("SHELL"); shell != "" {
			command[0] = shell
		}
		welcome(os.Stdout)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), dirVariable+"="+labDir, "PATH="+bin+":"+os.Getenv("PATH"))
	code, err := attend(cmd)
	if len(o.command) == 0 {
		code = 0
	}
	return code, err
}

// welcome tells a person at the shell what there is and what can be done with it.
func welcome(w io.Writer) {
	fmt.Fprint(w, "\nThis shell stands in the lab, at its switches. Leaving it takes the lab down.\n\n")
	_ = listHosts(w)
	fmt.Fprint(w, "\n"+verbHelp+"\n")
}
