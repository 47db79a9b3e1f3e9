//go:build linux

package lab

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The site's proxy stands on its gateway, beside the firewall, and hears all of the site. What nobody may see of it is the
// password.
const (
	squidPort     = 3128
	socksPort     = 1080
	proxyUser     = "hawser"
	proxyPassword = "Open-Sesame-4711"
)

// proxyURL is the proxy as the site sees it, for a user or for nobody.
func proxyURL(t *testing.T, scheme, login string) string {
	t.Helper()
	port := squidPort
	if scheme == "socks5" {
		port = socksPort
	}
	if login != "" {
		login += "@"
	}
	return fmt.Sprintf("%s://%s%s", scheme, login, net.JoinHostPort(describe(t).Hosts["site"][2].String(), fmt.Sprint(port)))
}

// squid starts the real one. With a scheme it lets nobody out who has not proven himself by that.
func squid(t *testing.T, scheme string) *process {
	t.Helper()
	dir, program := t.TempDir(), strings.TrimSpace(run(t, "sh", "-c", "command -v squid"))
	usr := filepath.Dir(filepath.Dir(program))
	helpers, allow := filepath.Join(usr, "lib", "squid"), "http_access allow all"
	if scheme != "" {
		allow = "acl known proxy_auth REQUIRED\nhttp_access allow known"
	}
	passwords, secret := filepath.Join(dir, "passwords"), proxyPassword
	switch scheme {
	case "basic":
		secret = strings.TrimSpace(run(t, "openssl", "passwd", "-apr1", proxyPassword))
		allow = "auth_param basic program " + helpers + "/basic_ncsa_auth " + passwords + "\n" + allow
	case "digest":
		allow = "auth_param digest program " + helpers + "/digest_file_auth " + passwords + "\nauth_param digest realm site\n" + allow
	case "ntlm":
		allow = "auth_param ntlm program " + helpers + "/ntlm_fake_auth\n" + allow
	}
	conf := filepath.Join(dir, "conf")
	for file, text := range map[string]string{passwords: proxyUser + ":" + secret + "\n", conf: squidConf(dir, usr, allow)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It refuses to be root, which is the lab's only user: so it has a world of its own in which it is somebody.
	p := start(t, "site", "unshare", "--user", "--map-user=31", "--map-group=31", program, "-N", "-f", conf)
	p.awaitPort(squidPort)
	return p
}

// squidConf has the files of a squid in dir, and its parts in usr. As Debian's does, it connects to few ports.
func squidConf(dir, usr, allow string) string {
	return fmt.Sprintf(`http_port %d
visible_hostname proxy.example
cache deny all
cache_log %[2]s/cache.log
access_log none
pid_filename %[2]s/pid
coredump_dir %[2]s
mime_table %[3]s/share/squid/mime.conf
icon_directory %[3]s/share/squid/icons
error_directory %[3]s/share/squid-langpack/templates
unlinkd_program %[3]s/lib/squid/unlinkd
logfile_daemon %[3]s/lib/squid/log_file_daemon
pinger_enable off
shutdown_lifetime 0 seconds
acl TLS_ports port 443
http_access deny !TLS_ports
%[4]s
http_access deny all
`, squidPort, dir, usr, allow)
}

// microsocks starts a real SOCKS5 proxy, for one user or for everybody.
func microsocks(t *testing.T, login bool) *process {
	t.Helper()
	args := []string{"-i", "0.0.0.0", "-p", fmt.Sprint(socksPort)}
	if login {
		args = append(args, "-u", proxyUser, "-P", proxyPassword)
	}
	p := start(t, "site", "microsocks", args...)
	p.awaitPort(socksPort)
	return p
}

// through has the gateway's configuration say something of proxies, and forgets former ways.
func (g *gateway) through(proxy string) {
	g.t.Helper()
	g.set("proxy", proxy)
	g.forget()
}

// secretsOfProxy fails when a text shows the proxy's password, in clear or as it goes to the proxy.
func secretsOfProxy(t *testing.T, what, text string) {
	t.Helper()
	for _, secret := range []string{proxyPassword, base64.StdEncoding.EncodeToString([]byte(proxyUser + ":" + proxyPassword))} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the proxy's password: %s", what, text)
		}
	}
}

// closed lets nothing out of the site but the proxy, and no name is resolved in it.
var closed = []string{"drop", "tcp", "443,5935,80,53", "drop", "udp", "53"}

const throughProxy, nextTime = 10 * time.Second, time.Second

