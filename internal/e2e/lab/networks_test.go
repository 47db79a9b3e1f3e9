//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The networks that a site's IT builds. A gateway that remembers nothing is online in each, and a session carries bytes.
func TestGatewayIsOnlineInTheSitesNetwork(t *testing.T) {
	g := newRig(t).addDevice("press-4")
	g.enroll()
	forward := echoMachine(t)
	for _, tt := range []struct {
		name    string
		arrange func(t *testing.T)
		also    func(t *testing.T, g *gateway, agent *process) // what else must hold
	}{
		{"split DNS, the name does not exist inside", func(t *testing.T) { splitDNS(t) }, nil},
		{"split DNS, an address inside leads nowhere", func(t *testing.T) {
			splitDNS(t, fmt.Sprintf(`local-data: "%s. 60 IN A 10.20.0.99"`, accessName))
		}, nil},
		{"BIND forwards for the site", bindForwards, nil},
		{"BIND has a view of its own for the site, with a chain of aliases", bindViews, nil},
		{"IPv6 only, with DNS64 and NAT64", onlyIPv6, wentByNAT64},
		{"policy routing of what the gateway itself sends", func(t *testing.T) { policyRouting(t, "iif", "lo") }, noLANOfTheUplink},
		{"policy routing of what has no mark", func(t *testing.T) { policyRouting(t, "not", "fwmark", "0x51") }, noLANOfTheUplink},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Attr("id", "W-net")
			tt.arrange(t)
			g.forget()
			agent, took := g.run(t)
			tech, addrs := g.connect(t, forward)
			carries(t, addrs[0])
			if tt.also != nil {
				tt.also(t, g, agent)
			}
			tech.kill()
			agent.stop()
			t.Attr("count", fmt.Sprintf("ms until online, %s=%d", tt.name, took.Milliseconds()))
		})
	}
	t.Run("two uplinks, the better one is dead", func(t *testing.T) { twoUplinks(t, g, forward) })
	t.Run("another address under a session", func(t *testing.T) { anotherAddress(t, g, forward) })
}

// splitDNS has the gateway ask the site's own resolver first, which knows no other names than those of its records, and
// then the one that the world shares.
func splitDNS(t *testing.T, records ...string) {
	t.Helper()
	startUnbound(t, append([]string{`module-config: "iterator"`, `local-zone: "." static`}, records...)...)
	d := describe(t)
	nameservers(t, d.Hosts["site"][2], d.ways("dns")[0])
}

// startUnbound starts a resolver in the site's gateway.
func startUnbound(t *testing.T, lines ...string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	text := strings.Join(append([]string{"server:", `username: ""`, `chroot: ""`, `pidfile: ""`, "use-syslog: no", `logfile: ""`,
		`directory: "` + dir + `"`, "interface: 0.0.0.0", "interface: ::0", "access-control: 0.0.0.0/0 allow", "access-control: ::/0 allow",
		"num-threads: 1"}, lines...), "\n") + "\nremote-control:\ncontrol-enable: no\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(os.Getenv("LAB_DIR"), "dns", "unbound") // the lab's copy, which AppArmor does not confine
	start(t, "site", program, "-d", "-v", "-c", conf).await(0, "start of service")
}

