package agent

import (
	"net/netip"
	"testing"
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

func TestPolicyAllows(t *testing.T) {
	lan := []netip.Prefix{netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("2001:db8:10::/64")}
	odd := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} // a board that reports nonsense
	byDefault := Policy{LAN: lan}
	for name, tt := range map[string]struct {
		p       Policy
		yes, no []string
	}{
		"the LAN by default": {byDefault,
			[]string{"192.168.10.20:502", "192.168.10.20:1", "192.168.10.255:65535", "[2001:db8:10::20]:502", "[::ffff:192.168.10.20]:502"},
			[]string{"192.168.10.20:0", "192.168.11.1:502", "198.51.100.1:80", "127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80",
				"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80", "[fe80::1%lan0]:80", "[2001:db8:10::20%lan0]:80", "224.0.0.1:80",
				"[ff02::1]:80", "0.0.0.0:80", "[::]:80", "[2001:db8:11::1]:80", "255.255.255.255:80"}},
		"never by default, whatever the LAN": {Policy{LAN: odd},
			[]string{"192.0.2.1:80"},
			[]string{"127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "169.254.169.254:80", "[fe80::1]:80", "224.0.0.1:80", "239.1.1.1:80",
				"[ff02::1]:80", "0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"}},
		"no LAN": {Policy{}, nil, []string{"192.168.10.20:502", "127.0.0.1:80"}},
		"rules replace the default": {Policy{rules(t, "10.0.0.0/24:80-90", "[2001:db8:20::/64]:*"), lan},
			[]string{"10.0.0.1:80", "10.0.0.255:90", "[::ffff:10.0.0.1]:85", "[2001:db8:20::1]:1", "[2001:db8:20::1]:65535"},
			[]string{"10.0.0.1:79", "10.0.0.1:91", "10.0.1.1:80", "192.168.10.20:502", "[2001:db8:10::20]:502", "[2001:db8:20::1]:0", "10.0.0.1:0"}},
		"an empty list allows nothing": {Policy{[]Rule{}, lan}, nil, []string{"192.168.10.20:502", "127.0.0.1:80"}},
		"a rule opens what is closed by default": {Policy{rules(t, "127.0.0.1:8080", "[::1]:8080", "169.254.169.254:80", "[fe80::/10]:80"), lan},
			[]string{"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "[::1]:8080", "169.254.169.254:80", "[fe80::1]:80"},
			[]string{"127.0.0.1:8081", "127.0.0.2:8080", "[fe80::1%lan0]:80"}},
		"every IPv6 address is no IPv4 address": {Policy{rules(t, "[::/0]:*"), lan}, []string{"[2001:db8::1]:1", "[::1]:1"},
			[]string{"10.0.0.1:80", "[::ffff:10.0.0.1]:80"}},
	} {
		for want, list := range map[bool][]string{true: tt.yes, false: tt.no} {
			for _, s := range list {
				if got := tt.p.Allows(netip.MustParseAddrPort(s)); got != want {
					t.Errorf("%s: %s allowed: %v", name, s, got)
				}
			}
		}
		if tt.p.Allows(netip.AddrPort{}) {
			t.Errorf("%s: allows no address at all", name)
		}
	}
}