// Where only a proxy leads out, and no name is resolved, the gateway enrolls and works through the proxy.
func TestAgentGetsOutThroughAProxy(t *testing.T) {
	g := newRig(t).addDevice("press-4")
	login := proxyUser + ":" + proxyPassword
	firewall(t, closed...)
	squid(t, "")
	fresh := g.addDevice("press-5")
	if err := os.Remove(filepath.Join(fresh.data, "agent.yaml")); err != nil {
		t.Fatal(err)
	}
	must(t, nil, "device", hawser("hawser-agent"), "--data", fresh.data, "--config", filepath.Join(fresh.data, "agent.yaml"), "enroll",
		"--access", accessName, "--code", fresh.code, "--root", g.root, "--proxy", proxyURL(t, "http", ""))
	if text := string(contents(t, filepath.Join(fresh.data, "agent.yaml"))); !strings.Contains(text, proxyURL(t, "http", "")) {
		t.Errorf("enroll --proxy wrote %s", text)
	}
	g.through(proxyURL(t, "http", ""))
	g.enroll()
	for name, tt := range map[string]struct {
		setting string
		env     string
		proxy   func(*testing.T)
	}{
		"squid of the environment":      {"auto", "https_proxy=" + proxyURL(t, "http", ""), nil},
		"squid":                         {proxyURL(t, "http", ""), "", nil},
		"SOCKS5":                        {proxyURL(t, "socks5", ""), "", func(t *testing.T) { microsocks(t, false) }},
		"SOCKS5 with a password":        {proxyURL(t, "socks5", login), "", func(t *testing.T) { microsocks(t, true) }},
		"the second of a list is alive": {"[" + proxyURL(t, "socks5", login) + ", " + proxyURL(t, "http", "") + "]", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Attr("id", "W-proxy")
			if tt.proxy != nil {
				tt.proxy(t)
			}
			g.through(tt.setting)
			g.expectThrough(t, tt.env)
		})
	}
	t.Run("the technician and a relay", func(t *testing.T) {
		t.Attr("id", "W-proxy")
		env := "https_proxy=" + proxyURL(t, "http", "")
		must(t, nil, "device", "env", env, hawser("hawser"), "--home", g.home, "device", "list")
		var added struct{ Code string }
		g.manager(&added, "relay", "add", "behind-a-proxy", "--host", "relay.example", "--json")
		must(t, nil, "device", "env", env, hawser("hawser-server"), "enroll", "--dir", g.path("relay"), "--host", "relay.example",
			"--access", accessName, "--code", added.Code, "--root", g.root)
	})
}

// expectThrough runs the agent twice, and wants both to be online through a proxy and of use.
func (g *gateway) expectThrough(t *testing.T, env string) {
	t.Helper()
	watch := watchLab()
	runAgent := func() (*process, time.Duration) {
		p := start(t, "device", "env", env, hawser("hawser-agent"), "--data", g.data, "run")
		return p, p.await(0, "online "+g.uid).at.Sub(p.began)
	}
	if env == "" {
		runAgent = func() (*process, time.Duration) { return g.run(t) }
	}
	searching, found := runAgent()
	searching.stop()
	remembering, remembered := runAgent()
	watch.Within(t, "online", found, throughProxy)
	watch.Within(t, "online the next time", remembered, nextTime)
	t.Logf("online after %v, the next time after %v", found.Round(time.Millisecond), remembered.Round(time.Millisecond))
	g.manager(nil, "ping", g.name, "--count", "1")
	status := g.agent("status", "--json")
	if !strings.Contains(status.stdout, `"way":"proxy"`) {
		t.Errorf("status says %s", status.stdout)
	}
	remembering.stop()
	for what, text := range map[string]string{"the first log": searching.String(), "the second log": remembering.String(),
		"status": status.stdout, "state": g.slots()} {
		secretsOfProxy(t, what, text)
	}
}

// slots is what the agent remembers.
func (g *gateway) slots() (text string) {
	g.t.Helper()
	for _, slot := range []string{"state.0", "state.1"} {
		b, err := os.ReadFile(filepath.Join(g.data, slot))
		if err != nil && !os.IsNotExist(err) {
			g.t.Fatal(err)
		}
		text += string(b)
	}
	return text
}

