package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/board"
)

// Rule is one line of the owner's policy: a network and a range of ports that sessions may reach, as CIDR:PORT,
// CIDR:A-B or CIDR:*. An address is a network of one; IPv6 is in brackets. Names are not allowed: whoever answers the
// site's DNS could move the rule to another machine.
type Rule struct {
	Prefix   netip.Prefix
	From, To uint16
	Terms    *Terms // for whom and when; nil: for everybody, always
}

// ParseRule reads a rule as the owner writes it.
func ParseRule(s string) (Rule, error) {
	bad := func(what string) (Rule, error) {
		return Rule{}, fmt.Errorf("%q: %s; write CIDR:PORT, CIDR:A-B or CIDR:*, IPv6 as [CIDR]:PORT", s, what)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("no port")
	}
	network, ports := s[:i], s[i+1:]
	if inner, ok := strings.CutPrefix(network, "["); ok {
		if network, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("bracket without its pair")
		}
	} else if strings.Contains(network, ":") {
		return bad("IPv6 without brackets")
	}
	prefix, err := parseNetwork(network)
	if err != nil {
		return bad(err.Error())
	}
	from, to, ok := parseRange(ports)
	if !ok {
		return bad("not a port, a range or *")
	}
	return Rule{Prefix: prefix, From: from, To: to}, nil
}

// parseNetwork reads an address, or a network whose address has no bits behind its prefix.
func parseNetwork(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return prefix, errors.New("not an address or network")
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	// Targets are unmapped before they are compared, so such a rule would never match.
	case prefix.Addr().Is4In6():
		return prefix, errors.New("IPv4 written as IPv6")
	// 192.168.1.10/24 may mean the one machine or its whole network; what is open must not hang on a guess.
	case prefix != prefix.Masked():
		return prefix, errors.New("bits set behind the prefix")
	}
	return prefix, nil
}

// parseRange has a word for all ports, "*": an owner who means all must say so. An empty port is an error for the same
// reason.
func parseRange(s string) (from, to uint16, ok bool) {
	if s == "*" {
		return 1, 65535, true
	}
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	lo, err1 := strconv.ParseUint(a, 10, 16)
	hi, err2 := strconv.ParseUint(b, 10, 16)
	return uint16(lo), uint16(hi), err1 == nil && err2 == nil && lo > 0 && lo <= hi
}

// String is the rule as ParseRule reads it, and after it for whom and when.
func (r Rule) String() string {
	network, ports := r.Prefix.String(), strconv.Itoa(int(r.From))
	if r.Prefix.Addr().Is6() {
		network = "[" + network + "]"
	}
	switch {
	case r.From == 1 && r.To == 65535:
		ports = "*"
	case r.From != r.To:
		ports += "-" + strconv.Itoa(int(r.To))
	}
	if r.Terms != nil {
		ports += " " + r.Terms.String()
	}
	return network + ":" + ports
}

func (r Rule) matches(a netip.AddrPort) bool {
	return r.Prefix.Contains(a.Addr()) && a.Port() >= r.From && a.Port() <= r.To
}

// names reports whether a rule means these very addresses: a rule for a network that the gateway is a part of was
// written for the machines in it.
func (r Rule) names(a netip.Addr) bool {
	return r.Prefix.Contains(a) && (r.Prefix.IsSingleIP() || r.Prefix.Addr().IsLoopback() && r.Prefix.Bits() >= 8)
}

// Policy is what the owner lets sessions reach (session §5): the targets of the rules, none for an empty list, and
// without a list the networks of the LAN side, on every port. The gateway's own addresses need a rule that names them. No
// server can widen it. It is a value: a stream is judged by what the owner and the LAN say at its beginning, and keeps
// its connection.
type Policy struct {
	Rules    []Rule    // nil: the LAN counts
	Networks []Network // attached to the gateway; without any the LAN is empty
	// Own are the gateway's addresses, with the interface that has each.
	Own map[netip.Addr]string
	// Blind: the addresses could not be read, and any may be the gateway's.
	Blind bool
	// User is who asks, and Now when: by the time of statements (identity §16.4). Rules for users or hours open nothing
	// without them.
	User string
	Now  time.Time
	// routes lead to parts of these networks by other interfaces than those of the LAN side.
	routes []board.Route
}

// NewPolicy judges everything that is attached. It is pure.
func NewPolicy(rules []Rule, s Surroundings) Policy {
	p := Policy{Rules: rules, Networks: s.networks(), Own: map[netip.Addr]string{}, Blind: len(s.Interfaces) == 0}
	for _, i := range s.Interfaces {
		for _, a := range i.Addrs() {
			p.Own[a.Unmap()] = i.Name
		}
	}
	for _, r := range s.Routes {
		if i, ok := s.find(r.Interface); !r.IsDefault() && (!ok || s.side(i) != "") {
			p.routes = append(p.routes, r)
		}
	}
	return p
}

// asks is the policy for a user at a moment.
func (p Policy) asks(user string, now time.Time) Policy {
	p.User, p.Now = user, now
	return p
}

// Reach is what sessions may reach now, and why, as status and config check show it.
type Reach struct {
	// Rules are those of allow, with users and hours behind them; null: the default counts.
	Rules []string `json:"rules"`
	// Limited are the rules that are for some users or hours alone.
	Limited []LimitedRule `json:"limited,omitempty"`
	// Networks are all that are attached, and whether the default opens them. With rules they only explain.
	Networks []Network `json:"networks"`
}

// LimitedRule says whether a rule with users or hours is open now.
type LimitedRule struct {
	Rule  string    `json:"rule"` // as in Rules
	Users []string  `json:"users,omitempty"`
	Open  bool      `json:"open"`
	Until time.Time `json:"until,omitzero"` // when its present hours end; left out: it is closed, or always open
}

