//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// secondName leads to access2.
const secondName = "ccas2.keb.de"

// cluster is a rig with two Access Servers, on access1 and access2, and with one relay that knows both.
type cluster struct {
	*rig
	nodes map[string]*node // by the name that leads to them
	relay *relay
}

// node is an Access Server of several.
type node struct {
	*process
	host, config string // the machine's; file
}

// newCluster makes one. Each server is told the names of both: a Manager learns those at login, and no others later.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{rig: &rig{t: t, dir: t.TempDir()}, nodes: map[string]*node{}}
	c.home = c.path("home")
	url := servePostgres(t)
	args := []string{"--store", url, "--host", accessName, "--host", secondName, "--json"}
	var made struct {
		RootFile string `json:"root_file"`
		Code     string `json:"admin_code"`
	}
	must(t, &made, "access1", hawser("hawser-server"), append([]string{"init", "--dir", c.path("server")}, args...)...)
	c.root = made.RootFile
	c.configure([]string{"relay:\n  name: relay1\n  dir: relay\n", ""})
	must(t, nil, "access2", hawser("hawser-server"),
		append([]string{"init", "--dir", c.path("second"), "--join", c.path("server/root")}, args...)...)
	c.nodes[accessName] = &node{host: "access1", config: c.path("server/server.yaml")}
	c.nodes[secondName] = &node{host: "access2", config: c.path("second/server.yaml")}
	for _, n := range c.nodes {
		n.run(t)
	}
	c.manager(nil, "login", accessName, "--code", made.Code, "--root", c.root, "--no-passphrase")
	c.addRelay()
	return c
}

// servePostgres runs a PostgreSQL in the lab, behind TLS as any that is not on the server's own machine, and returns the
// URL of its database.
func servePostgres(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	address := describe(t).Hosts["time"][0]
	must(t, nil, "time", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=db", "-addext", "subjectAltName=IP:"+address.String(), "-keyout", dir+"/key.pem", "-out", dir+"/cert.pem")
	bin := strings.TrimSpace(run(t, "../../../scripts/postgres"))
	data := filepath.Join(dir, "data")
	// PostgreSQL refuses to be root, which everybody is in the lab: one more namespace has another name for it.
	mapped := []string{"--user", "--map-user=1000", "--map-group=1000"}
	must(t, nil, "time", "unshare", append(mapped, bin+"/initdb", "-D", data, "-U", "hawser", "--auth=trust", "--no-sync")...)
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("hostssl all all all trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := append([]string{"exec", "time", "unshare"}, mapped...)
	command = append(command, bin+"/postgres", "-D", data, "-k", "", "-c", "listen_addresses="+address.String(),
		"-c", "ssl=on", "-c", "ssl_cert_file="+dir+"/cert.pem", "-c", "ssl_key_file="+dir+"/key.pem")
	p := startCommand(t, exec.Command("lab", command...))
	p.await(0, "ready to accept connections")
	return fmt.Sprintf("postgres://hawser@%s/postgres?sslrootcert=%s/cert.pem", net.JoinHostPort(address.String(), "5432"), dir)
}

// run starts the Access Server, and returns when it answers.
func (n *node) run(t *testing.T) {
	t.Helper()
	n.process = start(t, n.host, hawser("hawser-server"), "run", "--config", n.config)
	n.await(0, "ready ")
}

func (c *cluster) addRelay() {
	c.t.Helper()
	c.relay = &relay{name: "rs1", host: "relay1", config: c.path("rs1/server.yaml")}
	var added struct{ Code string }
	c.manager(&added, "relay", "add", c.relay.name, "--host", "ubiquityrs1.asem.it", "--json")
	must(c.t, nil, c.relay.host, hawser("hawser-server"), "enroll", "--dir", c.path("rs1"), "--host", "ubiquityrs1.asem.it",
		"--access", accessName, "--access", secondName, "--code", added.Code, "--root", c.root)
	c.relay.run(c.t)
}

// addDevice adds a gateway whose agent knows both names.
func (c *cluster) addDevice(name string) *gateway {
	c.t.Helper()
	g := c.rig.addDevice(name)
	file := filepath.Join(g.data, "agent.yaml")
	text, err := os.ReadFile(file)
	if err == nil {
		both := strings.Replace(string(text), "["+accessName+"]", "["+accessName+", "+secondName+"]", 1)
		err = os.WriteFile(file, []byte(both), 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// attached is the name in a line of an agent's that says where it is online.
func (c *cluster) attached(text string) string {
	c.t.Helper()
	_, address, _ := strings.Cut(text, " via ")
	name, _, err := net.SplitHostPort(address)
	if err != nil || c.nodes[name] == nil {
		c.t.Fatalf("%q names no Access Server", text)
	}
	return name
}

// at is the technician with a home that knows one Access Server alone, so that it is certain whom a command asks.
func (c *cluster) at(name string) *rig {
	c.t.Helper()
	only := *c.rig
	only.home = filepath.Join(c.t.TempDir(), "home")
	run(c.t, "cp", "-a", c.home, only.home)
	file := filepath.Join(only.home, "config.json")
	config := map[string]any{}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err == nil {
		config["hosts"] = []string{name}
		text, err = json.Marshal(config)
	}
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return &only
}
