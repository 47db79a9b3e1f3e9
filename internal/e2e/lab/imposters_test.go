//go:build linux

package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// imposter answers on a port in place of the server.
type imposter struct {
	name    string
	reasons []string // wire §7; more than one where it depends on which packet arrives first
	issuer  string   // of the certificate it shows
	blurt   string   // the protocol in which curl tells it something that its judge sees; empty: none
	// start starts it. It returns where the port is to be led, and what gives everything that it has received.
	start func(t *testing.T) (where string, judge func() []byte)
}

var imposters = []imposter{
	{"accepts and stays silent", []string{"timeout"}, "", "http", recorder("silent")},
	{"resets after the hello", []string{"reset-after-hello"}, "", "http", recorder("reset")},
	{"ends after the hello", []string{"reset-after-hello"}, "", "http", recorder("close")},
	{"speaks TLS under a root of its own, and would take a certificate", []string{"tls-intercepted"}, "Imposter", "https", recorder("tls")},
	{"nginx speaks HTTP", []string{"plain-http"}, "", "http", nginx("http", `return 200 "hello";`)},
	{"nginx is a captive portal", []string{"captive-portal"}, "", "http", nginx("http",
		`error_page 400 =302 http://portal.example/login; location / { return 302 http://portal.example/login; }`)},
	{"nginx is a web server with TLS", []string{"tls-refused"}, "", "https", nginx("tls", `ssl_verify_client optional_no_ca; return 200 "hello";`)},
	{"nginx ends TLS for something else", []string{"tls-intercepted"}, "Site Proxy", "https", nginx("stream", "")},
	{"sslsplit inspects what another server answers", []string{"tls-intercepted"}, "Site Proxy", "https", sslsplit},
	{"sslsplit inspects, and our server refuses it", []string{"reset-after-hello", "tls-refused"}, "", "", sslsplitToServer},
	{"mitmproxy inspects what our server answers", []string{"tls-intercepted"}, "mitmproxy", "https", mitmproxy},
	{"another infrastructure", []string{"wrong-root"}, "", "", otherInfrastructure},
}

// recorder is this program, with a role that records every byte.
func recorder(mode string) func(*testing.T) (string, func() []byte) {
	return func(t *testing.T) (string, func() []byte) {
		file := filepath.Join(t.TempDir(), "received")
		p := startCommand(t, onHost(t, curtain, "impose", mode, file))
		p.await(0, "listening")
		return curtain + ":443", func() []byte { return contents(t, file) }
	}
}

// nginx is the real one. Its logs hold what it has understood of a connection, and as it was sent.
func nginx(kind, directives string) func(*testing.T) (string, func() []byte) {
	return func(t *testing.T) (string, func() []byte) {
		dir := t.TempDir()
		cert, key := siteProxy(t, dir)
		conf := nginxConf(dir, kind, directives, cert, key)
		file := filepath.Join(dir, "conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, curtain, "nginx", "-e", filepath.Join(dir, "error"), "-c", file)
		p.awaitPort(443)
		return curtain + ":443", func() []byte {
			return append(contents(t, filepath.Join(dir, "access")), contents(t, filepath.Join(dir, "error"))...)
		}
	}
}

// nginxConf is one process that stays in the foreground, keeps its files in dir, and listens on port 443.
func nginxConf(dir, kind, directives, cert, key string) string {
	tls := "ssl_certificate " + cert + "; ssl_certificate_key " + key + "; ssl_protocols TLSv1.2 TLSv1.3;"
	listen := func(port, flag string) string {
		return "listen " + port + flag + "; listen [::]:" + port + flag + ";"
	}
	server, stream, modules := listen("443", "")+directives, "", ""
	switch kind {
	case "tls":
		server = listen("443", " ssl") + tls + directives
	case "stream": // only this one takes whatever ALPN a client asks for
		modules = "load_module " + nginxModule() + ";\n"
		server = listen("8080", "") + `return 200 "hello";`
		stream = "stream { server { " + listen("443", " ssl") + tls + " proxy_pass 127.0.0.1:8080; } }\n"
	}
	var temp strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp.WriteString(name + "_temp_path " + filepath.Join(dir, name) + "; ")
	}
	return modules + "user root; daemon off; master_process off; pid " + filepath.Join(dir, "pid") + "; error_log " + filepath.Join(dir, "error") +
		" info;\nevents {}\n" + stream + "http { " + temp.String() +
		"\nlog_format all escape=none '$request $request_body $ssl_client_raw_cert';\naccess_log " + filepath.Join(dir, "access") +
		" all;\nserver { root " + dir + "; " + server + " }\n}\n"
}

