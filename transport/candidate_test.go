package transport

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestFamiliesAlternate(t *testing.T) {
	for _, c := range []struct{ in, want []netip.Addr }{
		{nil, nil},
		{addrs("192.0.2.1"), addrs("192.0.2.1")},
		{addrs("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"), addrs("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2")},
		{addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"), addrs("192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3")},
		{addrs("::ffff:192.0.2.1", "2001:db8::1", "192.0.2.2"), addrs("::ffff:192.0.2.1", "2001:db8::1", "192.0.2.2")},
	} {
		if got := interleave(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestPortsHaveAnOrder(t *testing.T) {
	for _, c := range []struct{ in, want []Port }{
		{nil, nil},
		{[]Port{80, 443, 5935}, []Port{443, 5935, 80}},
		{[]Port{8443, 80, 22, 443}, []Port{443, 80, 8443, 22}},
		{[]Port{443, 443, 80, 443}, []Port{443, 80}},
		{[]Port{22, 8443, 22}, []Port{22, 8443}},
	} {
		before := fmt.Sprint(c.in)
		if got := SearchOrder(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
		if fmt.Sprint(c.in) != before {
			t.Errorf("the caller's %s became %v", before, c.in)
		}
	}
}

// where lists where candidates lead.
func where(list []Candidate) string {
	var all []string
	for _, c := range list {
		all = append(all, c.Where())
	}
	return fmt.Sprint(all)
}

func TestCandidatesPutPortsOutside(t *testing.T) {
	got := candidates("h", addrs("192.0.2.1", "2001:db8::1"), []Port{80, 443})
	want := []string{"192.0.2.1:443", "[2001:db8::1]:443", "192.0.2.1:80", "[2001:db8::1]:80"}
	if where(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := candidates("h", nil, DefaultPorts()); len(got) != 0 {
		t.Errorf("no address gave %v", got)
	}
}

func TestMergeAlternatesHostsAndPutsTheTiredLast(t *testing.T) {
	list := func(s string) (out []Candidate) {
		for _, name := range strings.Fields(s) {
			out = append(out, Candidate{Host: name})
		}
		return out
	}
	in := func(s string) func(Candidate) bool {
		return func(c Candidate) bool { return strings.Contains(s, c.Host) }
	}
	for _, c := range []struct{ waiting, found, tried, resting, want string }{
		{"", "a1 a2", "", "", "a1 a2"},
		{"a1 a2 a3", "b1 b2", "", "", "a1 b1 a2 b2 a3"},
		{"a1", "b1 b2 b3", "", "", "a1 b1 b2 b3"},
		{"a1 a2", "a2 a1", "", "", "a1 a2"},
		{"a2", "a1 b1", "a1", "", "a2 b1"},
		{"a1 a2", "b1 b2", "", "a1 b2", "b1 a2 a1 b2"},
		{"a1", "b1", "a1 b1", "", ""},
	} {
		if got := merge(list(c.waiting), list(c.found), in(c.tried), in(c.resting)); !reflect.DeepEqual(got, list(c.want)) {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestSplitHost(t *testing.T) {
	for in, want := range map[string]struct {
		host string
		port Port
	}{
		"a.example": {"a.example", 0}, "a.example.": {"a.example.", 0}, "a.example:80": {"a.example", 80},
		"192.0.2.1": {"192.0.2.1", 0}, "192.0.2.1:443": {"192.0.2.1", 443}, "2001:db8::1": {"2001:db8::1", 0},
		"[2001:db8::1]:443": {"2001:db8::1", 443}, "_x.example:65535": {"_x.example", 65535}, "LOCALHOST": {"LOCALHOST", 0},
		"fe80::1%eth0": {"fe80::1%eth0", 0}, "relay_1.example.com": {"relay_1.example.com", 0}, "_": {"_", 0}, "a--b-c.example": {"a--b-c.example", 0},
		strings.Repeat("a", 63) + ".example": {strings.Repeat("a", 63) + ".example", 0}, strings.Repeat("a.", 126) + "a.": {strings.Repeat("a.", 126) + "a.", 0},
	} {
		if host, port, err := SplitHost(in); err != nil || host != want.host || port != want.port {
			t.Errorf("%q: got %q %d %v, want %v", in, host, port, err, want)
		}
	}
	bad := []string{"", ":80", "a.example:", "a.example:0", "a.example:65536", "a.example:-1", "a.example:http", "[2001:db8::1]", "a b", "a..example",
		".", "a/b", "a.example:80:90", "https://a.example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "a", "a\x00b", "ä.example", "a\n",
		"-", "-a.example", "a-.example", "a.-b", "a.b-", "a..", ".a", "-:80", "192.0.2.1.", "fe80::1%", "fe80::1%a\n", "fe80::1%a b", "fe80::1%" + strings.Repeat("a", 33)}
	for _, in := range bad {
		if host, port, err := SplitHost(in); err == nil {
			t.Errorf("%q: got %q %d, want an error", in, host, port)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(bad)))
}

func TestParseHostReadsWhatPeopleType(t *testing.T) {
	t.Attr("id", "A1-input")
	for in, want := range map[string]string{
		"a.example": "a.example", "https://a.example": "a.example", "https://a.example/": "a.example", "HTTPS://a.example:8443/": "a.example:8443",
		"a.example/": "a.example", " a.example:80\r\n": "a.example:80", "https://[2001:db8::1]": "2001:db8::1", "https://[2001:db8::1]:443/": "[2001:db8::1]:443",
		"[2001:db8::1]": "2001:db8::1", "2001:db8::1": "2001:db8::1", "192.0.2.1/": "192.0.2.1",
	} {
		got, err := ParseHost(in)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
		if again, err := ParseHost(got); err != nil || again != got {
			t.Errorf("%q gave %q, and that %q, %v", in, got, again, err)
		}
	}
	for in, want := range map[string]string{
		"http://a.example": "no URL", "https://a.example/login": "no URL", "https://u:p@a.example": "no URL", "a.example?x": "no URL", "ssh://a.example": "no URL",
		"https://": "neither", "a.example:0": "port is not 1 to 65535", "https:// a": "neither", "a b": "neither", "[a.example]": "neither",
	} {
		if got, err := ParseHost(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v, want an error with %q", in, got, err, want)
		}
	}
}

func TestHostName(t *testing.T) {
	for in, want := range map[string]string{"Relay_1.Example.": "relay_1.example", "a": "a", "192.0.2.1": "", "2001:db8::1": "", "a:80": "", "": ""} {
		if name, ok := HostName(in); name != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", in, name, ok, want)
		}
	}
}

func FuzzSplitHost(f *testing.F) {
	for _, s := range []string{"a.example:80", "[2001:db8::1]:443", "192.0.2.1", "fe80::1%eth0", "a:b:c", "a..b", "-", "Relay_1.example."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := SplitHost(s)
		if err != nil {
			if host != "" || port != 0 {
				t.Fatalf("%q: an error and %q %d", s, host, port)
			}
			return
		}
		again, none, err := SplitHost(host)
		if err != nil || again != host || none != 0 {
			t.Fatalf("%q gave host %q, which gives %q %d %v", s, host, again, none, err)
		}
		if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q gave host %q, which cannot be printed", s, host)
		}
		if name, ok := HostName(host); ok {
			if again, ok := HostName(name); !ok || again != name || len(name) > 253 {
				t.Fatalf("%q is the name %q, and that is %q", host, name, again)
			}
		}
	})
}
