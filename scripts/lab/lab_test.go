//go:build linux

package main

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What the lab does is tested in internal/e2e/lab, within one; here is what can be told without building it.

func TestClausesBecomeRules(t *testing.T) {
	for _, tt := range []struct{ words, want string }{
		{"clear", ""},
		{"open 443", `iifname "site" tcp dport != { 53, 443 } drop`},
		{"open 80,5935 --others reject", `iifname "site" tcp dport != { 53, 80, 5935 } reject with tcp reset`},
		{"drop udp 53", `iifname "site" udp dport { 53 } drop`},
		{"reject udp 123", `iifname "site" udp dport { 123 } reject with icmpx port-unreachable`},
		{"reject tcp 0443", `iifname "site" tcp dport { 443 } reject with tcp reset`},
		{"loss 30", `numgen random mod 100 < 30 drop`},
		{"loss 100 drop udp 53 clear", "drop|" + `iifname "site" udp dport { 53 } drop`},
		{"divert 80,443 relay7:8443 loss 1", "numgen random mod 100 < 1 drop|" +
			`iifname "site" meta nfproto ipv4 tcp dport { 80, 443 } dnat ip to 203.0.113.27:8443|` +
			`iifname "site" meta nfproto ipv6 tcp dport { 80, 443 } dnat ip6 to [2001:db8:113::27]:8443`},
		{"divert 443 site", `iifname "site" meta nfproto ipv4 tcp dport { 443 } dnat ip to 203.0.113.1|` +
			`iifname "site" meta nfproto ipv6 tcp dport { 443 } dnat ip6 to [2001:db8:113::1]`},
	} {
		p, err := parsePolicy(strings.Fields(tt.words))
		if got := strings.Join(append(p.rules, p.diverts...), "|"); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.words, got, err, tt.want)
		}
	}
}

func TestBadClausesAreExplained(t *testing.T) {
	for words, want := range map[string]string{
		"":                       "want clauses",
		"shut 443":               `clause "shut"`,
		"open":                   `ports ""`,
		"open 0":                 `ports "0"`,
		"open 65536":             `ports "65536"`,
		"open 443,":              `ports "443,"`,
		"open 443;flush":         `ports "443;flush"`,
		"open 443 --others":      `--others ""`,
		"open 443 --others stop": `--others "stop"`,
		"open 443 reject":        `reject ""`,
		"drop":                   `drop ""`,
		"drop icmp 1":            `drop "icmp"`,
		"drop udp":               `ports ""`,
		"divert":                 `clause "divert"`,
		"divert 443":             `clause "divert"`,
		"divert 443 plc1":        `divert to "plc1"`,
		"divert 443 relay1:0":    `divert to "relay1:0"`,
		"divert 0 relay1":        `ports "0"`,
		"loss":                   `loss ""`,
		"loss 101":               `loss "101"`,
		"loss -1":                `loss "-1"`,
	} {
		p, err := parsePolicy(strings.Fields(words))
		if err == nil || !strings.Contains(err.Error(), want) || len(p.rules) > 0 {
			t.Errorf("%q: %q, %v, want an error with %q", words, p.rules, err, want)
		}
	}
}

func TestRulesetReplacesTheLastOne(t *testing.T) {
	text := policy{rules: []string{"FIRST", "SECOND"}, diverts: []string{"THIRD"}}.ruleset()
	at := -1
	for _, part := range []string{"delete table inet site", "chain forward", "ct state", "FIRST", "SECOND", "chain inward", "THIRD", "chain outward", "masquerade"} {
		next := strings.Index(text, part)
		if next <= at {
			t.Errorf("%q is missing or not where it belongs:\n%s", part, text)
		}
		at = next
	}
	if open, closed := strings.Count(text, "{"), strings.Count(text, "}"); open != closed {
		t.Errorf("%d braces open, %d close", open, closed)
	}
}

func TestEverybodyHasAddressesAndACableOfTheirOwn(t *testing.T) {
	for _, o := range []options{{relays: 1, plcs: 1}, {relays: maxRelays, plcs: maxPLCs}} {
		names, addrs, ports := map[string]bool{}, map[netip.Addr]bool{}, map[string]bool{}
		for _, h := range o.hosts() {
			for _, a := range h.addrs() {
				if addrs[a] {
					t.Errorf("%v is there twice", a)
				}
				addrs[a] = true
			}
			for _, c := range h.cables {
				if p := h.port(c); ports[p] || len(p) > 15 { // IFNAMSIZ
					t.Errorf("port %q is there twice or too long", p)
				}
				ports[h.port(c)] = true
			}
			names[h.name] = true
		}
		if want := 15 + o.relays + o.plcs; len(names) != want {
			t.Errorf("%d hosts, want %d", len(names), want)
		}
	}
}

