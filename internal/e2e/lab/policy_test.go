//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/agent"
	kernel "hawser/board"
)

// setUp is a gateway's network, made in a namespace of its own.
type setUp struct {
	name string
	ip   string // commands of ip(8), separated by ";", with "card NAME ADDRESS…" for an interface that is up
	// Of these the test says that they are hardware, which a namespace cannot have. Without any the agent is in a
	// container, and the program itself is asked.
	hardware string
	allow    string
	then     string // commands while the agent runs, which then is asked
	yes, no  string // targets; port 502 if they have none
}

const (
	lanAndWAN = "card lan0 192.168.50.1/24 fd00:50::1/64; card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0; "
	onLAN     = " 192.168.50.2 192.168.50.254:1 [fd00:50::2]:502 [::ffff:192.168.50.2]:80 "
	never     = " 192.168.50.1 192.168.50.1:22 [fd00:50::1]:22 [::ffff:192.168.50.1]:80 10.9.0.2 10.9.0.77 192.168.50.0 192.168.50.255 [fd00:50::]:80 " +
		"127.0.0.1 127.9.9.9 [::1]:502 0.0.0.0 [::]:502 169.254.169.254 224.0.0.1 [ff02::1]:502 [fe80::1]:502 [fe80::1%lan0]:502 203.0.113.7 "
)

