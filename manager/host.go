package manager

import (
	"slices"
	"strings"

	"hawser/transport"
)

// What a server may name at most: each host and port is one more attempt of the search (wire §8).
const (
	maxHosts = 16
	maxPorts = 16
)

// parseServer reads the server that a user names: HOST, HOST:PORT or https://HOST[:PORT]. It is what transport.Target
// takes as a host.
func parseServer(s string) (string, error) {
	host := strings.TrimSuffix(strings.TrimPrefix(s, "https://"), "/")
	// A bracketed literal without a port is how a URL spells an IPv6 address.
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") && strings.Contains(inner, ":") {
		host = strings.TrimSuffix(inner, "]")
	}
	if _, _, err := transport.SplitHost(host); err != nil || len(host) > 300 {
		return "", usage("server %q: want HOST, HOST:PORT or https://HOST[:PORT]", cut(s, 100))
	}
	return host, nil
}

// mergeHosts puts the host that worked before those that the server names. ok is false when the server names what no host
// or port can be.
func mergeHosts(used string, named []string, ports []transport.Port) (hosts []string, _ []transport.Port, ok bool) {
	if len(named) > maxHosts || len(ports) > maxPorts || slices.Contains(ports, 0) {
		return nil, nil, false
	}
	hosts = []string{used}
	for _, h := range named {
		if _, _, err := transport.SplitHost(h); err != nil {
			return nil, nil, false
		}
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	if len(ports) == 0 {
		ports = transport.DefaultPorts()
	}
	return hosts, ports, true
}