func TestAllReferenceNamesLeadSomewhere(t *testing.T) {
	for relays := 1; relays <= maxRelays; relays++ {
		o := options{relays: relays, plcs: 1}
		reference := 0
		for name, to := range o.names() {
			h, ok := find(o.hosts(), to)
			if !ok || len(h.addrs()) < 2 {
				t.Errorf("%d relays: %s leads to %q, which is not on the WAN", relays, name, to)
			}
			if !strings.HasSuffix(name, ".example") {
				reference++
			}
		}
		if reference != 12 {
			t.Errorf("%d relays: %d reference names, want 12", relays, reference)
		}
	}
}

func TestResolverKnowsEveryNameByBothFamilies(t *testing.T) {
	o := options{relays: 3, plcs: 1}
	conf := strings.Join(o.unboundConf("dns"), "\n")
	for _, want := range []string{
		`local-data: "ccas2.keb.de. 60 IN A 203.0.113.12"`, `local-data: "ccas2.keb.de. 60 IN AAAA 2001:db8:113::12"`,
		`local-data: "ubiquityrs7.asem.it. 60 IN A 203.0.113.21"`, `local-data: "relay3.example. 60 IN AAAA 2001:db8:113::23"`,
		`local-zone: "." static`,
	} {
		if !strings.Contains(conf, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if got, want := strings.Count(conf, " IN A "), len(o.names()); got != want {
		t.Errorf("%d addresses for %d names", got, want)
	}
}

// The clock is the host's: whatever else changes here, chronyd must be told to leave it alone. ntpd cannot be told; that
// the kernel refuses it is seen in the lab (internal/e2e/lab, TestClockCannotBeSet).
func TestTimeServersLeaveTheClockAlone(t *testing.T) {
	chronyds := 0
	for _, s := range (options{relays: 1, plcs: 1}).servers() {
		if s.program == "chronyd" {
			chronyds++
			if !slices.Contains(s.args("conf"), "-x") {
				t.Errorf("%s: arguments %q", s.host, s.args("conf"))
			}
		}
	}
	if chronyds != 4 {
		t.Errorf("%d chronyds, want 4", chronyds)
	}
}

// The files of a server are in a directory called after its host, which therefore has one server.
func TestAServerHasItsHostToItself(t *testing.T) {
	o, seen := options{relays: 1, plcs: 1}, map[string]bool{}
	for _, s := range o.servers() {
		if _, ok := find(o.hosts(), s.host); !ok || seen[s.host] {
			t.Errorf("%s on %s, which is no host or has a server already", s.program, s.host)
		}
		seen[s.host] = true
	}
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]string{
		"":                             "",
		"-- make test":                 "make test",
		"-relays 7 -plcs 9 -- sh -c x": "sh -c x",
	} {
		o, err := parseOptions(strings.Fields(line), &bytes.Buffer{})
		if got := strings.Join(o.command, " "); err != nil || got != want || o.relays < 1 || o.plcs < 1 {
			t.Errorf("%q: %+v, %v", line, o, err)
		}
	}
	for _, line := range []string{"-relays 0", "-relays 8", "-plcs 0", "-plcs 10"} {
		if _, err := parseOptions(strings.Fields(line), &bytes.Buffer{}); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
	var said bytes.Buffer
	if _, err := parseOptions([]string{"-x"}, &said); !errors.Is(err, errUsage) || !strings.Contains(said.String(), "lab firewall") {
		t.Errorf("error %v, explained as %q", err, &said)
	}
}

func TestMissingProgramsAreNamedWithTheirCure(t *testing.T) {
	err := checkPrograms("sh", "no-such-server", "nor-this-one")
	if err == nil || !strings.Contains(err.Error(), "no-such-server, nor-this-one") || !strings.Contains(err.Error(), "scripts/setup test") {
		t.Errorf("error %v", err)
	}
	if err := checkPrograms("sh"); err != nil {
		t.Error(err)
	}
}

func TestVerbsAreForWithinALab(t *testing.T) {
	t.Setenv(dirVariable, "")
	for name, verb := range verbs() {
		if err := verb(nil); err == nil || !strings.Contains(err.Error(), "within a lab") {
			t.Errorf("%s outside: %v", name, err)
		}
	}
}

func TestNothingIsBuiltInANetworkOfOthers(t *testing.T) {
	if _, err := inside(options{relays: 1, plcs: 1}); err == nil || !strings.Contains(err.Error(), "not in namespaces of its own") {
		t.Errorf("error %v", err)
	}
}
