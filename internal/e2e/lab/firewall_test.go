//go:build linux

package lab

import (
	"net"
	"testing"
)

// ports are those on which every server of the model answers.
var ports = []string{"80", "443", "5935"}

// TestOnePortIsOpen leaves one port open and closes the others, both ways a firewall can.
func TestOnePortIsOpen(t *testing.T) {
	listenOn(t, "access1", ports...)
	for _, open := range ports {
		for others, want := range map[string]string{"drop": "timeout", "reject": "refused"} {
			t.Run(open+" open, others "+others, func(t *testing.T) {
				firewall(t, "open", open, "--others", others)
				expectDials(t, func(port string) string {
					if port == open {
						return ""
					}
					return want
				})
			})
		}
	}
}

func TestAllPortsAreOpenWithoutRules(t *testing.T) {
	listenOn(t, "access1", ports...)
	expectDials(t, func(string) string { return "" })
}

// TestClausesHoldTogether: several clauses make one set of rules, and the next set leaves nothing of it.
func TestClausesHoldTogether(t *testing.T) {
	listenOn(t, "access1", ports...)
	firewall(t, "open", "443,5935", "--others", "reject", "drop", "tcp", "5935", "reject", "udp", "53")
	expectDials(t, func(port string) string {
		return map[string]string{"80": "refused", "5935": "timeout"}[port]
	})
	if got := ask(t, "device", "exchange", "udp")[0].Error; got != "refused" {
		t.Errorf("UDP 53: %q, want refused", got)
	}
	firewall(t, "drop", "tcp", "80")
	expectDials(t, func(port string) string {
		return map[string]string{"80": "timeout"}[port]
	})
}

// expectDials dials each port of access1 from the gateway, over both address families.
func expectDials(t *testing.T, want func(port string) string) {
	t.Helper()
	var addresses []string
	for _, addr := range describe(t).ways("access1") {
		for _, port := range ports {
			addresses = append(addresses, net.JoinHostPort(addr.String(), port))
		}
	}
	for i, a := range ask(t, "device", "dial", addresses...) {
		if w := want(ports[i%len(ports)]); a.Error != w {
			t.Errorf("dial %s: %q, want %q", addresses[i], a.Error, w)
		}
	}
}
