package transport

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

const secret = "s3cr:t" // of every proxy with a password in these tests; in a URL its colon is an escape

func TestParseProxy(t *testing.T) {
	for in, want := range map[string]struct {
		text           string
		user, password string
	}{
		"http://10.0.0.1:3128":                     {"http://10.0.0.1:3128", "", ""},
		"http://proxy.example":                     {"http://proxy.example:80", "", ""},
		"HTTP://proxy.example:8080/":               {"http://proxy.example:8080", "", ""},
		"socks5://[2001:db8::1]:1081":              {"socks5://[2001:db8::1]:1081", "", ""},
		"socks5h://[2001:db8::1]":                  {"socks5://[2001:db8::1]:1080", "", ""},
		"http://ann:s3cr%3At@proxy.example:3128":   {"http://proxy.example:3128", "ann", secret},
		"http://PLANT%5Cann:p@ss@proxy.example:80": {"http://proxy.example:80", `PLANT\ann`, "p@ss"},
		"socks5://ann@proxy.example":               {"socks5://proxy.example:1080", "ann", ""},
		"http://ann:a:b@proxy.example":             {"http://proxy.example:80", "ann", "a:b"},
	} {
		p, err := ParseProxy(in)
		if err != nil || p.String() != want.text || p.HasLogin() != (want.user != "") {
			t.Errorf("%q: %v %v, want %v", in, p, err, want)
			continue
		}
		if p.HasLogin() && p.secret() != (login{want.user, want.password}) {
			t.Errorf("%q: %+v", in, p.secret())
		}
	}
	bad := []string{"", "proxy.example:3128", "ftp://proxy.example", "https://" + "ann:secret@proxy.example", "http://", "http://ann:secret@",
		"http://ann:secret%zz@proxy.example", "http://:secret@proxy.example", "http://ann:secret@proxy.example:0", "http://ann:secret@a b",
		"http://ann:secret@proxy.example/path", "http://ann:secret@proxy.example?q", "http://ann:se%0acret@proxy.example", "http://ann%3a:secret@proxy.example",
		"http://ann:" + strings.Repeat("secret", 50) + "@proxy.example", "http://" + strings.Repeat("a", 1100), "http://proxy.example/proxy.pac", "http://wpad/wpad.dat"}
	for _, in := range bad {
		if p, err := ParseProxy(in); err == nil || strings.Contains(err.Error(), "secret") || p.scheme != "" || p.HasLogin() {
			t.Errorf("%q: %v %v", in, p, err)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(bad)))
}

// Whoever prints, logs or stores something with a proxy in it, the password is not there.
func TestProxyNeverShowsItsPassword(t *testing.T) {
	ps, _, err := ProxyList([]string{"http://ann:" + "s3cr%3At@proxy.example:3128"})
	if err != nil {
		t.Fatal(err)
	}
	setting, _, _ := ParseProxySetting([]string{"socks5://ann:s3cr%3At@proxy.example:3128"})
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "p", ps, "q", ps.list[0], "s", setting)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "p", ps, "q", ps.list[0], "s", setting)
	asJSON, _ := json.Marshal(struct {
		P Proxies
		Q Proxy
	}{ps, ps.list[0]})
	texts := []string{log.String(), string(asJSON)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		texts = append(texts, fmt.Sprintf(verb, ps), fmt.Sprintf(verb, ps.list[0]), fmt.Sprintf(verb, &ps.list[0]), fmt.Sprintf(verb, setting))
	}
	for _, text := range texts {
		for _, part := range []string{secret, "s3cr", "ann", fmt.Sprintf("%x", secret)} {
			if strings.Contains(text, part) {
				t.Errorf("%q is in %s", part, text)
			}
		}
	}
}

func FuzzParseProxy(f *testing.F) {
	for _, s := range []string{"http://10.0.0.1:3128", "socks5://ann:x%25y@[2001:db8::1]:1", "http://a:b@c@d:1", "http://[::1]", "https://x", "http://%", "http://a/b.pac"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseProxy(s)
		if err != nil {
			if p.scheme != "" || p.HasLogin() {
				t.Fatalf("%q: an error and %v", s, p)
			}
			return
		}
		again, err := ParseProxy(p.String())
		if err != nil || again.String() != p.String() || again.HasLogin() || strings.Contains(p.String(), "@") {
			t.Fatalf("%q is %q, and that is %q %v", s, p, again, err)
		}
	})
}