// onlyIPv6 takes the gateway's IPv4 address and has the site translate: unbound gives every name an address below a prefix
// (RFC 6147), also where there is an IPv6 address, and tayga leads these to IPv4 (RFC 6146). The prefix is the site's own:
// the well-known one, 64:ff9b::/96, may not stand for addresses as the lab's (RFC 6052 §3.1), and tayga sees to that.
func onlyIPv6(t *testing.T) {
	const prefix, pool = nat64 + "/96", "192.168.255.0/24"
	dir := t.TempDir()
	conf := filepath.Join(dir, "tayga.conf")
	text := "tun-device nat64\nipv4-addr 192.168.255.1\nipv6-addr 2001:db8:64::1\nprefix " + prefix + "\ndynamic-pool " + pool + "\ndata-dir " + dir + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "lab", "exec", "site", "tayga", "-c", conf, "--mktun")
	t.Cleanup(func() { run(t, "ip", "-n", "site", "link", "del", "nat64") })
	rewire(t, "site", []string{"link set nat64 up", "addr add 192.168.255.254 dev nat64", "route add " + pool + " dev nat64", "route add " + prefix + " dev nat64"}, nil)
	start(t, "site", "tayga", "-c", conf, "--nodetach")

	d := describe(t)
	startUnbound(t, `module-config: "dns64 iterator"`, "dns64-prefix: "+prefix, "dns64-synthall: yes",
		"forward-zone:", `name: "."`, "forward-addr: "+d.ways("dns")[0].String())
	rewire(t, "device", []string{"addr del 10.20.0.2/24 dev site"}, []string{"addr add 10.20.0.2/24 dev site", "route add default via 10.20.0.1"})
	nameservers(t, d.Hosts["site"][3])
	if access := d.ways("access1")[0]; !pings("device", netip.MustParseAddr(nat64+access.String()), true) {
		t.Fatal("NAT64 does not translate")
	}
}

// nat64 is where the site's translator has the whole of IPv4.
const nat64 = "2001:db8:64:ff9b::"

// wentByNAT64: the agent's way out is none of IPv6's own.
func wentByNAT64(t *testing.T, g *gateway, agent *process) {
	t.Helper()
	if l := agent.await(0, "msg=online").text; !strings.Contains(l, "addr=["+nat64) {
		t.Errorf("%s; want a way through NAT64", l)
	}
}

// policyRouting leaves the main table without a default route: where it knows no way, a rule leads to a table that does.
func policyRouting(t *testing.T, selector ...string) {
	t.Helper()
	rule, ip := strings.Join(selector, " ")+" lookup 100 pref 32800", "10.20.0.1"
	rewire(t, "device", []string{"route add default via " + ip + " table 100", "route del default via " + ip, "-6 route del default via 2001:db8:20::1",
		"rule add " + rule}, []string{"rule del " + rule, "route flush table 100", "route add default via " + ip, "-6 route add default via 2001:db8:20::1"})
}

// noLANOfTheUplink: without a rule of the owner's, nobody gets into the network on the gateway's uplink.
func noLANOfTheUplink(t *testing.T, g *gateway, agent *process) {
	t.Helper()
	mark := agent.mark()
	_, addrs := g.connect(t, "0:10.20.0.1:53")
	if tool, err := useForward(addrs[0], patience); err == nil {
		tool.Close()
		t.Error("the network on the uplink is taken for a LAN")
	}
	if l := agent.await(mark, "addr=10.20.0.1:53").text; !strings.Contains(l, "stream refused") || !strings.Contains(l, "reason=policy") {
		t.Errorf("%s; want it refused by the policy", l)
	}
}

// twoUplinks gives the gateway a modem as its second way out. The kernel goes on using the better route while nothing comes
// back on it, and netcheck names both. When the system takes that route away, because the cable is out or a lease has ended,
// the agent goes by the other one, although its link is idle and the next ping far away.
func twoUplinks(t *testing.T, g *gateway, forward string) {
	t.Attr("id", "W-net")
	const notices, finds = 3 * time.Second, 8 * time.Second // wire §4.6, §8
	addModem(t)
	agent, _ := g.run(t)
	vanish(t)
	const named = "The system sends everything out by site, and wwan may lead out too"
	if r := g.agent("netcheck"); r.code == 0 || !strings.Contains(r.stdout, named) {
		t.Errorf("netcheck ends with %d and does not say %q:\n%s%s", r.code, named, r.stdout, r.stderr)
	}
	mark, watch, began := agent.mark(), watchLab(), time.Now()
	rewire(t, "device", []string{"route del default via 10.20.0.1", "-6 route del default via 2001:db8:20::1"},
		[]string{"route add default via 10.20.0.1", "-6 route add default via 2001:db8:20::1"})
	took := agent.await(mark, "online "+g.uid).at.Sub(began)
	watch.Within(t, "online by the other uplink", took, notices+finds)
	tech, addrs := g.connect(t, forward)
	carries(t, addrs[0])
	tech.kill()
	agent.stop()
	t.Attr("count", fmt.Sprintf("ms until online by the other uplink=%d", took.Milliseconds()))
}