func setUps() []setUp {
	return []setUp{
		{name: "LAN and uplink", ip: lanAndWAN, yes: onLAN, no: never},
		{name: "LAN and uplink, of hardware", ip: lanAndWAN, hardware: "lan0 wan0", yes: onLAN, no: never},
		{name: "one card, which is the uplink", ip: "card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0", no: "10.9.0.1 10.9.0.2 10.9.0.77"},
		{name: "one card without a way out", ip: "card lan0 192.168.50.1/24", yes: "192.168.50.2", no: "192.168.50.1"},
		{name: "nothing but loopback", no: onLAN + never},
		{name: "loopback with a network", ip: "addr add 10.5.0.1/24 dev lo; card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0", no: "10.5.0.1 10.5.0.2"},
		{name: "two LANs", ip: lanAndWAN + "card lan1 10.1.0.1/24", yes: onLAN + "10.1.0.2", no: never + "10.1.0.1"},
		{name: "two addresses on the LAN", ip: lanAndWAN + "addr add 192.168.50.9/24 dev lan0; addr add 10.7.0.1/25 dev lan0", yes: onLAN + "10.7.0.100", no: never + "192.168.50.9 10.7.0.1 10.7.0.200 10.7.0.127"},
		{name: "two uplinks", ip: lanAndWAN + "card wan1 10.8.0.2/24; route add default via 10.8.0.1 dev wan1 metric 500", yes: onLAN, no: never + "10.8.0.2 10.8.0.9"},
		{name: "two uplinks in one route", ip: "card lan0 192.168.50.1/24; card wan0 10.9.0.2/24; card wan1 10.8.0.2/24; " +
			"route add default nexthop via 10.9.0.1 dev wan0 nexthop via 10.8.0.1 dev wan1", yes: "192.168.50.2", no: "10.9.0.9 10.8.0.9"},
		{name: "the uplink is in another table", ip: "card lan0 192.168.50.1/24; card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0 table 100; rule add from 10.9.0.2 table 100",
			yes: "192.168.50.2", no: "10.9.0.2 10.9.0.77"},
		{name: "the uplink is in a table of a large number", ip: "card lan0 192.168.50.1/24; card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0 table 51820", yes: "192.168.50.2", no: "10.9.0.77"},
		{name: "the default route has two halves", ip: "card lan0 192.168.50.1/24; card wan0 10.9.0.2/24; route add 0.0.0.0/1 via 10.9.0.1 dev wan0; route add 128.0.0.0/1 via 10.9.0.1 dev wan0",
			yes: "192.168.50.2", no: "10.9.0.77"},
		{name: "the default route is for IPv6 only", ip: "card lan0 192.168.50.1/24; card wan0 10.9.0.2/24 fd00:9::2/64; route add ::/0 via fd00:9::1 dev wan0",
			yes: "192.168.50.2", no: "10.9.0.77 [fd00:9::7]:502"},
		{name: "the default route is unreachable", ip: "card lan0 192.168.50.1/24; route add unreachable default", yes: "192.168.50.2"},
		{name: "the uplink's cable is out", ip: lanAndWAN + "link set wan0.p down", yes: onLAN, no: never},
		{name: "the LAN's cable is out", ip: lanAndWAN + "link set lan0.p down", yes: onLAN, no: never},
		{name: "the LAN is down", ip: lanAndWAN + "link set lan0 down", no: onLAN + never},
		{name: "an advertisement on the LAN", ip: lanAndWAN + "route add ::/0 via fe80::99 dev lan0 proto ra", yes: onLAN, no: never},
		{name: "an advertisement on the LAN, and none else", ip: "card lan0 192.168.50.1/24; route add ::/0 via fe80::99 dev lan0 proto ra", no: "192.168.50.2"},
		{name: "an uplink by an advertisement", ip: "card lan0 192.168.50.1/24; card wan0 fd00:9::2/64; route add ::/0 via fe80::1 dev wan0 proto ra; " +
			"route add ::/0 via fe80::99 dev lan0 proto ra metric 2000", yes: "192.168.50.2", no: "[fd00:9::7]:502"},
		{name: "docker", ip: lanAndWAN + "link add docker0 type bridge; addr add 172.17.0.1/16 dev docker0; link set docker0 up; card veth1; link set veth1 master docker0",
			yes: onLAN, no: never + "172.17.0.1 172.17.0.2"},
		{name: "docker, beside hardware", ip: lanAndWAN + "link add docker0 type bridge; addr add 172.17.0.1/16 dev docker0; link set docker0 up; card veth1 172.18.0.1/24; link set veth1 master docker0",
			hardware: "lan0 wan0", yes: onLAN, no: never + "172.17.0.1 172.17.0.2 172.18.0.2"},
		{name: "docker0 with a card", ip: lanAndWAN + "card eth5; link add docker0 type bridge; addr add 172.17.0.1/16 dev docker0; link set docker0 up; link set eth5 master docker0",
			hardware: "lan0 wan0 eth5", yes: onLAN, no: never + "172.17.0.2"},
		{name: "a bridge of a card", ip: lanAndWAN + "card eth5; link add br-lan type bridge; addr add 10.1.0.1/24 dev br-lan; link set br-lan up; link set eth5 master br-lan",
			hardware: "lan0 wan0 eth5", yes: onLAN + "10.1.0.2", no: never + "10.1.0.1"},
		{name: "a bridge of a veth", ip: lanAndWAN + "card veth5; link add br1 type bridge; addr add 10.1.0.1/24 dev br1; link set br1 up; link set veth5 master br1",
			hardware: "lan0 wan0", yes: onLAN, no: never + "10.1.0.1 10.1.0.2"},
		{name: "a bridge without a port", ip: lanAndWAN + "link add br2 type bridge; addr add 10.1.0.1/24 dev br2; link set br2 up", yes: onLAN, no: never + "10.1.0.1 10.1.0.2"},
		{name: "the uplink is a bridge", ip: "card lan0 192.168.50.1/24; card eth5; link add br-wan type bridge; addr add 10.9.0.2/24 dev br-wan; link set br-wan up; " +
			"link set eth5 master br-wan; route add default via 10.9.0.1 dev br-wan", hardware: "lan0 eth5", yes: "192.168.50.2", no: "10.9.0.77"},
		{name: "a veth beside hardware", ip: lanAndWAN + "card veth7 10.7.0.1/24", hardware: "lan0 wan0", yes: onLAN, no: never + "10.7.0.1 10.7.0.2"},
		{name: "a tap", ip: lanAndWAN + "tuntap add tap0 mode tap; addr add 10.200.0.5/16 dev tap0; link set tap0 up", yes: onLAN, no: never + "10.200.0.5 10.200.0.6"},
		{name: "a tunnel", ip: lanAndWAN + "tuntap add tun0 mode tun; addr add 10.200.0.5/16 dev tun0; link set tun0 up", yes: onLAN, no: never + "10.200.0.5 10.200.0.6"},
		{name: "a VPN that takes all", ip: lanAndWAN + "tuntap add tun0 mode tun; addr add 10.200.0.5/24 dev tun0; link set tun0 up; route add 0.0.0.0/1 dev tun0; route add 128.0.0.0/1 dev tun0",
			yes: onLAN, no: never + "10.200.0.6"},
		{name: "a VPN into a part of the LAN's network", ip: "card lan0 10.0.0.1/8; card wan0 172.20.0.2/24; route add default via 172.20.0.1 dev wan0; tuntap add tun0 mode tun; link set tun0 up; " +
			"route add 10.8.0.0/16 dev tun0", yes: "10.1.2.3 10.9.0.1", no: "10.8.0.1 10.0.0.1"},
		{name: "a part of the LAN's network is behind the uplink", ip: "card lan0 10.0.0.1/8; card wan0 172.20.0.2/24; route add default via 172.20.0.1 dev wan0; " +
			"route add 10.20.0.0/16 via 172.20.0.1; route add 10.30.0.0/16 via 10.0.0.9", yes: "10.1.2.3 10.30.0.1", no: "10.20.0.1"},
		{name: "the uplink's network is a part of the LAN's", ip: "card lan0 10.0.0.1/8; card wan0 10.9.0.2/24; route add default via 10.9.0.1 dev wan0", yes: "10.1.2.3", no: "10.9.0.1 10.9.0.77 10.9.0.2"},
		{name: "the LAN's network is a part of the uplink's", ip: "card lan0 10.9.0.1/24; card wan0 10.0.0.2/8; route add default via 10.0.0.1 dev wan0", yes: "10.9.0.77", no: "10.0.0.1 10.1.2.3"},
		{name: "both have the same network", ip: "card lan0 192.168.1.1/24; card wan0 192.168.1.2/24; route add default via 192.168.1.254 dev wan0", no: "192.168.1.77 192.168.1.1 192.168.1.2"},
		{name: "single and link-local addresses", ip: lanAndWAN + "card lan1 10.3.0.1/32 169.254.7.7/16; card lan2 10.4.0.0/31", yes: onLAN + "10.4.0.1", no: never + "10.3.0.1 10.3.0.2 169.254.7.8 10.4.0.0"},
		{name: "the uplink loses its default route", ip: lanAndWAN, then: "route del default; ", yes: "192.168.50.0/24 fd00:50::/64", no: "10.9.0.0/24"},
		{name: "a modem comes and its route goes", ip: "card lan0 192.168.50.1/24; card wwan0 10.64.0.2/24; route add default via 10.64.0.1 dev wwan0", then: "link del wwan0; card wwan0 10.64.0.2/24; ",
			yes: "192.168.50.0/24", no: "10.64.0.0/24"},
		{name: "an advertisement comes while it runs", ip: lanAndWAN, then: "route add ::/0 via fe80::99 dev lan0 proto ra; ", yes: "192.168.50.0/24 fd00:50::/64", no: "10.9.0.0/24"},
		{name: "a rule for one machine", ip: lanAndWAN, allow: "192.168.50.2:502", yes: "192.168.50.2", no: never + "192.168.50.2:503 192.168.50.3"},
		{name: "a rule for the LAN's network", ip: lanAndWAN, allow: "192.168.50.0/24:*", yes: "192.168.50.2 192.168.50.255", no: "192.168.50.1 192.168.50.1:22 [fd00:50::2]:502 10.9.0.2 127.0.0.1"},
		{name: "a rule for everything", ip: lanAndWAN, allow: "0.0.0.0/0:*, [::/0]:*", yes: "192.168.50.2 10.9.0.77 203.0.113.7 169.254.169.254 [fd00:50::2]:1",
			no: "192.168.50.1 10.9.0.2 127.0.0.1 0.0.0.0 [::1]:502 [::]:502 [fd00:50::1]:502 [::ffff:10.9.0.2]:502"},
		{name: "a rule that names the gateway", ip: lanAndWAN, allow: "192.168.50.1:443, [fd00:50::1]:443, 127.0.0.1:1880", yes: "192.168.50.1:443 [fd00:50::1]:443 127.0.0.1:1880", no: "192.168.50.1:22 10.9.0.2:443 127.0.0.1:22 127.0.0.2:1880"},
		{name: "no rule", ip: lanAndWAN, allow: " ", no: onLAN + never},
	}
}

