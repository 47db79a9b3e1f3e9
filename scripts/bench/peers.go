//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// unit is the system against which all others are measured: the tunnel that most people would take instead.
const unit = "frp"

// systems are in the order of the table, which is that within a round.
func systems() []system {
	return []system{
		{"hawser", "end-to-end TLS, many streams in one session", startHawser},
		{unit, "TLS to the server only, yamux: the default", startFRP("")},
		{"frp no mux", "TLS to the server only, a connection for each stream", startFRP("transport.tcpMux = false\n")},
		{"chisel", "SSH inside TLS", startChisel},
		{"ssh -R", "OpenSSH, aes128-gcm", startSSH},
		{"floor e2e", "our model: end-to-end TLS, relay that splices, a pair of connections for each stream", startFloor},
		{"floor proxy", "our model: one process that splices, no encryption", startProxy},
	}
}

// startFRP is frps as the server in the middle and frpc as the agent. The technician has no program: whoever reaches
// the server's port reaches the backend.
func startFRP(option string) func(context.Context, *stage) (*tunnel, error) {
	return func(ctx context.Context, s *stage) (*tunnel, error) {
		p := ports(2)
		_, target, err := net.SplitHostPort(s.backend)
		if err != nil {
			return nil, err
		}
		const common = "auth.token = \"t\"\nlog.level = \"warn\"\n"
		server, err := s.write("frps.toml", fmt.Sprintf("bindAddr = \"0.0.0.0\"\nbindPort = %s\n%s%s", p[0], common, option))
		if err != nil {
			return nil, err
		}
		client, err := s.write("frpc.toml", fmt.Sprintf("serverAddr = %q\nserverPort = %s\n%s%s\n[[proxies]]\nname = \"p\"\n"+
			"type = \"tcp\"\nlocalIP = \"127.0.0.1\"\nlocalPort = %s\nremotePort = %s\n", s.host, p[0], common, option, target, p[1]))
		if err != nil {
			return nil, err
		}
		return s.pair(ctx, p, "frps", []string{"-c", server}, "frpc", []string{"-c", client})
	}
}

// startChisel encrypts twice, as chisel does when it is given a certificate: without one nothing would show the server.
func startChisel(ctx context.Context, s *stage) (*tunnel, error) {
	p := ports(2)
	certs := filepath.Join(s.bench.dir, "certs")
	return s.pair(ctx, p,
		"chisel", []string{"server", "--host", "0.0.0.0", "--port", p[0], "--reverse",
			"--tls-key", certs + "/relay.key", "--tls-cert", certs + "/relay.pem"},
		"chisel", []string{"client", "--tls-ca", certs + "/ca.pem", "--sni", certName, "https://" + net.JoinHostPort(s.host, p[0]),
			"R:0.0.0.0:" + p[1] + ":" + s.backend})
}

// startSSH lets an agent offer the backend at the server's port.
func startSSH(ctx context.Context, s *stage) (*tunnel, error) {
	for _, key := range []string{"host", "user"} {
		if _, err := s.call(ctx, atRelay, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.file(key)); err != nil {
			return nil, err
		}
	}
	p := ports(2)
	config, err := s.write("sshd_config", fmt.Sprintf("Port %s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\n"+
		"StrictModes no\nPasswordAuthentication no\nGatewayPorts yes\n", p[0], s.file("host"), s.file("user.pub")))
	if err != nil {
		return nil, err
	}
	sshd, err := s.find("sshd") // it starts itself anew for each connection, and so must know its path
	if err != nil {
		return nil, err
	}
	who, server, args := os.Getenv("USER"), sshd, []string{"-D", "-e", "-f", config}
	if os.Getuid() == 0 {
		// As root it wants a user of its own, whom only a package that is installed makes: it must not think that it is
		// root.
		who, server, args = "nobody", "unshare", append([]string{"--user", "--map-user=65534", "--map-group=65534", sshd}, args...)
	}
	return s.pair(ctx, p, server, args,
		"ssh", []string{"-N", "-F", "none", "-i", s.file("user"), "-p", p[0], "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-c", "aes128-gcm@openssh.com",
			"-R", "0.0.0.0:" + p[1] + ":" + s.backend, who + "@" + s.host})
}

// pair starts a server and, when it listens, the agent, of a tunnel whose technician dials the server's second port.
func (s *stage) pair(ctx context.Context, p []string, server string, serverArgs []string, agent string, agentArgs []string) (*tunnel, error) {
	middle, err := s.spawn(atRelay, server, serverArgs...)
	if err != nil {
		return nil, err
	}
	if err := s.awaitListen(ctx, atAgent, net.JoinHostPort(s.host, p[0])); err != nil {
		return nil, err
	}
	out, err := s.spawn(atAgent, agent, agentArgs...)
	if err != nil {
		return nil, err
	}
	t := &tunnel{dial: s.dialer(net.JoinHostPort(s.host, p[1])), roots: []*process{middle, out}, agent: out, relay: middle}
	return t, t.works(ctx)
}

// startFloor is what a program of Hawser's design costs at least.
func startFloor(ctx context.Context, s *stage) (*tunnel, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := ports(2)
	certs := filepath.Join(s.bench.dir, "certs")
	at, front := net.JoinHostPort(s.host, p[0]), net.JoinHostPort("127.0.0.1", p[1])
	relay, err := s.spawn(atRelay, self, "floor", "relay", net.JoinHostPort("0.0.0.0", p[0]))
	if err == nil {
		_, err = relay.await(ctx, "ready")
	}
	if err != nil {
		return nil, err
	}
	agent, err := s.spawn(atAgent, self, "floor", "agent", at, s.backend, certs)
	if err == nil {
		_, err = agent.await(ctx, "ready")
	}
	if err != nil {
		return nil, err
	}
	client, err := s.spawn(atClient, self, "floor", "client", at, front, certs)
	if err == nil {
		_, err = client.await(ctx, "ready")
	}
	if err != nil {
		return nil, err
	}
	t := &tunnel{dial: s.dialer(front), roots: []*process{relay, agent, client}, agent: agent, relay: relay}
	return t, t.works(ctx)
}

// startProxy is what any relay costs at least. It dials the backend, where others dial out: there is no agent.
func startProxy(ctx context.Context, s *stage) (*tunnel, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := ports(1)
	target := s.backend
	if s.nets != nil {
		_, port, err := net.SplitHostPort(target)
		if err != nil {
			return nil, err
		}
		target = net.JoinHostPort(s.nets.agent, port)
	}
	proxy, err := s.spawn(atRelay, self, "floor", "proxy", net.JoinHostPort("0.0.0.0", p[0]), target)
	if err == nil {
		_, err = proxy.await(ctx, "ready")
	}
	if err != nil {
		return nil, err
	}
	t := &tunnel{dial: s.dialer(net.JoinHostPort(s.host, p[0])), roots: []*process{proxy}, relay: proxy}
	return t, t.works(ctx)
}