// addModem lays a second way out of the gateway: a modem on the WAN that hides it behind its own address.
func addModem(t *testing.T) {
	t.Helper()
	run(t, "ip", "netns", "add", "modem")
	t.Cleanup(func() { run(t, "ip", "netns", "del", "modem") }) // and with it its cables
	for _, line := range []string{"link add modem-wan type veth peer name wan netns modem", "link set modem-wan master wan up",
		"-n modem link add wwan type veth peer name wwan netns device", "-n modem link set wan up", "-n modem link set wwan up",
		"-n modem addr add 203.0.113.2/24 dev wan", "-n modem addr add 10.30.0.1/24 dev wwan",
		"-n device link set wwan up", "-n device addr add 10.30.0.2/24 dev wwan", "-n device route add default via 10.30.0.1 metric 500"} {
		run(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	run(t, "ip", "netns", "exec", "modem", "sh", "-ec", "echo 1 >/proc/sys/net/ipv4/ip_forward; nft add table ip modem; "+
		"nft 'add chain ip modem out { type nat hook postrouting priority srcnat; }'; nft add rule ip modem out oifname wan masquerade")
}

// anotherAddress is what DHCP does when the site's router was replaced: the old address goes, and another one comes.
func anotherAddress(t *testing.T, g *gateway, forward string) {
	t.Attr("id", "W-net")
	const finds, noticed = 12 * time.Second, 10 * time.Second // wire §4.6 and §8; session §3.6
	agent, _ := g.run(t)
	tech, addrs := g.connect(t, forward)
	carries(t, addrs[0])
	mark, watch, began := agent.mark(), watchLab(), time.Now()
	rewire(t, "device", move("2", "77"), move("77", "2"))
	took := agent.await(mark, "online "+g.uid).at.Sub(began)
	watch.Within(t, "online with another address", took, finds)
	back := awaitForward(t, addrs[0], began)
	watch.Within(t, "the session is of use again", back, noticed+finds)
	carries(t, addrs[0])
	tech.kill()
	agent.stop()
	t.Attr("count", fmt.Sprintf("ms until online with another address=%d", took.Milliseconds()))
	t.Attr("count", fmt.Sprintf("ms until a session is of use with another address=%d", back.Milliseconds()))
}

// move gives the gateway another number on the site's network.
func move(from, to string) []string {
	return []string{"addr del 10.20.0." + from + "/24 dev site", "addr del 2001:db8:20::" + from + "/64 dev site",
		"addr add 10.20.0." + to + "/24 dev site", "addr add 2001:db8:20::" + to + "/64 dev site nodad",
		"route replace default via 10.20.0.1", "-6 route replace default via 2001:db8:20::1"}
}

// rewire runs ip(8) commands on a host, and at the test's end those that undo them.
func rewire(t *testing.T, host string, there, back []string) {
	t.Helper()
	for _, line := range there {
		run(t, append([]string{"ip", "-n", host}, strings.Fields(line)...)...)
	}
	t.Cleanup(func() {
		for _, line := range back {
			run(t, append([]string{"ip", "-n", host}, strings.Fields(line)...)...)
		}
	})
}

// carries sends 1 MiB through a forward to the echo machine, and wants it back bit for bit.
func carries(t *testing.T, address string) {
	t.Helper()
	c, err := dialAt(context.Background(), "tech", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, want := noise(t, 1<<20)
	got := make([]byte, len(want))
	if err := c.SetDeadline(time.Now().Add(outer)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { // ends with the connection at the latest
		_, err := c.Write(want)
		sent <- err
	}()
	n, err := io.ReadFull(c, got)
	if err != nil {
		c.Close()
	}
	if sending := <-sent; err != nil || sending != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back, or others: %v, %v", n, len(want), err, sending)
	}
}
