//go:build linux

package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// network is one kind of network as a person meets it who has come to commission a gateway.
type network struct {
	name   string
	access string // empty: accessName
	proxy  string // that the environment names; empty: none
	make   func(t *testing.T)
	reason string // of the verdict; empty: there is a way out
	says   string // the first broken link, in the verdict and in an English sheet
	german string // in a German one
}

// behind makes a network by the clauses of a firewall.
func behind(clauses ...string) func(*testing.T) {
	return func(t *testing.T) { firewall(t, clauses...) }
}

// diverted makes one in which every way leads to an imposter.
func diverted(start func(*testing.T) (string, func() []byte)) func(*testing.T) {
	return func(t *testing.T) {
		where, _ := start(t)
		firewall(t, "divert", strings.Join(ports, ","), where)
	}
}

func networks(t *testing.T) []network {
	return []network{
		{name: "open", make: func(*testing.T) {}, says: "There is a way out: TCP 443 to", german: "Es gibt einen Weg nach außen"},
		{name: "all dropped", make: behind("open", "9", "--others", "drop"), reason: "timeout",
			says: "No port is open (443 timeout, 5935 timeout, 80 timeout)", german: "Kein Port ist offen"},
		{name: "the server does not run", access: "access2.example", make: func(*testing.T) {}, reason: "refused",
			says: "is hawser-server running there?", german: "läuft hawser-server dort?"},
		{name: "one port", make: behind("open", "5935", "--others", "drop"), says: "There is a way out: TCP 5935 to", german: "TCP 5935 zu"},
		{name: "no names", make: behind("drop", "udp", "53", "drop", "tcp", "53"), reason: "dns",
			says: "No DNS resolver answers for " + accessName, german: "Kein DNS-Server antwortet auf " + accessName},
		{name: "login page", make: diverted(nginx("http",
			`error_page 400 =302 http://portal.example/login; location / { return 302 http://portal.example/login; }`)), reason: "captive-portal",
			says: "A login page stands before TCP", german: "steht eine Anmeldeseite"},
		{name: "inspection by a named CA", make: diverted(nginx("stream", "")), reason: "tls-intercepted",
			says: "Site Proxy CA", german: "wird aufgebrochen"},
		{name: "sslsplit inspects", make: diverted(sslsplit), reason: "tls-intercepted",
			says: "Site Proxy CA", german: "wird aufgebrochen"},
		{name: "mitmproxy inspects", make: diverted(mitmproxy), reason: "tls-intercepted",
			says: "mitmproxy", german: "wird aufgebrochen"},
		{name: "a web server", make: diverted(nginx("http", `return 200 "hello";`)), reason: "plain-http",
			says: "Something that is no Access Server answers on TCP", german: "das kein Access Server ist"},
		{name: "small packets only", make: func(t *testing.T) { narrow(t, 1400, true) },
			says: "Packets of more than 1400 bytes vanish on this path (MTU)", german: "Pakete von mehr als 1400 Bytes verschwinden auf diesem Weg"},
		{name: "a proxy only", proxy: proxyURL(t, "http", ""), make: func(t *testing.T) { squid(t, ""); firewall(t, closed...) },
			says: "Only a proxy leads out, " + proxyURL(t, "http", ""), german: "Nur ein Proxy führt hinaus, " + proxyURL(t, "http", "")},
		{name: "a proxy that wants a password", proxy: proxyURL(t, "http", ""), make: func(t *testing.T) { squid(t, "digest"); firewall(t, closed...) },
			reason: "proxy-auth", says: "it wants Digest", german: "lässt dieses Gerät nicht durch"},
	}
}

// Before anything is enrolled, netcheck and the sheet for the site's IT name the first broken link.
func TestFirstBrokenLinkBeforeEnrollment(t *testing.T) {
	r := newRig(t)
	for i, n := range networks(t) {
		t.Run(n.name, func(t *testing.T) {
			t.Attr("id", "W-first")
			n.make(t)
			args := []string{"--access", accessName}
			if n.access != "" {
				args[1] = n.access
			}
			if i/2%2 == 1 { // what is true is true with a root and without
				args = append(args, "--root", r.root)
			}
			language, want := "en", n.says
			if i%2 == 1 {
				language, want = "de", n.german
			}
			if sheet := n.check(t, language, args); !strings.Contains(sheet, want) {
				t.Errorf("the sheet does not say %q:\n%s", want, sheet)
			}
		})
	}
}

// check runs netcheck on a machine that never enrolled, and returns its sheet.
func (n network) check(t *testing.T, language string, args []string) (sheet string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sheet.txt")
	args = append([]string{"https_proxy=" + n.proxy, hawser("hawser-agent"), "--data", filepath.Join(dir, "never"), "netcheck", "--json", "--it-report", file, "--language", language}, args...)
	got := finish(t, "device", "env", args...)
	var report struct {
		Verdict struct {
			OK           bool
			Reason, Text string
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatalf("exit %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
	}
	v := report.Verdict
	if v.Reason != n.reason || v.OK != (n.reason == "") || !strings.Contains(v.Text, n.says) || (got.code == 0) != v.OK {
		t.Errorf("exit %d, verdict %+v, want %q: %s\n%s", got.code, v, n.reason, n.says, got.stdout)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "never")); err == nil {
		t.Error("it made a state directory")
	}
	return string(text)
}
