//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
)

// wire lays the switches and cables and gives everybody addresses. The switches stand in the lab's own network, in which
// COMMAND runs: there the far end of each cable can be watched, and pulled.
func wire(hosts []host) error {
	if err := ipBatch("", switchLines(hosts)); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := ipBatch(h.name, hostLines(h)); err != nil {
			return err
		}
	}
	return pipe("", "ip", "netns", "exec", "site", "sh", "-ec", siteSettings)
}

// siteSettings make the site's gateway pass packets on, and answer each one that its firewall rejects: by default the
// kernel answers some and is silent to the others.
const siteSettings = `
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
`

// switchLines are the ip(8) commands at the switches. A switch has no address: nobody talks to it. Waiting for topology
// and multicast membership, which a switch does at first, would only take time.
func switchLines(hosts []host) []string {
	lines := []string{"link set lo up"}
	for _, s := range segments() {
		lines = append(lines, "link add "+s.name+" type bridge forward_delay 0 mcast_snooping 0",
			"link set "+s.name+" addrgenmode none up")
	}
	for _, h := range hosts {
		lines = append(lines, "netns add "+h.name)
		for _, c := range h.cables {
			port := h.port(c)
			lines = append(lines, fmt.Sprintf("link add %s type veth peer name %s netns %s", port, c.segment.name, h.name),
				fmt.Sprintf("link set %s master %s addrgenmode none up", port, c.segment.name))
		}
	}
	return lines
}

// hostLines are the ip(8) commands on a host. Nobody else can have its IPv6 addresses, so it need not ask (nodad).
func hostLines(h host) []string {
	lines := []string{"link set lo up"}
	for _, c := range h.cables {
		lines = append(lines, "link set "+c.segment.name+" up")
		for _, p := range c.segment.addrs(c.number) {
			nodad := ""
			if p.Addr().Is6() {
				nodad = " nodad"
			}
			lines = append(lines, fmt.Sprintf("addr add %s dev %s%s", p, c.segment.name, nodad))
		}
		if c.gateway == 0 {
			continue
		}
		for _, p := range c.segment.addrs(c.gateway) {
			lines = append(lines, fmt.Sprintf("route add default via %s", p.Addr()))
		}
	}
	return lines
}

// ipBatch runs ip(8) commands on a host, or at the switches for "". One process for all lines: a lab has some twenty
// hosts with several lines each.
func ipBatch(host string, lines []string) error {
	args := []string{"-batch", "-"}
	if host != "" {
		args = append([]string{"-n", host}, args...)
	}
	return pipe(strings.Join(lines, "\n")+"\n", "ip", args...)
}

// pipe runs a program to its end with text as its input. The error holds what the program said.
func pipe(text, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