// Reach describes the policy. Loopback is left out: it is never opened by a network.
func (p Policy) Reach() Reach {
	r := Reach{Networks: []Network{}}
	if p.Rules != nil {
		r.Rules = append([]string{}, texts(p.Rules)...)
	}
	for _, rule := range p.Rules {
		if rule.Terms != nil {
			open, until := rule.Terms.at(p.Now)
			r.Limited = append(r.Limited, LimitedRule{rule.String(), rule.Terms.Users, open, until})
		}
	}
	for _, n := range p.Networks {
		if !n.Network.Addr().IsLoopback() {
			r.Networks = append(r.Networks, n)
		}
	}
	return r
}

// LAN lists the networks on the LAN side, sorted.
func (p Policy) LAN() (lan []netip.Prefix) {
	for _, n := range p.Networks {
		if n.LAN {
			lan = append(lan, n.Network)
		}
	}
	return slices.Compact(lan)
}

// Allows reports whether sessions may reach target.
func (p Policy) Allows(target netip.AddrPort) bool {
	ok, _ := p.Judge(target)
	return ok
}

// Judge reports whether sessions may reach target, and why, for the owner. It is pure and asked for each stream. Addresses
// with a zone are refused: a zone names an interface of the gateway, and would choose a network that no rule names.
func (p Policy) Judge(target netip.AddrPort) (ok bool, why string) {
	ok, why, _ = p.judge(target)
	return ok, why
}

// judge is Judge, and until when what is allowed is: zero for always. A rule that is for others, or for other hours, is named
// where no other one is left.
func (p Policy) judge(target netip.AddrPort) (ok bool, why string, until time.Time) {
	if a := target.Addr(); !target.IsValid() || target.Port() == 0 || a.Zone() != "" {
		return false, "it is no address and port", until
	}
	target = netip.AddrPortFrom(target.Addr().Unmap(), target.Port()) // ::ffff:127.0.0.1 is 127.0.0.1
	if p.Rules == nil {
		ok, why = p.byDefault(target.Addr())
		return ok, why, until
	}
	own, others := p.gateway(target.Addr()), ""
	for _, r := range p.Rules {
		if !r.matches(target) || own != "" && !r.names(target.Addr()) {
			continue
		}
		open, to := r.Terms.at(p.Now)
		switch {
		case !r.Terms.names(p.User):
			others = cmp.Or(others, fmt.Sprintf("the rule %s is not for this user", r))
		case !open:
			others = fmt.Sprintf("the rule %s is closed now", r)
		case to.IsZero():
			return true, fmt.Sprintf("the rule %s allows it", r), to
		case to.After(until): // the last one to close counts
			ok, why, until = true, fmt.Sprintf("the rule %s allows it until %s", r, to.Format(time.RFC3339)), to
		}
	}
	switch {
	case ok:
		return ok, why, until
	case others != "":
		return false, others, until
	case own != "":
		return false, own + ", and no rule names this address", until
	}
	return false, "no rule allows it", until
}

// Reached is Judge for a target of which a dial has shown that the gateway itself answers there, whatever was known
// before: the address became its own since, or a route makes it so, as for a whole network "ip route add local" does.
func (p Policy) Reached(itself netip.AddrPort) (ok bool, why string) {
	p.Own = maps.Clone(p.Own)
	if p.Own == nil {
		p.Own = map[netip.Addr]string{}
	}
	p.Own[itself.Addr().Unmap()] = "a local route"
	return p.Judge(itself)
}

// gateway says that an address leads to the gateway itself; empty: it does not.
func (p Policy) gateway(a netip.Addr) string {
	name, own := p.Own[a]
	switch {
	case own:
		return "the gateway itself has it, on " + name
	case a.IsLoopback(), a.IsUnspecified():
		return "it is the gateway itself"
	case p.Blind:
		return "the gateway's own addresses cannot be read"
	}
	return ""
}

// special reports whether an address needs a rule even if it is of a LAN network: nobody meant to open these by plugging in
// a cable.
func special(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
}

// byDefault judges without rules. The narrowest network with the address decides, as it does for the kernel: that of an
// uplink may be a part of that of the LAN. Of two that are alike nobody can say by which one a packet goes.
func (p Policy) byDefault(a netip.Addr) (ok bool, why string) {
	if own := p.gateway(a); own != "" {
		return false, own
	}
	if special(a) {
		return false, "it is loopback, link-local, multicast or no address"
	}
	why, bits := "it is in no network on the LAN side", -1
	for _, n := range p.Networks {
		if at := n.Network.Bits(); n.Network.Contains(a) && (at > bits || at == bits && !n.LAN) {
			bits, ok = at, n.LAN
			why = fmt.Sprintf("%s on %s: %s", n.Network, n.Interface, n.Why)
			if ok && edge(n.Network, a) {
				ok, why = false, fmt.Sprintf("it is the network or broadcast address of %s", n.Network)
			}
		}
	}
	for _, r := range p.routes {
		if r.To.Contains(a) && r.To.Bits() >= bits {
			bits, ok, why = r.To.Bits(), false, fmt.Sprintf("a route to %s leads by %s, which is not on the LAN side", r.To, r.Interface)
		}
	}
	return ok, why
}

// edge reports whether an address is a network's first one or, of IPv4, its last. In IPv6 the first one is a router's: the
// gateway's, if it forwards. A network of two addresses has neither (RFC 3021).
func edge(n netip.Prefix, a netip.Addr) bool {
	if n.Bits() >= a.BitLen()-1 {
		return false
	}
	if a == n.Masked().Addr() {
		return true
	}
	next := a.Next()
	return a.Is4() && !n.Contains(next)
}