// nginxModule finds nginx's stream module, which a package of its own puts below the same directory as programs.
func nginxModule() string {
	const name = "ngx_stream_module.so"
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		file := filepath.Join(dir, "..", "lib", "nginx", "modules", name)
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return name // nginx will say that it is missing
}

// sslsplit inspects what passes the site's gateway, and leads it on to an nginx that takes any client.
func sslsplit(t *testing.T) (string, func() []byte) {
	_, behind := nginx("stream", "")(t)
	where, judge := inspect(t, describe(t).ways(curtain)[0].String(), describe(t).ways(curtain)[1].String())
	return where, func() []byte { return append(judge(), behind()...) }
}

// sslsplitToServer leads it on to where it was to go: our server.
func sslsplitToServer(t *testing.T) (string, func() []byte) {
	return inspect(t, describe(t).ways("access1")[0].String(), describe(t).ways("access1")[1].String())
}

func inspect(t *testing.T, to4, to6 string) (string, func() []byte) {
	dir := t.TempDir()
	cert, key := siteProxy(t, dir)
	here, content, connections := describe(t).ways("site"), filepath.Join(dir, "content"), filepath.Join(dir, "connections")
	p := start(t, "site", "sslsplit", "-D", "-u", "root", "-k", key, "-c", cert, "-L", content, "-l", connections,
		"ssl", here[0].String(), "8443", to4, "443", "ssl", here[1].String(), "8443", to6, "443")
	p.awaitPort(8443)
	return "site:8443", func() []byte {
		return bytes.Join([][]byte{contents(t, content), contents(t, connections), []byte(p.String())}, nil)
	}
}

// mitmproxy inspects too, and before it shows a certificate of its own it reads the server's, to have the same names: one
// that it cannot read ends the connection, and nobody learns why (docs/decisions/0013). It leads on to where it was to go.
func mitmproxy(t *testing.T) (string, func() []byte) {
	dir := t.TempDir()
	flows := filepath.Join(dir, "flows")
	p := start(t, "site", "mitmdump", "--mode", "transparent", "--listen-port", "8443", "--ssl-insecure",
		"--set", "confdir="+dir, "--set", "flow_detail=4", "--set", "termlog_verbosity=debug", "--save-stream-file", flows)
	p.awaitPort(8443)
	return "site:8443", func() []byte { return append(contents(t, flows), p.String()...) }
}

// otherInfrastructure is a real server with a root that nobody here trusts.
func otherInfrastructure(t *testing.T) (string, func() []byte) {
	dir := filepath.Join(t.TempDir(), "server")
	must(t, nil, "access2", hawser("hawser-server"), "init", "--dir", dir, "--host", accessName, "--json")
	p := start(t, "access2", hawser("hawser-server"), "run", "--config", filepath.Join(dir, "server.yaml"))
	p.await(0, "ready ")
	return "access2", func() []byte { return []byte(p.String()) }
}

// siteProxy makes a certificate with which a site's proxy signs what it inspects.
func siteProxy(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	run(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
		"-subj", "/O=Site Proxy/CN=Site Proxy CA", "-days", "3", "-addext", "basicConstraints=critical,CA:TRUE")
	return cert, key
}

// contents is what a file holds; one that nobody has written yet holds nothing.
func contents(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return text
}
