package manager

import (
	"net/netip"
	"strconv"
	"strings"
)

// Forward is one -L: where tools connect on this computer, and where that leads from the gateway. The form is that of
// ssh -L, which technicians know, except for names (see ParseForward).
type Forward struct {
	Local  netip.AddrPort // port 0: a free one
	Target netip.AddrPort // as seen from the gateway
}

// String is the one spelling of a forward; ParseForward reads it.
func (f Forward) String() string { return f.Local.String() + ":" + f.Target.String() }

// ParseForward reads [BIND:]PORT:HOST:PORT. BIND and HOST are IP literals, IPv6 in brackets; without BIND it is
// 127.0.0.1. A name is refused as HOST: it would be unclear whose DNS it means. The error is a *answer.UsageError.
func ParseForward(s string) (Forward, error) {
	fields, ok := splitFields(s)
	if ok && len(fields) == 3 {
		fields = append([]string{"127.0.0.1"}, fields...)
	}
	if !ok || len(fields) != 4 {
		return Forward{}, usage("forward %q: want [BIND:]PORT:HOST:PORT, IPv6 addresses in brackets", cut(s, 100))
	}
	bind, ok1 := parseLiteral(fields[0])
	port, ok2 := parsePort(fields[1])
	host, ok3 := parseLiteral(fields[2])
	to, ok4 := parsePort(fields[3])
	switch {
	case !ok1:
		return Forward{}, usage("forward %q: BIND is not an IP address", cut(s, 100))
	case !ok2 || !ok4:
		return Forward{}, usage("forward %q: PORT is not a number up to 65535", cut(s, 100))
	// 0.0.0.0 as a target would be the gateway itself on Linux, which nobody means who types it.
	case !ok3 || host.IsUnspecified():
		return Forward{}, usage("forward %q: HOST must be an IP address as seen from the gateway", cut(s, 100))
	case to == 0:
		return Forward{}, usage("forward %q: the port behind HOST cannot be 0", cut(s, 100))
	}
	return Forward{netip.AddrPortFrom(bind, port), netip.AddrPortFrom(host, to)}, nil
}

// splitFields splits at the colons outside brackets. It stops at the fifth field: no forward has one. Not
// net.SplitHostPort: it takes two fields, and a forward has three or four.
func splitFields(s string) (fields []string, ok bool) {
	for len(fields) < 5 {
		end := strings.IndexByte(s, ':')
		if strings.HasPrefix(s, "[") {
			bracket := strings.IndexByte(s, ']')
			if bracket < 0 {
				return nil, false
			}
			end = bracket + 1
			if end == len(s) {
				end = -1
			} else if s[end] != ':' {
				return nil, false
			}
		}
		if end < 0 {
			return append(fields, s), true
		}
		fields = append(fields, s[:end])
		s = s[end+1:]
	}
	return nil, false
}

// parseLiteral reads an IPv4 address, or an IPv6 address in brackets. Zones are refused: they name an interface of one
// computer, and a forward concerns two.
func parseLiteral(s string) (netip.Addr, bool) {
	inner := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	a, err := netip.ParseAddr(inner)
	if err != nil || a.Zone() != "" || a.Is6() != (len(inner) != len(s)) {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// parsePort reads a decimal port, 0 included.
func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && len(s) <= 5
}
