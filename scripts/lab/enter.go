//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// insideName is the name under which this program starts itself anew within its namespaces.
const insideName = "lab-inside"

// grace is how long COMMAND has to end after it was told to.
const grace = 5 * time.Second

// enter runs this program again in namespaces of its own and returns its exit code.
func enter(args []string) (int, error) {
	if err := checkPrograms("ip", "nft", "ping", "unbound", "dnsmasq", "chronyd", "ntpd"); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = insideName
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PATH="+programPath())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		// One user, who is root inside and nobody special outside: more would need a privileged helper (newuidmap).
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL, // however this process ends, the lab ends too
	}
	code, err := attend(cmd)
	if err != nil {
		err = fmt.Errorf("%w; the lab needs user namespaces, which some systems forbid to users "+
			"(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) and most containers to all", err)
	}
	return code, err
}

// attend starts cmd, hands signals on to it and waits for its end. The error says that it did not start; being ended by a
// signal is an exit code, as in a shell.
func attend(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var deadline <-chan time.Time
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may have ended already
			// Only the inner of the two processes loses its patience: then the outer one sees it end. SIGQUIT asks a Go program
			// for its stacks, which may take a while to write.
			if s != syscall.SIGQUIT && cmd.Args[0] != insideName {
				deadline = cmp.Or(deadline, time.After(grace))
			}
		case <-deadline:
			_ = cmd.Process.Kill()
		case err := <-ended:
			return exitCode(cmd, err)
		}
	}
}

// exitCode is what a shell would make of the end of cmd.
func exitCode(cmd *exec.Cmd, err error) (int, error) {
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return 0, fmt.Errorf("wait for %s: %w", cmd.Path, err)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// programPath is PATH with the places where only root's leads, which is where Debian has what the lab runs, and those
// where scripts/setup unpacks what must not be installed.
func programPath() string {
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	if cache, err := os.UserCacheDir(); err == nil {
		usr := filepath.Join(cache, "hawser", "lab", "usr")
		path += ":" + filepath.Join(usr, "sbin") + ":" + filepath.Join(usr, "bin")
	}
	return path
}

// checkPrograms says which of them are missing, and how to get them.
func checkPrograms(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := lookProgram(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing programs: %s; get them with: scripts/setup test", strings.Join(missing, ", "))
	}
	return nil
}

// lookProgram finds a program.
func lookProgram(name string) (string, error) {
	for _, dir := range filepath.SplitList(programPath()) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