func TestPolicyOfNetworks(t *testing.T) {
	t.Attr("id", "L-policy")
	all := setUps()
	t.Attr("cases", fmt.Sprint(len(all)))
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Attr("id", "L-policy")
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // its namespace ends with the thread
				done <- s.test(t)
			}()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// test makes the network and judges. Its thread is locked: what it starts is in the same namespace.
func (s setUp) test(t *testing.T) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := ip("link set lo up; " + s.ip); err != nil {
		return err
	}
	b := kernel.New()
	real := b.Interfaces
	b.Interfaces = func() ([]kernel.Interface, error) {
		all, err := real()
		for n := range all {
			if strings.Contains(" "+s.hardware+" ", " "+all[n].Name+" ") {
				all[n].Kind = ""
			}
		}
		return all, err
	}
	around, err := agent.Around(b)
	if err != nil {
		return err
	}
	config, err := s.config(t.TempDir())
	switch {
	case err != nil:
		return err
	case s.then != "":
		return s.while(config)
	case s.hardware == "":
		return s.ask(config)
	}
	return s.judge(agent.NewPolicy(nil, around).Judge)
}

// A network that a route gives to the gateway itself ("AnyIP"), and an address that becomes its own, look like machines of
// the LAN. Only the kernel knows.
func TestPolicyAfterTheDial(t *testing.T) {
	t.Attr("id", "L-policy")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // its namespace ends with the thread
		done <- askAboutOwn()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func askAboutOwn() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	if err := ip("link set lo up; " + lanAndWAN + "route add local 192.168.50.128/25 dev lo; " +
		"route add local 192.168.50.64/26 dev lo src 192.168.50.1; route add local fd00:50::5:0/112 dev lo"); err != nil {
		return err
	}
	b := kernel.New()
	before, err := agent.Around(b)
	if err != nil {
		return err
	}
	if err := ip("addr add 192.168.50.9/24 dev lan0; addr add fd00:50::9/64 dev lan0 nodad"); err != nil { // between look and dial
		return err
	}
	p := agent.NewPolicy(nil, before)
	for text, itself := range map[string]bool{
		"192.168.50.200": true, "192.168.50.70": true, "fd00:50::5:7": true, "192.168.50.9": true, "fd00:50::9": true,
		"192.168.50.2": false, "fd00:50::2": false,
	} {
		target := netip.AddrPortFrom(netip.MustParseAddr(text), 502)
		if ok, why := p.Judge(target); !ok {
			err = errors.Join(err, fmt.Errorf("%s is refused before the dial, and the test shows nothing: %s", text, why))
		}
		if local, failed := b.Local(target.Addr()); local != itself || failed != nil {
			err = errors.Join(err, fmt.Errorf("%s is the gateway itself: %v, %v", text, local, failed))
		}
		if ok, _ := p.Reached(target); ok {
			err = errors.Join(err, fmt.Errorf("%s is the gateway itself, and is allowed", text))
		}
	}
	return err
}

