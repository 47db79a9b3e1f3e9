//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/internal/durable"
)

// accessName is the name under which clients look for the infrastructure of a rig. It leads to access1.
const accessName = "ccas1.keb.de"

// rig is a Server Infrastructure on access1, with a technician who has logged in.
type rig struct {
	t      *testing.T
	dir    string
	root   string // file
	home   string // the technician's
	server *process
}

// newRig makes one; the configuration that init writes is changed by replacing old by new text.
func newRig(t *testing.T, oldnew ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.home = r.path("home")
	var made struct {
		RootFile string `json:"root_file"`
		Code     string `json:"admin_code"`
	}
	must(t, &made, "access1", hawser("hawser-server"), "init", "--dir", r.path("server"), "--host", accessName, "--json")
	r.root = made.RootFile
	r.configure(oldnew)
	r.server = start(t, "access1", hawser("hawser-server"), "run", "--config", r.path("server/server.yaml"))
	r.server.await(0, "ready ")
	r.manager(nil, "login", accessName, "--code", made.Code, "--root", r.root, "--no-passphrase")
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) configure(oldnew []string) {
	r.t.Helper()
	file := r.path("server/server.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(string(text), oldnew[i]) {
			r.t.Fatalf("%s has no %q: %s", file, oldnew[i], text)
		}
	}
	if err := os.WriteFile(file, []byte(strings.NewReplacer(oldnew...).Replace(string(text))), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// manager runs a command of the technician's.
func (r *rig) manager(v any, args ...string) {
	r.t.Helper()
	must(r.t, v, "tech", hawser("hawser"), append([]string{"--home", r.home}, args...)...)
}

// gateway is the agent on the gateway, with the default policy: the machine LAN may be reached.
type gateway struct {
	*rig
	name, uid, code, data string
}

func (r *rig) addDevice(name string) *gateway {
	r.t.Helper()
	g := &gateway{rig: r, name: name, data: r.path(name)}
	var added struct{ UID, Code string }
	r.manager(&added, "device", "add", name, "--json")
	g.uid, g.code = added.UID, added.Code
	config := fmt.Sprintf("access: [%s]\nroot: %s\ntime: {servers: [time.example], set_system_clock: never}\nlog: debug\n", accessName, r.root)
	err := os.Mkdir(g.data, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(g.data, "agent.yaml"), []byte(config), 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

// set gives a key of the gateway's configuration another value.
func (g *gateway) set(key, value string) {
	g.t.Helper()
	file := filepath.Join(g.data, "agent.yaml")
	var kept []string
	for line := range strings.Lines(string(contents(g.t, file))) {
		if !strings.HasPrefix(line, key+":") {
			kept = append(kept, line)
		}
	}
	kept = append(kept, key+": "+value+"\n")
	if err := os.WriteFile(file, []byte(strings.Join(kept, "")), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// reach makes the gateway look for its Access Server under another name.
func (g *gateway) reach(name string) {
	g.t.Helper()
	g.set("access", `["`+name+`"]`)
}

// agent runs a command of the agent's to its end.
func (g *gateway) agent(args ...string) result {
	g.t.Helper()
	return finish(g.t, "device", hawser("hawser-agent"), append([]string{"--data", g.data}, args...)...)
}

func (g *gateway) enroll() {
	g.t.Helper()
	if r := g.agent("enroll", "--code", g.code); r.code != 0 {
		g.t.Fatalf("enroll: %s", r.stderr)
	}
}

// forget removes what the agent remembers of former times: it has its identity, and its join-state, without which its server
// would take it for a copy (wire §4.11).
func (g *gateway) forget() {
	g.t.Helper()
	slots, err := durable.OpenSlots(g.data, "state")
	if err != nil {
		g.t.Fatal(err)
	}
	b, err := slots.Load()
	if err != nil || b == nil {
		return // it remembers nothing
	}
	var known map[string]json.RawMessage
	if err := json.Unmarshal(b, &known); err != nil {
		g.t.Fatal(err)
	}
	maps.DeleteFunc(known, func(name string, _ json.RawMessage) bool { return name != "join" })
	if b, err = json.Marshal(known); err != nil {
		g.t.Fatal(err)
	}
	for range 2 { // both slots
		if err := slots.Save(b); err != nil {
			g.t.Fatal(err)
		}
	}
}

// run starts the agent and returns when it is online, with how long that took.
func (g *gateway) run(t *testing.T) (*process, time.Duration) {
	t.Helper()
	p := start(t, "device", hawser("hawser-agent"), "--data", g.data, "run")
	return p, p.await(0, "online "+g.uid).at.Sub(p.began)
}

// online asks the Access Server.
func (g *gateway) online() bool {
	g.t.Helper()
	var device struct{ Online bool }
	g.manager(&device, "device", "show", g.name, "--json")
	return device.Online
}

// awaitOffline returns when the Access Server took the gateway for offline, and wants it to say so from then on.
func (g *gateway) awaitOffline(mark int) time.Time {
	g.t.Helper()
	l := g.server.await(mark, "msg=offline uid="+g.uid)
	if g.online() {
		g.t.Error("the Access Server still tells the technician that the gateway is online")
	}
	return l.at
}

// connect opens a session with these forwards (LOCALPORT:TARGET), and returns the addresses on tech at which a tool
// reaches the targets.
func (g *gateway) connect(t *testing.T, forwards ...string) (*process, []string) {
	t.Helper()
	args := []string{"--home", g.home, "connect", g.name}
	for _, f := range forwards {
		args = append(args, "-L", f)
	}
	p := start(t, "tech", hawser("hawser"), args...)
	var addrs []string
	for _, f := range forwards {
		_, target, _ := strings.Cut(f, ":")
		addrs = append(addrs, strings.Fields(p.await(0, " -> "+target).text)[1])
	}
	p.await(0, "session up") // on the other output, which may be read later
	return p, addrs
}

// plc is the address of the machine behind the gateway.
func plc(t *testing.T) string {
	t.Helper()
	return describe(t).Hosts["plc1"][0].String()
}