func TestProxiesOfEnvironment(t *testing.T) {
	for _, tt := range []struct {
		env  string // NAME=VALUE, separated by blanks
		want string
	}{
		{"", "[]"},
		{"HTTPS_PROXY=http://a.example:3128", "[http://a.example:3128]"},
		{"https_proxy=a.example:3128", "[http://a.example:3128]"},
		{"https_proxy=http://a.example HTTPS_PROXY=http://b.example", "[http://a.example:80]"},
		{"https_proxy= HTTPS_PROXY=http://b.example", "[]"},
		{"ALL_PROXY=socks5h://a.example", "[socks5://a.example:1080]"},
		{"https_proxy=http://a.example all_proxy=socks5://b.example", "[http://a.example:80 socks5://b.example:1080]"},
		{"https_proxy=http://a.example all_proxy=http://a.example", "[http://a.example:80]"},
		{"http_proxy=http://a.example", "[]"},
		{"https_proxy=ftp://a.example", "[] 1 notes"},
		{"https_proxy=http://ann:x%zz@a.example all_proxy=https://a.example", "[] 2 notes"},
	} {
		ps := ProxiesOfEnvironment(func(name string) (string, bool) {
			for field := range strings.FieldsSeq(tt.env) {
				if n, v, _ := strings.Cut(field, "="); n == name {
					return v, true
				}
			}
			return "", false
		})
		got := fmt.Sprint(ps.list)
		if n := len(ps.Notes); n > 0 {
			got += fmt.Sprintf(" %d notes", n)
		}
		if got != tt.want || ps.First {
			t.Errorf("%q: %s, want %s", tt.env, got, tt.want)
		}
	}
}

func TestProxiesOfWindows(t *testing.T) {
	for _, tt := range []struct {
		in    settings
		want  string
		notes int
	}{
		{settings{}, "[]", 0},
		{settings{server: "proxy:8080"}, "[http://proxy:8080]", 0},
		{settings{server: "http=a:80;https=b:3128;ftp=c:21;socks=d:1080"}, "[http://b:3128 socks5://d:1080]", 0},
		{settings{server: "http=a:80"}, "[]", 0},
		{settings{server: "https=https://b:3128"}, "[]", 1},
		{settings{server: "http://b:3128", script: "http://wpad/proxy.pac"}, "[http://b:3128]", 1},
	} {
		var ps Proxies
		ps.addSystem(tt.in)
		if got := fmt.Sprint(ps.list); got != tt.want || len(ps.Notes) != tt.notes || ps.First {
			t.Errorf("%+v: %s, %q", tt.in, got, ps.Notes)
		}
	}
}

func FuzzSystemProxies(f *testing.F) {
	f.Add("http=a:80;https=b:3128", "<local>;*.corp;10.*;192.0.2.0/24", "a.corp")
	f.Add("proxy:8080", "[", "192.0.2.1")
	f.Fuzz(func(t *testing.T, server, bypass, host string) {
		var ps Proxies
		ps.addSystem(settings{server: server, bypass: bypass})
		for _, p := range ps.For(host, 443) {
			if again, err := ParseProxy(p.String()); err != nil || again.String() != p.String() {
				t.Fatalf("%q gives the proxy %s, and that %s, %v", server, p, again, err)
			}
		}
	})
}

func TestExceptions(t *testing.T) {
	for list, cases := range map[string]map[string]bool{
		"":                          {"a.example": false, "192.0.2.1": false},
		"*":                         {"a.example": true, "192.0.2.1": true},
		"example":                   {"example": true, "a.example": true, "A.Example.": true, "anexample": false},
		".example":                  {"example": true, "a.example": true},
		"*.example":                 {"example": false, "a.example": true},
		"a.example:443, b.example":  {"a.example": true, "b.example": true, "c.example": false},
		"a.example:80":              {"a.example": false},
		"192.0.2.1 10.0.0.0/8 ::1":  {"192.0.2.1": true, "10.9.9.9": true, "11.0.0.1": false, "::1": true, "::ffff:10.1.1.1": true},
		"192.168.*;<local>;*.corp*": {"192.168.1.1": true, "192.169.1.1": false, "press": true, "press.a": false, "x.corp.example": true},
		"[a-, %%, /, http://x":      {"x": false, "a": false},
	} {
		ps := Proxies{list: []Proxy{{scheme: schemeHTTP, host: "p", port: 1}}}
		for field := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune(",; ", r) }) {
			ps.addException(field)
		}
		for host, direct := range cases {
			if got := len(ps.For(host, 443)) == 0; got != direct {
				t.Errorf("no_proxy=%q: %s direct: %v", list, host, got)
			}
		}
	}
}