// judge compares each target with what is said of it.
func (s setUp) judge(allows func(netip.AddrPort) (bool, string)) (err error) {
	for want, list := range map[bool]string{true: s.yes, false: s.no} {
		for text := range strings.FieldsSeq(list) {
			target, failed := parseTarget(text)
			if failed != nil {
				return failed
			}
			if got, why := allows(target); got != want || why == "" {
				err = errors.Join(err, fmt.Errorf("%s allowed: %v, %s", target, got, why))
			}
		}
	}
	return err
}

func parseTarget(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a, nil
	}
	return netip.ParseAddrPort(text + ":502")
}

// ask asks the program about all targets.
func (s setUp) ask(config string) error {
	args := []string{"--data", config, "config", "check", "--json"}
	for text := range strings.FieldsSeq(s.yes + " " + s.no) {
		target, err := parseTarget(text)
		if err != nil {
			return err
		}
		args = append(args, "--to", target.String())
	}
	var said struct {
		Targets []struct {
			Target  netip.AddrPort
			Allowed bool
			Why     string
		}
	}
	if err := agentSays(&said, args...); err != nil {
		return err
	}
	return s.judge(func(target netip.AddrPort) (bool, string) {
		for _, t := range said.Targets {
			if t.Target == target {
				return t.Allowed, t.Why
			}
		}
		return false, ""
	})
}