// A proxy that does not let the gateway out says why, and the reason is the right one.
func TestProxyThatRefusesIsNamed(t *testing.T) {
	g := newRig(t).addDevice("press-4")
	g.enroll()
	login := proxyUser + ":" + proxyPassword
	firewall(t, closed...)
	for name, tt := range map[string]struct {
		scheme, login string
		says          string
	}{
		"no password": {"basic", "", "it wants a name and password"}, "a wrong password": {"basic", proxyUser + ":" + proxyPassword + "0", "does not take this name and password"},
		"Digest alone": {"digest", login, "it wants Digest"}, "NTLM alone": {"ntlm", login, "it wants NTLM"},
		"the right password": {"basic", login, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Attr("id", "W-proxy")
			squid(t, tt.scheme)
			g.through(proxyURL(t, "http", tt.login))
			if tt.says == "" {
				g.expectThrough(t, "")
				sheet := filepath.Join(t.TempDir(), "sheet.html")
				said := g.agent("netcheck", "--json", "--it-report", sheet)
				secretsOfProxy(t, "netcheck", said.stdout+said.stderr)
				secretsOfProxy(t, "the sheet", string(contents(t, sheet)))
				return
			}
			agent := start(t, "device", hawser("hawser-agent"), "--data", g.data, "run")
			closed := agent.await(0, `reason=proxy-auth`).text
			if !strings.Contains(closed, tt.says) || !strings.Contains(closed, proxyURL(t, "http", "")) {
				t.Errorf("the log says %s, want %q", closed, tt.says)
			}
			if name == "NTLM alone" { // the reason of the whole search, which ends when names have failed
				if again := agent.await(0, `msg="will try again"`).text; !strings.Contains(again, "reason=proxy-auth") || !strings.Contains(again, tt.says) {
					t.Errorf("the log says %s", again)
				}
			}
			status := g.agent("status").stdout
			agent.stop()
			secretsOfProxy(t, "the log", agent.String())
			secretsOfProxy(t, "status", status)
		})
	}
	t.Run("SOCKS5 with a wrong password", func(t *testing.T) {
		t.Attr("id", "W-proxy")
		microsocks(t, true)
		g.through(proxyURL(t, "socks5", proxyUser+":"+proxyPassword+"0"))
		agent := start(t, "device", hawser("hawser-agent"), "--data", g.data, "run")
		agent.await(0, `reason=proxy-auth`)
		agent.stop()
		secretsOfProxy(t, "the log", agent.String())
	})
}

// A proxy that dies and comes back, and a direct way that comes and goes, are followed.
func TestWaysComeAndGo(t *testing.T) {
	t.Attr("id", "W-proxy")
	g := newRig(t).addDevice("press-4")
	g.enroll()
	firewall(t, closed...)
	proxy := squid(t, "")
	g.through("auto")
	agent := start(t, "device", "env", "https_proxy="+proxyURL(t, "http", ""), hawser("hawser-agent"), "--data", g.data, "run")
	agent.await(0, "online "+g.uid)
	online := func(what string, mark int, way string, since time.Time, watch func(time.Duration)) {
		t.Helper()
		l := agent.await(mark, "online "+g.uid)
		if got := strings.Contains(l.text, " through http://"); got != (way == "proxy") {
			t.Errorf("%s: %s, want it %s", what, l.text, way)
		}
		watch(l.at.Sub(since))
		t.Logf("%s: online after %v", what, l.at.Sub(since).Round(time.Millisecond))
	}
	step := func(what, way string, change func()) {
		t.Helper()
		mark, watch := agent.mark(), watchLab()
		proxy.kill()
		agent.await(mark, `msg="will try again"`)
		change()
		online(what, mark, way, time.Now(), func(took time.Duration) { watch.Within(t, what, took, throughProxy) })
	}
	step("the proxy is back", "proxy", func() { proxy = squid(t, "") })
	step("there is a direct way", "direct", func() { run(t, "lab", "firewall", "clear") })
	mark, watch, began := agent.mark(), watchLab(), time.Now()
	proxy = squid(t, "")
	run(t, append([]string{"lab", "firewall"}, closed...)...)
	g.cut()
	online("the direct way has gone", mark, "proxy", began, func(took time.Duration) { // it has lost several links by now
		watch.Within(t, "through the proxy again", took, throughProxy)
	})
}

// cut ends the gateway's control connection aloud, as a firewall does that was told to.
func (g *gateway) cut() {
	g.t.Helper()
	run(g.t, "ip", "netns", "exec", "device", "ss", "-K", "dst", describe(g.t).ways("access1")[0].String())
	run(g.t, "ip", "netns", "exec", "device", "ss", "-K", "dst", "["+describe(g.t).ways("access1")[1].String()+"]")
}