func TestProxySetting(t *testing.T) {
	system := func() Proxies { return Proxies{Notes: []string{"system"}} }
	for in, want := range map[string]string{
		"auto": "[] false [system]", "none": "[] false []", "http://a.example socks5://ann:x@b.example": "[http://a.example:80 socks5://b.example:1080] true []",
	} {
		s, _, err := ParseProxySetting(strings.Fields(in))
		if err != nil {
			t.Fatal(err)
		}
		if text := s.String(); strings.Contains(text, "ann") || in != text && in == "auto" {
			t.Errorf("%s: its text is %s", in, text)
		}
		if again, _, err := ParseProxySetting(s.Words()); err != nil || again.String() != s.String() || again.HasLogin() {
			t.Errorf("%s: its words are %q, %v", in, s.Words(), err)
		}
		if _, err := ParseProxyFlag(strings.Fields(in), "a file"); s.HasLogin() != (err != nil) || err != nil && strings.Contains(err.Error(), "ann") {
			t.Errorf("%s as a flag: %v", in, err)
		}
		ps := s.Source(system)()
		if got := fmt.Sprint(ps.list, ps.First, ps.Notes); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for in, item := range map[string]int{"": 0, "auto none": 0, "http://a.example none": 1, "http://a.example proxy": 1, "nope": 0} {
		if _, got, err := ParseProxySetting(strings.Fields(in)); err == nil || got != item {
			t.Errorf("%q: item %d, %v", in, got, err)
		}
	}
	if len((ProxySetting{}).Source(system)().list) != 0 {
		t.Error("the zero setting is not none")
	}
}

func TestConnectRequest(t *testing.T) {
	got := string(connectRequest(&login{"ann", secret}, "access.example.", 443))
	want := "CONNECT access.example:443 HTTP/1.1\r\nHost: access.example:443\r\nProxy-Authorization: Basic YW5uOnMzY3I6dA==\r\n\r\n"
	if got != want {
		t.Errorf("got %q", got)
	}
	if got := string(connectRequest(nil, "2001:db8::1", 80)); got != "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n" {
		t.Errorf("got %q", got)
	}
}

// connectAnswers are what proxies were seen to say.
var connectAnswers = []struct {
	head   string
	login  bool
	reason Reason
	text   string
}{
	{"HTTP/1.1 200 Connection established\r\n\r\n", false, "", ""},
	{"HTTP/1.0 200 OK\nVia: x\n\n", true, "", ""},
	{"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a, Digest b\"\r\n\r\n", false, ProxyAuth, "wants a name and password"},
	{"HTTP/1.1 407 x\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: basic realm=x\r\n\r\n", true, ProxyAuth, "does not take this name and password"},
	{"HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate, NTLM\r\n\r\n", true, ProxyAuth, "wants Negotiate or NTLM, which is not supported"},
	{"HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"r\", nonce=\"a,Basic b\", qop=\"auth\"\r\n\r\n", false, ProxyAuth, "wants Digest, which is not supported"},
	{"HTTP/1.1 407 x\r\nProxy-Authenticate: Bearer\r\n\r\n", false, ProxyAuth, "not supported"},
	{"HTTP/1.1 403 Forbidden\r\n\r\n", false, ProxyRefused, "403 Forbidden"},
	{"HTTP/1.1 503 \x1b[2JService\xff\r\n\r\n", false, ProxyRefused, "503 [2JService"},
	{"HTTP/1.1 502\r\n\r\n", false, ProxyRefused, "502"},
	{"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", false, CaptivePortal, "302"},
	{"HTTP/1.1 511 x\r\n\r\n", false, CaptivePortal, "511"},
	{"HTTP/2 200\r\n\r\n", false, NotTLS, "no HTTP proxy"},
	{"HTTP/1.1 2000 OK\r\n\r\n", false, NotTLS, "no HTTP proxy"},
	{"HTTP/1.1 -20 OK\r\n\r\n", false, NotTLS, "no HTTP proxy"},
	{"SSH-2.0-OpenSSH\r\n", false, NotTLS, "no HTTP proxy"},
	{"\x15\x03\x01\x00\x02\x02\x46", false, NotTLS, "no HTTP proxy"},
	{"HTTP/1.1 200 " + strings.Repeat("x", 9000), false, NotTLS, "more than 8 KiB"},
	{"HTTP/1.1 200 OK\r\n", false, Reset, ""},
}

func TestConnectAnswers(t *testing.T) {
	for _, tt := range connectAnswers {
		var l *login
		if tt.login {
			l = &login{"ann", secret}
		}
		c := &heardFrom{in: strings.NewReader(tt.head + "")}
		err := askHTTP(c, l, "access.example", 443)
		if ReasonOf(err) != tt.reason || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.60q: %v, want %s %q", tt.head, err, tt.reason, tt.text)
		}
	}
}

