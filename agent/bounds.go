package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"hawser/transport"
)

// maxOutOfBounds is how many addresses that are not dialled the log and status name: who tells them has any number.
const maxOutOfBounds = 16

// Bounds say where this gateway lets itself be led by what it is told (wire §8.3), given what sessions may reach now.
func (c Config) Bounds(p Policy) transport.Bounds {
	return transport.Bounds{Hosts: c.Access, Ports: c.Ports, Private: c.Private, LAN: p.LAN(), Allowed: p.named}
}

// Servers is where servers are dialled, as config check shows it.
type Servers struct {
	Ports   []transport.Port `json:"ports"`
	Private bool             `json:"private"`
}

// Servers says on which ports, and whether at private addresses.
func (c Config) Servers() Servers {
	return Servers{c.Bounds(Policy{}).AllPorts(), c.Private}
}

// String says it for people.
func (s Servers) String() string {
	ports := strings.Trim(fmt.Sprint(s.Ports), "[]")
	if s.Private {
		return "on ports " + ports + ", at private addresses too: private_infrastructure is set"
	}
	return "on ports " + ports + ", at no private address but those of access: private_infrastructure is not set"
}

// Dials reports whether an address is dialled when the agent is told that a server is there, and why, for the owner.
func (c Config) Dials(p Policy, a netip.AddrPort) (ok bool, why string) {
	if why = c.Bounds(p).Refuses(transport.Candidate{Addr: a}); why == "" {
		return true, "the agent dials a server that it is told is there"
	}
	return false, why
}

// named reports whether a rule names an address and port as a machine's. One for all addresses there are does not: it would
// name every server, too.
func (p Policy) named(a netip.AddrPort) bool {
	for _, r := range p.Rules {
		if r.Prefix.Bits() > 0 && r.matches(a) {
			return true
		}
	}
	return false
}

func (a *Agent) bounds() transport.Bounds { return a.config.Bounds(a.policy()) }

// judged notes what is not dialled, once for each host, address and port, until it is: a relay inside the LAN is the operator's to
// find, and without a word it would read like a firewall.
func (a *Agent) judged(t transport.Attempt) {
	what := "dial " + t.Host + " at " + t.Where()
	if t.Reason != transport.BadAddress {
		a.status.trouble(what, nil)
		return
	}
	_, why, _ := strings.Cut(t.Detail, ": ")
	if a.status.outOfBounds() < maxOutOfBounds && a.status.trouble(what, errors.New(string(t.Reason)+": "+why)) {
		a.log.Warn("address not dialled", "host", t.Host, "addr", t.Where(), "reason", t.Reason, "err", why)
	}
}

// outOfBounds is how many addresses are noted as not dialled.
func (b *statusBoard) outOfBounds() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for what := range b.troubles {
		if strings.HasPrefix(what, "dial ") {
			n++
		}
	}
	return n
}
