package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
)

// The site's firewall rejects 443 and 80. The dialer finds the port that is open, and knows that the server is ours.
func ExampleDialer_Dial() {
	pki := identitytest.New(time.Now())
	client, stop := site(pki, 5935)
	defer stop()

	d := transport.Dialer{DialContext: client.DialContext}
	conn, err := d.Dial(context.Background(), transport.Target{
		Hosts: []string{"192.0.2.1"}, Ports: transport.DefaultPorts(), ALPN: transport.ALPNAccess,
		Name: identity.Name{Kind: identity.KindAccess}, Roots: pki.Roots})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.Peer.Name, "at", conn.Candidate.Addr)
	// Output:
	// hawser:///access/a1 at 192.0.2.1:5935
}

// No port is open. The error says what became of each of them, and ReasonOf says in one word why there is no way out.
func ExampleDialError() {
	pki := identitytest.New(time.Now())
	client, stop := site(pki)
	defer stop()

	d := transport.Dialer{DialContext: client.DialContext}
	_, err := d.Dial(context.Background(), transport.Target{
		Hosts: []string{"192.0.2.1"}, Ports: transport.DefaultPorts(), ALPN: transport.ALPNAccess,
		Name: identity.Name{Kind: identity.KindAccess}, Roots: pki.Roots})
	fmt.Println(transport.ReasonOf(err))
	if failed, ok := errors.AsType[*transport.DialError](err); ok {
		for _, a := range failed.Attempts {
			fmt.Println(a.Candidate.Addr, a.Reason)
		}
	}
	// Unordered output:
	// refused
	// 192.0.2.1:443 refused
	// 192.0.2.1:5935 refused
	// 192.0.2.1:80 refused
}

// site is a network in memory: a client, and an Access Server at 192.0.2.1 that answers on the open ports.
func site(pki *identitytest.PKI, open ...uint16) (client *memnet.Host, stop func()) {
	n := memnet.New()
	server := n.Host(netip.MustParseAddr("192.0.2.1"))
	config := identitytest.ServerConfig(pki.Leaf(identity.AccessName("a1"), -time.Hour, time.Hour), transport.ALPNAccess)
	var ports []*memnet.Service
	for _, port := range open {
		s, err := server.Serve(port, func(c net.Conn) { io.Copy(io.Discard, tls.Server(c, config)) })
		if err != nil {
			panic(err)
		}
		ports = append(ports, s)
	}
	return n.Host(netip.MustParseAddr("198.51.100.7")), func() {
		for _, p := range ports {
			p.Stop()
		}
	}
}