// heardFrom is a peer with a fixed text.
type heardFrom struct {
	in  *strings.Reader
	out strings.Builder
}

func (h *heardFrom) Read(b []byte) (int, error)  { return h.in.Read(b) }
func (h *heardFrom) Write(b []byte) (int, error) { return h.out.Write(b) }

// What follows the answer of a proxy is the server's, and is left there.
func TestProxyAnswersAreNotReadTooFar(t *testing.T) {
	for answer, ask := range map[string]func(*heardFrom) error{
		"HTTP/1.1 200 OK\r\nA: b\r\n\r\n":                  func(h *heardFrom) error { return askHTTP(h, nil, "h", 1) },
		"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06": func(h *heardFrom) error { return askSOCKS(h, nil, "h", 1) },
	} {
		h := &heardFrom{in: strings.NewReader(answer + "rest")}
		if err := ask(h); err != nil || h.in.Len() != 4 {
			t.Errorf("%q: %v, %d bytes are left", answer, err, h.in.Len())
		}
	}
}

func FuzzConnectAnswer(f *testing.F) {
	for _, tt := range connectAnswers {
		f.Add([]byte(tt.head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		a, err := parseConnectAnswer(head)
		if err != nil {
			if a.judge(false); a.status != 0 {
				t.Fatalf("%q: an error and %+v", head, a)
			}
			return
		}
		if a.status < 100 || a.status > 999 || len(a.schemes) > len(knownSchemes) || strings.ContainsFunc(a.phrase, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q: %+v", head, a)
		}
		again, err := parseConnectAnswer(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nProxy-Authenticate: %s\r\n\r\n", a.status, a.phrase, strings.Join(a.schemes, ", ")))
		if err != nil || again.status != a.status || again.phrase != a.phrase || !slices.Equal(again.schemes, a.schemes) {
			t.Fatalf("%q is %+v, written again %+v %v", head, a, again, err)
		}
	})
}

func TestSOCKSMessages(t *testing.T) {
	for _, tt := range []struct {
		host string
		want string
	}{
		{"access.example.", "\x05\x01\x00\x03\x0eaccess.example\x01\xbb"},
		{"192.0.2.1", "\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"},
		{"2001:db8::1", "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb"},
	} {
		if got, err := socksRequest(tt.host, 443); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q %v", tt.host, got, err)
		}
	}
	if _, err := socksRequest(strings.Repeat("a.", 200), 1); err == nil {
		t.Error("a name of 400 bytes is sent")
	}
}

var socksTalks = []struct {
	talk   string // of the proxy
	login  bool
	reason Reason
	text   string
}{
	{"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x05\x06", false, "", ""},
	{"\x05\x00\x05\x00\x00\x03\x01a\x05\x06", true, "", ""},
	{"\x05\x02\x01\x00\x05\x00\x00\x04" + strings.Repeat("x", 18), true, "", ""},
	{"\x05\x02\x01\x01", true, ProxyAuth, "does not take this name"},
	{"\x05\xff", false, ProxyAuth, "wants a name and password"},
	{"\x05\xff", true, ProxyAuth, "neither"},
	{"\x05\x01", true, ProxyAuth, "GSSAPI"},
	{"\x05\x02", false, NotTLS, "no SOCKS5"}, // not offered
	{"\x05\x00\x05\x02\x00\x01", false, ProxyRefused, "rules do not allow"},
	{"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", false, ProxyRefused, "refused"},
	{"\x05\x00\x05\x63\x00\x01", false, ProxyRefused, "error 99"},
	{"\x05\x00\x05\x00\x00\x07", false, NotTLS, "no SOCKS5"},
	{"\x05\x00\x04\x00\x00\x01", false, NotTLS, "no SOCKS5"},
	{"HTTP/1.1 400 Bad Request\r\n", false, NotTLS, "no SOCKS5"},
	{"\x05\x00\x05\x00\x00\x01\x01", false, Reset, ""},
	{"", false, Reset, ""},
}

func TestSOCKSTalks(t *testing.T) {
	for _, tt := range socksTalks {
		var l *login
		if tt.login {
			l = &login{"ann", secret}
		}
		h := &heardFrom{in: strings.NewReader(tt.talk)}
		if err := askSOCKS(h, l, "access.example", 443); ReasonOf(err) != tt.reason || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q: %v, want %s %q", tt.talk, err, tt.reason, tt.text)
		}
		if sent := strings.Contains(h.out.String(), "\x01\x03ann\x06"+secret); sent != strings.HasPrefix(tt.talk, "\x05\x02\x01") {
			t.Errorf("%q: sent %q", tt.talk, h.out.String())
		}
	}
}

