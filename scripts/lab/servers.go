//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	serverPatience = time.Minute // until a server has its port; what waits so long has failed
	serverPoll     = 5 * time.Millisecond
)

// server is a real server on a host. It stays in the foreground and ends with the lab.
type server struct {
	host, program string
	args          func(conf string) []string
	conf          []string // lines
	network       string   // "udp" or "tcp", with the port on it that it opens when it is ready
	port          uint16
}

// The clock belongs to the host that everybody shares, and may never be touched: hence chronyd's -x. ntpd has no such
// flag that lets it serve; the kernel refuses it here, because the lab's root is root of the lab alone.
func (o options) servers() []server {
	unbound := func(conf string) []string { return []string{"-d", "-c", conf} }
	dnsmasq := func(conf string) []string { return []string{"-d", "-C", conf} }
	chronyd := func(conf string) []string { return []string{"-d", "-x", "-f", conf} }
	ntpd := func(conf string) []string { return []string{"-n", "-c", conf} }
	return []server{
		{"dns", "unbound", unbound, o.unboundConf("dns", "access-control: 0.0.0.0/0 allow", "access-control: ::/0 allow"), "udp", 53},
		{"dns-tcp", "unbound", unbound, o.unboundConf("dns-tcp", "do-udp: no", "access-control: 0.0.0.0/0 allow", "access-control: ::/0 allow"), "tcp", 53},
		{"dns-lame", "unbound", unbound, o.unboundConf("dns-lame", "access-control: 0.0.0.0/0 refuse", "access-control: ::/0 refuse"), "udp", 53},
		{"dns-hijack", "dnsmasq", dnsmasq, o.dnsmasqConf(), "udp", 53},
		{"time", "chronyd", chronyd, chronyConf("time", "local stratum 2"), "udp", 123},
		// It takes what time says for an hour late, and so believes that its own clock is: what it serves is an hour ahead.
		{"time-ahead", "chronyd", chronyd, chronyConf("time-ahead", "server "+o.addr("time")+" iburst offset 3600"), "udp", 123},
		{"time-lost", "chronyd", chronyd, chronyConf("time-lost"), "udp", 123},
		{"time-limit", "chronyd", chronyd, chronyConf("time-limit", "local stratum 2", "ratelimit interval 6 burst 2 leak 4"), "udp", 123},
		{"time-ntpsec", "ntpd", ntpd, o.ntpsecConf("restrict default"), "udp", 123},
		{"time-kod", "ntpd", ntpd, o.ntpsecConf("restrict default limited kod", "limit average 0.05 burst 2 kod 20"), "udp", 123},
	}
}

// startServers starts them all and returns when all are ready.
func startServers(o options) error {
	all := o.servers()
	started := make([]*process, len(all))
	for i, s := range all {
		p, err := s.start()
		if err != nil {
			return fmt.Errorf("start %s: %w", s.program, err)
		}
		started[i] = p
	}
	// Only now is waited: they get ready beside each other.
	for i, s := range all {
		if err := started[i].await(s.network, s.port); err != nil {
			return fmt.Errorf("start %s: %w", s.program, err)
		}
	}
	return nil
}

// process is a server that has been started.
type process struct {
	pid   int
	log   string
	ended chan struct{} // closed when it has
}

// start runs a copy of the program: the profiles with which Debian confines its servers (AppArmor) go by the path of the
// program, and allow it the system's files but not the lab's.
func (s server) start() (*process, error) {
	dir := filepath.Join(labDir, s.host)
	file, err := copyProgram(s.program, dir)
	if err != nil {
		return nil, err
	}
	if err := writeFiles(dir, map[string]string{"conf": strings.Join(s.conf, "\n") + "\n"}); err != nil {
		return nil, err
	}
	p := &process{log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	defer log.Close() // the server has its own
	args := append([]string{"netns", "exec", s.host, file}, s.args(filepath.Join(dir, "conf"))...)
	cmd := exec.Command("ip", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid // ip has become the server by the time that matters
	// The goroutine ends with the server, and that with the lab: nobody waits for either.
	go func() { _ = cmd.Wait(); close(p.ended) }()
	return p, nil
}

// copyProgram puts a copy of a program into dir, which lies in memory, and returns its path.
func copyProgram(name, dir string) (string, error) {
	from, err := lookProgram(name)
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("read program: %w", err)
	}
	to := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	return to, os.WriteFile(to, program, 0o755)
}

// await returns when the process has the port open: from then on no question is lost.
func (p *process) await(network string, port uint16) error {
	deadline := time.After(serverPatience)
	for poll := time.NewTicker(serverPoll); ; {
		select {
		case <-p.ended:
			return p.failed("ended")
		case <-deadline:
			return p.failed(fmt.Sprintf("%s port %d not open after %v", network, port, serverPatience))
		case <-poll.C:
			// The table is that of the process's own network (proc_pid_net(5)); the port is the local one, in hexadecimal.
			table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.pid, network))
			if err == nil && strings.Contains(string(table), fmt.Sprintf(":%04X 00000000:", port)) {
				return nil
			}
		}
	}
}

// failed is an error with the log, which would be gone with the lab.
func (p *process) failed(what string) error {
	text, _ := os.ReadFile(p.log)
	return errors.New(what + "; its log:\n" + string(text))
}

// addr is a host's first address.
func (o options) addr(name string) string {
	h, _ := find(o.hosts(), name)
	return h.addrs()[0].String()
}

// unboundConf answers the lab's names, and that there is no other name: nothing is asked of anybody outside, who would
// not be reached. It runs as it is started, a user in the lab's user namespace.
func (o options) unboundConf(host string, more ...string) []string {
	lines := append([]string{"server:", `username: ""`, `chroot: ""`, `pidfile: ""`, "use-syslog: no", `logfile: ""`,
		`directory: "` + labDir + "/" + host + `"`, "interface: 0.0.0.0", "interface: ::0",
		"num-threads: 1", "outgoing-range: 64", `module-config: "iterator"`,
		`local-zone: "." static`, `local-data: ". 60 IN SOA dns.example. nobody.example. 1 3600 600 86400 60"`}, more...)
	names, hosts := o.names(), o.hosts()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		h, _ := find(hosts, names[name])
		for _, addr := range h.addrs()[:2] {
			kind := "A"
			if addr.Is6() {
				kind = "AAAA"
			}
			lines = append(lines, fmt.Sprintf(`local-data: "%s. 60 IN %s %s"`, name, kind, addr))
		}
	}
	return append(lines, "remote-control:", "control-enable: no")
}

// dnsmasqConf leads every name, also one that does not exist, to the technician's PC, where nobody serves.
func (o options) dnsmasqConf() []string {
	return []string{"no-resolv", "no-hosts", "local-ttl=60", "address=/#/" + o.addr("tech")}
}

// chronyConf serves everybody the host's clock, as more says.
func chronyConf(host string, more ...string) []string {
	return append([]string{"allow", "user root", "cmdport 0", "bindcmdaddress /", "pidfile " + labDir + "/" + host + "/pid"}, more...)
}

// ntpsecConf serves what time serves, to whom more lets; time itself is always let.
func (o options) ntpsecConf(more ...string) []string {
	return append([]string{"restrict " + o.addr("time"), "server " + o.addr("time") + " iburst minpoll 3 maxpoll 3"}, more...)
}
