package identity

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	maxFolderBytes = 256 // identity §11.1
	maxFolderParts = 8
	everything     = "*"
)

// Scope is where a user's role holds (identity §11.2, §11.3). Both lists are strictly ascending by bytes, never nil; an
// empty one is nothing, "*" alone is all.
type Scope struct {
	Devices []string `json:"devices"` // UIDs and folders
	Targets []string `json:"targets"` // see [ParseTarget]
}

// CheckFolder tells whether s names a folder: 1 to 8 display names joined by "/", 256 bytes at most. What looks like a UID
// is none, because both stand in one list. The fault is [FaultBadName].
func CheckFolder(s string) error {
	parts := strings.Split(s, "/")
	if len(s) > maxFolderBytes || len(parts) > maxFolderParts {
		return refuse(FaultBadName, "check folder: more than 8 parts or 256 bytes")
	}
	if parseHex(new(UID)[:], s) == nil {
		return refuse(FaultBadName, "check folder: it looks like a UID")
	}
	for _, part := range parts {
		if err := CheckDisplayName(part); err != nil {
			return err
		}
	}
	return nil
}

func (s Scope) check() error {
	device := func(d string) error {
		if _, err := ParseUID(d); err == nil {
			return nil
		}
		return CheckFolder(d)
	}
	target := func(t string) error {
		_, err := ParseTarget(t)
		return err
	}
	return firstError(checkItems(s.Devices, device), checkItems(s.Targets, target))
}

func checkItems(items []string, check func(string) error) error {
	if items == nil || len(items) > maxScopeItems {
		return refuse(FaultMalformed, "a scope has two lists of at most 64 items")
	}
	if slices.Equal(items, []string{everything}) {
		return nil
	}
	for i, item := range items {
		if i > 0 && items[i-1] >= item {
			return refuse(FaultMalformed, "a scope is not in ascending order")
		}
		if err := check(item); err != nil {
			return err
		}
	}
	return nil
}

// Sees tells whether the user's role holds for a device in this folder ("" for none).
func (s UserStatement) Sees(uid UID, folder string) bool {
	if s.Scope == nil {
		return s.Role == RoleAdmin
	}
	return slices.ContainsFunc(s.Scope.Devices, func(d string) bool {
		return d == everything || d == uid.String() || d == folder || strings.HasPrefix(folder, d+"/")
	})
}

// Reaches tells whether the user may open a stream to this target, at a device that he sees. A viewer opens nothing.
func (s UserStatement) Reaches(t Reach) bool {
	switch {
	case s.Role == RoleAdmin:
		return s.Scope == nil
	case s.Role != RoleOperator || s.Scope == nil:
		return false
	}
	return slices.ContainsFunc(s.Scope.Targets, func(text string) bool {
		target, err := ParseTarget(text)
		return text == everything || err == nil && target.Has(t)
	})
}

// The services that a target can be of (session §4). A rule without a protocol is TCP.
const (
	serviceTCP       = "tcp"
	serviceUDP       = "udp"
	serviceICMP      = "icmp"
	serviceSerial    = "serial"
	serviceScan      = "scan"
	serviceBroadcast = "broadcast"
)

// Reach is what a stream wants to reach: a service, and the address (tcp, udp; of icmp the port does not count) or the name
// (serial) that goes with it.
type Reach struct {
	Service string
	Addr    netip.AddrPort
	Name    string
}

// Target is one target of a scope (identity §11.3): a rule of session §5, or a service by its name.
type Target struct {
	Service  string
	Prefix   netip.Prefix // tcp, udp, icmp
	From, To uint16       // tcp, udp: ports, both included
	Name     string       // serial: a label
}

// ParseTarget reads the one spelling of a target. The fault is [FaultBadName].
func ParseTarget(s string) (Target, error) {
	t := Target{Service: serviceTCP}
	rest := s
	if service, after, ok := strings.Cut(s, "/"); ok && slices.Contains([]string{serviceUDP, serviceICMP, serviceSerial}, service) {
		t.Service, rest = service, after
	}
	ok := true
	switch {
	case s == serviceScan || s == serviceBroadcast:
		t.Service = s
	case t.Service == serviceSerial:
		t.Name, ok = rest, CheckLabel(rest) == nil
	case t.Service == serviceICMP:
		t.Prefix, ok = parseNetwork(rest)
	default:
		i := strings.LastIndexByte(rest, ':')
		if ok = i >= 0; ok {
			t.Prefix, ok = parseNetwork(rest[:i])
			t.From, t.To = parsePorts(rest[i+1:])
		}
	}
	// What is not in its one spelling comes back as another text: a zero before a port, a range of one port.
	if !ok || t.String() != s {
		return Target{}, refuse(FaultBadName, "parse target: not a rule, serial/NAME, scan or broadcast in its one spelling")
	}
	return t, nil
}

// String is the target as [ParseTarget] reads it.
func (t Target) String() string {
	switch t.Service {
	case serviceTCP:
		return networkText(t.Prefix) + ":" + portsText(t.From, t.To)
	case serviceUDP:
		return serviceUDP + "/" + networkText(t.Prefix) + ":" + portsText(t.From, t.To)
	case serviceICMP:
		return serviceICMP + "/" + networkText(t.Prefix)
	case serviceSerial:
		return serviceSerial + "/" + t.Name
	}
	return t.Service
}

// Has tells whether the target covers what a stream wants to reach. An address with a zone is in no rule: the zone names an
// interface of the gateway.
func (t Target) Has(r Reach) bool {
	a := r.Addr.Addr()
	switch t.Service {
	case serviceTCP, serviceUDP:
		p := r.Addr.Port()
		return t.Service == r.Service && a.Zone() == "" && t.Prefix.Contains(a.Unmap()) && p >= t.From && p <= t.To && p > 0
	case serviceICMP:
		return t.Service == r.Service && a.Zone() == "" && t.Prefix.Contains(a.Unmap())
	case serviceSerial:
		return t.Service == r.Service && t.Name == r.Name
	}
	return t.Service == r.Service
}

// parseNetwork reads an address or CIDR, IPv6 in brackets. ok is false for bits behind the prefix, and for IPv4 as IPv6.
func parseNetwork(s string) (p netip.Prefix, ok bool) {
	inner, bracket := strings.CutPrefix(s, "[")
	if bracket {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return p, false
		}
	}
	p, err := netip.ParsePrefix(inner)
	if err != nil {
		a, err := netip.ParseAddr(inner)
		if err != nil || a.Zone() != "" {
			return p, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p, p == p.Masked() && !p.Addr().Is4In6() && bracket == p.Addr().Is6()
}

// parsePorts returns zeros, which no spelling has, for what is no port, range or "*".
func parsePorts(s string) (from, to uint16) {
	if s == everything {
		return 1, 65535
	}
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	lo, err1 := strconv.ParseUint(a, 10, 16)
	hi, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || lo > hi {
		return 0, 0
	}
	return uint16(lo), uint16(hi)
}

func networkText(p netip.Prefix) string {
	text := p.String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	if p.Addr().Is6() {
		return "[" + text + "]"
	}
	return text
}

func portsText(from, to uint16) string {
	switch {
	case from == 0: // no port: nothing is spelled so
		return "none"
	case from == 1 && to == 65535:
		return everything
	case from == to:
		return strconv.Itoa(int(from))
	}
	return strconv.Itoa(int(from)) + "-" + strconv.Itoa(int(to))
}