// while starts the agent, changes the network, and asks the agent which networks are on the LAN side.
func (s setUp) while(config string) error {
	run := exec.Command(hawser("hawser-agent"), "--data", config, "run")
	if err := run.Start(); err != nil {
		return err
	}
	defer func() { run.Process.Kill(); run.Wait() }()
	var reach map[string]bool
	await := func(network string) error {
		for limit := time.After(outer); ; {
			var st struct{ Reach agent.Reach }
			reach = map[string]bool{}
			if agentSays(&st, "--data", config, "status", "--json") == nil {
				for _, n := range st.Reach.Networks {
					reach[n.Network.String()] = n.LAN
				}
			}
			if reach[network] {
				return nil
			}
			select {
			case <-limit:
				return fmt.Errorf("%s does not become a LAN: %v", network, reach)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	if err := await("192.168.50.0/24"); err != nil {
		return err
	}
	// The last network tells that the agent has looked since.
	if err := ip(s.then + "card last0 10.99.0.1/24"); err != nil {
		return err
	}
	if err := await("10.99.0.0/24"); err != nil {
		return err
	}
	var err error
	for want, list := range map[bool]string{true: s.yes, false: s.no} {
		for network := range strings.FieldsSeq(list) {
			if got, known := reach[network]; !known || got != want {
				err = errors.Join(err, fmt.Errorf("%s is on the LAN side: %v, known %v", network, got, known))
			}
		}
	}
	return err
}

// config writes the file of an agent that is not enrolled.
func (s setUp) config(dir string) (data string, err error) {
	text := "access: [127.0.0.1]\nports: [1]\ntime: {set_system_clock: never}\n"
	if s.allow != "" {
		rules := []string{}
		for rule := range strings.SplitSeq(s.allow, ",") {
			if rule = strings.TrimSpace(rule); rule != "" {
				rules = append(rules, rule)
			}
		}
		list, err := json.Marshal(rules)
		if err != nil {
			return "", err
		}
		text += "allow: " + string(list) + "\n"
	}
	data = filepath.Join(dir, "data")
	if err = os.Mkdir(data, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(data, "agent.yaml"), []byte(text), 0o600)
	}
	return data, err
}

// agentSays runs the agent's program in the namespace of this thread, and decodes its answer.
func agentSays(v any, args ...string) error {
	out, err := exec.Command(hawser("hawser-agent"), args...).Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	return err
}

// ip runs commands of ip(8). A card is one end of a cable whose other end is NAME.p.
func ip(commands string) error {
	var batch strings.Builder
	for c := range strings.SplitSeq(commands, ";") {
		w := strings.Fields(c)
		if len(w) == 0 {
			continue
		}
		if w[0] != "card" {
			fmt.Fprintln(&batch, strings.Join(w, " "))
			continue
		}
		fmt.Fprintf(&batch, "link add %s type veth peer name %[1]s.p\nlink set %[1]s.p up\nlink set %[1]s up\n", w[1])
		for _, a := range w[2:] {
			if strings.Contains(a, ".") {
				fmt.Fprintf(&batch, "addr add %s dev %s\n", a, w[1])
			} else {
				fmt.Fprintf(&batch, "addr add %s dev %s nodad\n", a, w[1])
			}
		}
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s\n%s", err, out, &batch)
	}
	return nil
}
