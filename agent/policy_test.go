package agent

import (
	"net/netip"
	"testing"

	"hawser/board"
	"hawser/identity"
)

func TestParseRule(t *testing.T) {
	for text, want := range map[string]string{ // what String makes of it; empty: refused
		"192.168.10.0/24:502":      "192.168.10.0/24:502",
		"192.168.10.20:502":        "192.168.10.20/32:502",
		"192.168.10.20/32:1-65535": "192.168.10.20/32:*",
		"0.0.0.0/0:*":              "0.0.0.0/0:*",
		"10.0.0.0/8:80-90":         "10.0.0.0/8:80-90",
		"10.0.0.0/8:80-80":         "10.0.0.0/8:80",
		"[2001:db8::/32]:443":      "[2001:db8::/32]:443",
		"[2001:db8::1]:*":          "[2001:db8::1/128]:*",
		"[::/0]:1":                 "[::/0]:1",
		"127.0.0.1:8080":           "127.0.0.1/32:8080",
		"[10.0.0.1]:80":            "10.0.0.1/32:80",
		"":                         "",
		":":                        "",
		":80":                      "",
		"10.0.0.1":                 "",
		"10.0.0.1:":                "",
		"10.0.0.1:0":               "",
		"10.0.0.1:0-5":             "",
		"10.0.0.1:9-8":             "",
		"10.0.0.1:65536":           "",
		"10.0.0.1:+5":              "",
		"10.0.0.1:1-2-3":           "",
		"10.0.0.1:-":               "",
		"10.0.0.1:http":            "",
		"10.0.0.1:**":              "",
		" 10.0.0.1:80":             "",
		"10.0.0.1/33:80":           "",
		"10.0.0.1/24:80":           "",
		"10.0.0:80":                "",
		"plc.example:502":          "",
		"2001:db8::1:80":           "",
		"[2001:db8::1:80":          "",
		"2001:db8::1]:80":          "",
		"[fe80::1%eth0]:80":        "",
		"[fe80::1%eth0/64]:80":     "",
		"[::ffff:10.0.0.1]:80":     "",
		"[::ffff:10.0.0.0/120]:80": "",
		"[[2001:db8::1]]:80":       "",
	} {
		r, err := ParseRule(text)
		if (err == nil) != (want != "") || err == nil && r.String() != want {
			t.Errorf("ParseRule(%q) = %v, %v, want %q", text, r, err, want)
			continue
		}
		if err == nil {
			if again, err := ParseRule(r.String()); err != nil || again != r {
				t.Errorf("%q: read again as %v, %v", r, again, err)
			}
		}
	}
}

// What an owner writes here and what a statement says are one language: it has one meaning in both.
func TestARuleOfAScopeIsARuleHere(t *testing.T) {
	for _, text := range []string{"10.0.0.0/8:80-90", "10.0.0.1:502", "0.0.0.0/0:*", "[2001:db8::/32]:443", "[2001:db8::1]:*", "192.168.10.0/24:1-1024"} {
		target, err := identity.ParseTarget(text)
		r := must(ParseRule(text))(t)
		if want := (Rule{Prefix: target.Prefix, From: target.From, To: target.To}); err != nil || r != want {
			t.Errorf("%s: %v here, %v in a scope, %v", text, r, want, err)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8:80", "[2001:db8::/32]:1-9", "1.2.3.4:*", "[::ffff:1.2.3.4]:5", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%q read as %v, then as %v, %v", s, r, again, err)
		}
		if !(Policy{Rules: []Rule{r}}).Allows(netip.AddrPortFrom(r.Prefix.Addr(), r.From)) {
			t.Errorf("%v does not allow its own first target", r)
		}
	})
}

func rules(t *testing.T, list ...string) []Rule {
	t.Helper()
	all := []Rule{}
	for _, s := range list {
		all = append(all, must(ParseRule(s))(t))
	}
	return all
}

func TestPolicyOfRules(t *testing.T) {
	gateway := Surroundings{Routed: true, Interfaces: []board.Interface{
		{Name: "lan0", Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.1/24"), netip.MustParsePrefix("2001:db8:10::1/64")}},
		{Name: "wan0", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24")}}}}
	for name, tt := range map[string]struct {
		p       Policy
		yes, no []string
	}{
		"rules replace the default": {NewPolicy(rules(t, "10.0.0.0/24:80-90", "[2001:db8:20::/64]:*"), gateway),
			[]string{"10.0.0.1:80", "10.0.0.255:90", "[::ffff:10.0.0.1]:85", "[2001:db8:20::1]:1", "[2001:db8:20::1]:65535"},
			[]string{"10.0.0.1:79", "10.0.0.1:91", "10.0.1.1:80", "192.168.10.20:502", "[2001:db8:10::20]:502", "[2001:db8:20::1]:0", "10.0.0.1:0"}},
		"an empty list allows nothing": {NewPolicy([]Rule{}, gateway), nil, []string{"192.168.10.20:502", "127.0.0.1:80", "192.168.10.1:80"}},
		"a rule opens what is closed by default": {NewPolicy(rules(t, "127.0.0.1:8080", "[::1]:8080", "169.254.169.254:80", "[fe80::/10]:80"), gateway),
			[]string{"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "[::1]:8080", "169.254.169.254:80", "[fe80::1]:80"},
			[]string{"127.0.0.1:8081", "127.0.0.2:8080", "[fe80::1%lan0]:80"}},
		"every IPv6 address is no IPv4 address": {NewPolicy(rules(t, "[::/0]:*"), gateway), []string{"[2001:db8::1]:1"},
			[]string{"10.0.0.1:80", "[::ffff:10.0.0.1]:80", "[::1]:1", "[2001:db8:10::1]:1", "[::]:1"}},
		"a rule for a network is none for the gateway in it": {NewPolicy(rules(t, "0.0.0.0/0:*", "[2001:db8:10::/64]:*"), gateway),
			[]string{"192.168.10.20:502", "192.168.10.255:502", "198.51.100.8:80", "[2001:db8:10::2]:80", "169.254.169.254:80"},
			[]string{"192.168.10.1:80", "198.51.100.7:80", "[2001:db8:10::1]:80", "[::ffff:192.168.10.1]:80", "127.0.0.1:80", "127.9.9.9:80", "0.0.0.0:80"}},
		"a rule that names the gateway": {NewPolicy(rules(t, "192.168.10.0/24:*", "192.168.10.1:443", "127.0.0.0/8:81", "0.0.0.0/32:82"), gateway),
			[]string{"192.168.10.1:443", "192.168.10.2:80", "127.0.0.1:81", "127.9.9.9:81", "0.0.0.0:82"},
			[]string{"192.168.10.1:80", "127.0.0.1:80", "0.0.0.0:81"}},
		"where the addresses are not known any may be the gateway's": {NewPolicy(rules(t, "192.168.10.0/24:*", "192.168.11.1:443"), Surroundings{}),
			[]string{"192.168.11.1:443"}, []string{"192.168.10.20:502"}},
		"nothing is known": {NewPolicy(nil, Surroundings{}), nil, []string{"192.168.10.20:502", "127.0.0.1:80"}},
	} {
		for want, list := range map[bool][]string{true: tt.yes, false: tt.no} {
			for _, s := range list {
				if got, why := tt.p.Judge(netip.MustParseAddrPort(s)); got != want || why == "" {
					t.Errorf("%s: %s allowed: %v, %s", name, s, got, why)
				}
			}
		}
		if tt.p.Allows(netip.AddrPort{}) {
			t.Errorf("%s: allows no address at all", name)
		}
	}
}
