package server

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strings"

	"hawser/transport"
)

// Hosts, ports, addresses and paths of the configuration.

func checkHosts(key string, hosts []string, port bool) ([]string, error) {
	if len(hosts) == 0 || len(hosts) > maxList {
		return nil, fmt.Errorf("%s: 1 to %d hosts are needed", key, maxList)
	}
	for _, h := range hosts {
		_, p, err := transport.SplitHost(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if p != 0 && !port {
			return nil, fmt.Errorf("%s: host %q: ports have a key of their own", key, h)
		}
	}
	return hosts, nil
}

func checkPorts(key string, ports []transport.Port) ([]transport.Port, error) {
	if len(ports) == 0 {
		return transport.DefaultPorts(), nil
	}
	seen := map[transport.Port]bool{}
	for _, p := range ports {
		if p == 0 || seen[p] || len(ports) > maxList {
			return nil, fmt.Errorf("%s: %d is zero, or there twice, or one of too many", key, p)
		}
		seen[p] = true
	}
	return ports, nil
}

// ParsePorts makes ports of numbers as a user gives them. The error is a
// *ConfigError.
func ParsePorts(numbers []uint) (ports []transport.Port, err error) {
	for _, n := range numbers {
		if n == 0 || n > math.MaxUint16 {
			return nil, &ConfigError{Text: fmt.Sprintf("ports: %d is not 1 to 65535", n)}
		}
		ports = append(ports, transport.Port(n))
	}
	return ports, nil
}

func checkListen(listen []string) (addrs []netip.Addr, err error) {
	if len(listen) > maxList {
		return nil, fmt.Errorf("listen: more than %d addresses", maxList)
	}
	for _, s := range listen {
		a, err := netip.ParseAddr(strings.Trim(s, "[]"))
		if err != nil {
			return nil, fmt.Errorf("listen: %q is not an IP address", s)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
