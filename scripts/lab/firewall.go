//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"
)

const firewallUsage = `want clauses: open PORT[,PORT…] [--others drop|reject], drop|reject tcp|udp PORT[,PORT…], ` +
	`divert PORT[,PORT…] HOST[:PORT], loss PERCENT, clear`

// policy is what the site's firewall does with packets from the site to the WAN. The zero value lets everything out.
type policy struct {
	rules   []string // of nft(8), in order
	diverts []string // where connections are led that went elsewhere
}

// ruleset is the whole of nft's rules in the site's gateway, so that loading it replaces the last one in one step. That
// nothing comes in unasked, and that the site hides behind one address, is always so. The rules look at each packet, not
// at connections: what is closed is closed to connections that were open before as well.
func (p policy) ruleset() string {
	lines := append([]string{
		"table inet site",
		"delete table inet site",
		"table inet site {",
		"chain forward { type filter hook forward priority filter; policy accept;",
		`iifname "wan" ct state != { established, related } drop`,
	}, p.rules...)
	lines = append(lines, "}", "chain inward { type nat hook prerouting priority dstnat; policy accept;")
	lines = append(lines, p.diverts...)
	lines = append(lines, "}",
		"chain outward { type nat hook postrouting priority srcnat; policy accept;",
		`oifname "wan" masquerade`, "}", "}")
	return strings.Join(lines, "\n") + "\n"
}

// load puts p in force.
func (p policy) load() error {
	return pipe(p.ruleset(), "ip", "netns", "exec", "site", "nft", "-f", "-")
}

// parsePolicy reads the clauses of a command line. They all hold together. All of it is parsed before anything is
// loaded: half a policy would be a site that nobody asked for.
func parsePolicy(words []string) (p policy, err error) {
	if len(words) == 0 {
		return p, fmt.Errorf("no clause: %s", firewallUsage)
	}
	for len(words) > 0 {
		var rule string
		if words[0] == "divert" && len(words) >= 3 {
			rules, err := divertRules(words[1], words[2])
			if err != nil {
				return policy{}, err
			}
			p.diverts, words = append(p.diverts, rules...), words[3:]
			continue
		}
		if rule, words, err = parseClause(words); err != nil {
			return policy{}, err
		}
		if rule != "" {
			p.rules = append(p.rules, rule)
		}
	}
	return p, nil
}

// parseClause reads the first clause and returns what follows it.
func parseClause(words []string) (rule string, rest []string, err error) {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch word(0) {
	case "clear":
		return "", words[1:], nil
	case "open":
		verdict, used := "drop", 2
		if word(2) == "--others" {
			verdict, used = word(3), 4
		}
		rule, err = openRule(word(1), verdict)
		return rule, words[min(used, len(words)):], err
	case "drop", "reject":
		rule, err = closeRule(word(0), word(1), word(2))
		return rule, words[min(3, len(words)):], err
	case "loss":
		percent, err := strconv.ParseUint(word(1), 10, 8)
		if err != nil || percent > 100 {
			return "", nil, fmt.Errorf("loss %q: want a percentage", word(1))
		}
		if percent == 100 {
			return "drop", words[2:], nil // nft refuses a comparison that is always true
		}
		return fmt.Sprintf("numgen random mod 100 < %d drop", percent), words[2:], nil
	}
	return "", nil, fmt.Errorf("clause %q: %s", word(0), firewallUsage)
}

// openRule closes every TCP port but ports and that of DNS, which is a matter of its own.
func openRule(ports, verdict string) (string, error) {
	set, err := portSet(ports)
	action, ok := verdicts("tcp")[verdict]
	if err == nil && !ok {
		err = fmt.Errorf("--others %q: want drop or reject", verdict)
	}
	return fmt.Sprintf(`iifname "site" tcp dport != { 53, %s } %s`, set, action), err
}

// closeRule closes ports of one protocol, DNS included.
func closeRule(verdict, protocol, ports string) (string, error) {
	if protocol != "tcp" && protocol != "udp" {
		return "", fmt.Errorf("%s %q: want tcp or udp", verdict, protocol)
	}
	set, err := portSet(ports)
	return fmt.Sprintf(`iifname "site" %s dport { %s } %s`, protocol, set, verdicts(protocol)[verdict]), err
}

// divertRules lead new connections to ports, wherever they were to go, to a host on the WAN: its own port or another. That
// is how a site puts a portal or a proxy in the way which nobody asked for.
func divertRules(ports, to string) ([]string, error) {
	set, err := portSet(ports)
	if err != nil {
		return nil, err
	}
	name, port, given := strings.Cut(to, ":")
	if given {
		if port, err = portSet(port); err != nil || strings.Contains(port, ",") {
			return nil, fmt.Errorf("divert to %q: want HOST or HOST:PORT", to)
		}
		port = ":" + port
	}
	h, ok := find(options{relays: maxRelays}.hosts(), name)
	// A host behind the firewall would answer past it, and the test would show nothing of the firewall.
	if !ok || h.cables[0].segment.name != "wan" {
		return nil, fmt.Errorf("divert to %q: no such host on the WAN", to)
	}
	lead := `iifname "site" meta nfproto %s tcp dport { %s } dnat %s to %s`
	addrs := h.addrs()
	return []string{
		fmt.Sprintf(lead, "ipv4", set, "ip", addrs[0].String()+port),
		fmt.Sprintf(lead, "ipv6", set, "ip6", "["+addrs[1].String()+"]"+port),
	}, nil
}

// verdicts are the two ways of closing a port: silence, and an answer that the system takes for a closed one.
func verdicts(protocol string) map[string]string {
	if protocol == "tcp" {
		return map[string]string{"drop": "drop", "reject": "reject with tcp reset"}
	}
	return map[string]string{"drop": "drop", "reject": "reject with icmpx port-unreachable"}
}

// portSet checks a list of ports and writes it as nft takes it.
func portSet(list string) (string, error) {
	var ports []string
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(field, 10, 16)
		if err != nil || n == 0 {
			return "", fmt.Errorf("ports %q: want numbers from 1 to 65535, with commas between", list)
		}
		ports = append(ports, strconv.FormatUint(n, 10))
	}
	return strings.Join(ports, ", "), nil
}
