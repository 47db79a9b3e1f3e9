//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// infra is a Server Infrastructure with a technician who has logged in. All is done through the programs.
type infra struct {
	*stage
	ports  []string
	behind []string // ports of the relay with a process of its own
	root   string   // file
	code   string   // with which the technician logs in
	home   string   // the technician's
	server *process
	relay  *process // who carries sessions: the server, unless there is a relay of its own
}

// config is the server's.
func (in *infra) config() string { return in.file("server/server.yaml") }

// newInfra makes one and starts its server, which is Access Server and relay in one process.
func (s *stage) newInfra(ctx context.Context) (*infra, error) {
	in := &infra{stage: s, ports: ports(3), behind: ports(3), home: s.file("home")}
	var made struct {
		RootFile string `json:"root_file"`
		Code     string `json:"admin_code"`
	}
	if err := in.json(ctx, atRelay, &made, "hawser-server", "init", "--dir", s.file("server"), "--host", s.host,
		"--ports", strings.Join(in.ports, ","), "--json"); err != nil {
		return nil, err
	}
	in.root, in.code = made.RootFile, made.Code
	return in, in.serve(ctx)
}

// serve starts the server.
func (in *infra) serve(ctx context.Context) (err error) {
	if in.server, err = in.spawn(atRelay, "hawser-server", "run", "--config", in.config()); err != nil {
		return err
	}
	in.relay = in.server
	_, err = in.server.await(ctx, "ready ")
	return err
}

// json runs a program to its end and decodes its answer.
func (s *stage) json(ctx context.Context, at site, answer any, program string, args ...string) error {
	out, err := s.call(ctx, at, program, args...)
	if err == nil && answer != nil {
		if err = json.Unmarshal([]byte(out), answer); err != nil {
			err = fmt.Errorf("answer of %s: %w", program, err)
		}
	}
	return err
}

// allPorts are those on which gateways and technicians dial what they are told of.
func (in *infra) allPorts(between string) string {
	return strings.Join(append(slices.Clone(in.ports), in.behind...), between)
}

// tech runs a command of the technician's.
func (in *infra) tech(ctx context.Context, answer any, args ...string) error {
	return in.json(ctx, atClient, answer, "hawser", append([]string{"--home", in.home}, args...)...)
}

func (in *infra) login(ctx context.Context) error {
	return in.tech(ctx, nil, "login", net.JoinHostPort(in.host, in.ports[0]), "--private", "--ports", in.allPorts(","), "--code", in.code, "--root", in.root, "--no-passphrase")
}

// addUser makes another technician, and returns his home: one has 4 sessions at a gateway.
func (in *infra) addUser(ctx context.Context, name string) (home string, err error) {
	var added struct{ Code string }
	if err := in.tech(ctx, &added, "user", "add", name, "--json"); err != nil {
		return "", err
	}
	home = in.file(name + ".home")
	_, err = in.call(ctx, atClient, "hawser", "--home", home, "login", net.JoinHostPort(in.host, in.ports[0]), "--private", "--ports", in.allPorts(","), "--code", added.Code, "--root", in.root)
	return home, err
}

// gateway is one device and its agent.
type gateway struct {
	*infra
	name, data string
	program    string // of the agent, and what stands before its arguments
	before     []string
	agent      *process
}

// addGateway makes a device and enrolls it.
func (in *infra) addGateway(ctx context.Context, name string) (*gateway, error) {
	g := &gateway{infra: in, name: name, data: in.file(name), program: "hawser-agent"}
	var added struct{ Code string }
	if err := in.tech(ctx, &added, "device", "add", name, "--json"); err != nil {
		return nil, err
	}
	config, err := in.write(name+".yaml", fmt.Sprintf("access: [%s]\nports: [%s]\nroot: %s\ndata: %s\nallow: [\"127.0.0.0/8:*\"]\n"+
		"private_infrastructure: true\ntime: {set_system_clock: never}\n", in.host, in.allPorts(", "), in.root, g.data))
	if err != nil {
		return nil, err
	}
	g.before = []string{"--config", config}
	_, err = in.call(ctx, atAgent, "hawser-agent", append(g.before, "enroll", "--code", added.Code)...)
	return g, err
}

// run starts the agent, and returns when it is online.
func (g *gateway) run(ctx context.Context) (err error) {
	g.agent, err = g.spawn(atAgent, g.program, append(g.before, "run")...)
	if err == nil {
		_, err = g.agent.await(ctx, "online ")
	}
	return err
}

// connect opens a session with one forward to the backend, and gives the forward's local address.
func (g *gateway) connect(ctx context.Context) (*process, string, error) {
	return g.connectAs(ctx, g.home)
}

// connectAs is connect by the technician of a home.
func (g *gateway) connectAs(ctx context.Context, home string) (*process, string, error) {
	p, err := g.spawn(atClient, "hawser", "--home", home, "connect", g.name, "-L", "0:"+g.backend)
	if err != nil {
		return nil, "", err
	}
	line, err := p.await(ctx, "forward ")
	if err != nil {
		return p, "", err
	}
	words := strings.Fields(line)
	if len(words) < 2 {
		return p, "", fmt.Errorf("line of hawser connect: %q", line)
	}
	return p, words[1], nil
}

// startHawser is the whole path with one session.
func startHawser(ctx context.Context, s *stage) (*tunnel, error) {
	g, err := s.newGateway(ctx)
	if err != nil {
		return nil, err
	}
	return g.tunnel(ctx)
}

// newGateway is an infrastructure with one gateway that is online.
func (s *stage) newGateway(ctx context.Context) (*gateway, error) {
	in, err := s.newInfra(ctx)
	if err == nil {
		err = in.login(ctx)
	}
	if err != nil {
		return nil, err
	}
	g, err := in.addGateway(ctx, "bench")
	if err == nil {
		err = g.run(ctx)
	}
	return g, err
}

// tunnel is a session of the gateway.
func (g *gateway) tunnel(ctx context.Context) (*tunnel, error) {
	c, front, err := g.connect(ctx)
	if err != nil {
		return nil, err
	}
	t := &tunnel{dial: g.dialer(front), roots: []*process{g.server, g.agent, c}, agent: g.agent, relay: g.relay}
	return t, t.works(ctx)
}

// addRelay moves the sessions to a relay with a process of its own, so that what it holds is not mixed with the Access
// Server's.
func (in *infra) addRelay(ctx context.Context) error {
	var added struct{ Code string }
	if err := in.tech(ctx, &added, "relay", "add", "relay2", "--host", in.host, "--ports", strings.Join(in.behind, ","), "--json"); err != nil {
		return err
	}
	at := net.JoinHostPort(in.host, in.ports[0])
	if _, err := in.call(ctx, atRelay, "hawser-server", "enroll", "--dir", in.file("relay2"), "--host", in.host,
		"--ports", strings.Join(in.behind, ","), "--access", at, "--code", added.Code, "--root", in.root); err != nil {
		return err
	}
	p, err := in.spawn(atRelay, "hawser-server", "run", "--config", filepath.Join(in.file("relay2"), "server.yaml"))
	if err != nil {
		return err
	}
	in.relay = p
	_, err = p.await(ctx, "ready ")
	return err
}