func FuzzSOCKSTalk(f *testing.F) {
	for _, tt := range socksTalks {
		f.Add(tt.talk, tt.login)
	}
	f.Fuzz(func(t *testing.T, talk string, withLogin bool) {
		var l *login
		if withLogin {
			l = &login{"ann", secret}
		}
		h := &heardFrom{in: strings.NewReader(talk)}
		err := askSOCKS(h, l, "access.example", 443)
		if !withLogin && strings.Contains(h.out.String(), secret) || err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("%q: the password shows in %q, %v", talk, h.out.String(), err)
		}
		if read := len(talk) - h.in.Len(); read > 2+2+4+1+255+2 {
			t.Fatalf("%q: %d bytes were read", talk, read)
		}
	})
}

func TestWhere(t *testing.T) {
	for _, tt := range []struct {
		c    Candidate
		want string
		way  string
	}{
		{Candidate{Host: "a.example", Addr: netip.MustParseAddrPort("192.0.2.1:443")}, "192.0.2.1:443", WayDirect},
		{Candidate{Host: "a.example"}, "a.example", WayDirect},
		{proxied("a.example", []Proxy{{scheme: "http", host: "p", port: 3128}}, []Port{443})[0], "a.example:443 through http://p:3128", WayProxy},
	} {
		if got := tt.c.Where(); got != tt.want || tt.c.Way() != tt.way {
			t.Errorf("got %q, %s", got, tt.c.Way())
		}
	}
}

func TestKnownWays(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	direct := Candidate{Host: "h", Addr: netip.MustParseAddrPort("192.0.2.1:443")}
	through := Candidate{Host: "h", Addr: netip.AddrPortFrom(netip.Addr{}, 443), Proxy: "http://p:3128"}
	for _, c := range []Candidate{direct, direct.small(), through, through.small()} {
		var k Known
		if err := json.Unmarshal(must(json.Marshal(NewKnown(c, now))), &k); err != nil {
			t.Fatal(err)
		}
		if got := k.Candidate("h", now); got != c {
			t.Errorf("%+v came back as %+v", c, got)
		}
		if got := k.Candidate("h", now.Add(smallTime)); got != c.full() {
			t.Errorf("%+v is %+v a day later", c, got)
		}
		for _, d := range []Candidate{direct, direct.small(), through, through.small()} {
			if k.Is(d) != (c.full() == d.full()) || k.Says(d, now) != (c == d) {
				t.Errorf("%+v: is %+v %v, says it %v", c, d, k.Is(d), k.Says(d, now))
			}
		}
		if k.Says(c, now.Add(smallTime)) == c.Small {
			t.Errorf("%+v: a day later it says the same %v", c, !c.Small)
		}
	}
}
