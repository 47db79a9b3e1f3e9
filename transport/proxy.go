package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of proxy, as schemes of a URL.
const (
	schemeHTTP  = "http"   // CONNECT (RFC 9110 §9.3.6)
	schemeSOCKS = "socks5" // RFC 1928; the proxy resolves names
)

const (
	maxProxyURL    = 1024 // bytes
	maxSecret      = 255  // bytes of a name or password (RFC 1929 §2)
	maxProxyAnswer = 8 << 10
)

// A Proxy is a way out of a site (wire §8.2). None of its texts shows its name and
// password, whatever formats it. It has fields that nobody else sets, so that each was made by ParseProxy and its parts
// fit into a request.
type Proxy struct {
	scheme string
	host   string // name or IP literal
	port   Port
	secret func() login // a function, which no formatting looks into; nil: none
}

// login is what a proxy wants to know.
type login struct{ user, password string }

// ParseProxy reads the URL of a proxy: http:// or socks5://[USER:PASSWORD@]HOST[:PORT].
// Without a port it is 80 or 1080. The error quotes nothing of s, which may hold a
// password.
func ParseProxy(s string) (p Proxy, err error) {
	scheme, rest, found := strings.Cut(s, "://")
	// A scheme is wanted, because HOST:PORT alone could be of either kind, and a guess would cost a time-out.
	if !found || len(s) > maxProxyURL {
		return p, errors.New("want http://[USER:PASSWORD@]HOST:PORT or socks5://[USER:PASSWORD@]HOST:PORT")
	}
	switch strings.ToLower(scheme) {
	case schemeHTTP:
		p.scheme, p.port = schemeHTTP, 80
	case schemeSOCKS, "socks5h", "socks":
		p.scheme, p.port = schemeSOCKS, 1080
	case "https":
		return p, errors.New("a proxy that is spoken to in TLS (https://) is not supported: want http:// or socks5://")
	default:
		return p, errors.New("a proxy of this scheme is not supported: want http:// or socks5://")
	}
	rest = strings.TrimSuffix(rest, "/")
	// The last one: people write an @ in a password without escaping it.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		l, err := parseLogin(rest[:i])
		if err != nil {
			return Proxy{}, err
		}
		p.secret = func() login { return l }
		rest = rest[i+1:]
	}
	if strings.HasSuffix(strings.ToLower(rest), ".pac") || strings.HasSuffix(strings.ToLower(rest), ".dat") {
		return Proxy{}, errPAC
	}
	if inner, ok := strings.CutPrefix(rest, "["); ok && strings.HasSuffix(inner, "]") {
		rest = strings.TrimSuffix(inner, "]")
	}
	host, port, err := SplitHost(rest)
	if err != nil {
		return Proxy{}, errors.New("behind http:// or socks5:// and USER:PASSWORD@ want HOST or HOST:PORT, and nothing else")
	}
	p.host = host
	if port != 0 {
		p.port = port
	}
	return p, nil
}

var errPAC = errors.New("a PAC file (automatic configuration) is not read: name the proxy itself")

func parseLogin(s string) (l login, err error) {
	user, password, _ := strings.Cut(s, ":")
	user, err1 := url.PathUnescape(user)
	password, err2 := url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return l, errors.New("name or password has a % that is no escape: write %25")
	}
	// Basic separates the two by the first colon (RFC 7617 §2), SOCKS has a byte for each length.
	if user == "" || len(user) > maxSecret || len(password) > maxSecret || strings.Contains(user, ":") {
		return l, errors.New("name and password have at most 255 bytes, the name at least one and no colon")
	}
	// A line end in it would be a header of its own in the request.
	if strings.ContainsFunc(user+password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return l, errors.New("name or password has a control character")
	}
	return login{user, password}, nil
}

// String is the URL of the proxy without name and password.
func (p Proxy) String() string {
	if p.scheme == "" {
		return ""
	}
	return p.scheme + "://" + net.JoinHostPort(p.host, strconv.Itoa(int(p.port)))
}

// GoString is String.
func (p Proxy) GoString() string { return p.String() }

// HasLogin reports whether a name and password were given.
func (p Proxy) HasLogin() bool { return p.secret != nil }

// throughProxy connects to the proxy of a candidate and has it connect to the host.
// Errors name the proxy, and say whether it failed by itself.
func (d *Dialer) throughProxy(ctx context.Context, a *Attempt, proxies Proxies, patience time.Duration) (net.Conn, error) {
	p, err := proxies.named(a.Proxy)
	if err != nil {
		return nil, &connectError{err: err}
	}
	connecting, cancel := context.WithTimeout(ctx, tcpTimeout*patience)
	defer cancel()
	conn, err := d.connectProxy(connecting, a, p)
	if err != nil {
		// Only by its own time-out: a search that ended says nothing about the proxy.
		a.proxyFailed = ctx.Err() == nil
		return nil, &connectError{err: fmt.Errorf("connect to proxy %s: %w", p, err)}
	}
	asking, cancel := context.WithTimeout(ctx, proxyTimeout*patience)
	defer cancel()
	done := context.AfterFunc(asking, func() { conn.SetDeadline(time.Unix(1, 0)) }) // ends reads and writes at once
	err = p.ask(conn, a.Host, a.Port())
	if !done() && err == nil {
		err = asking.Err()
	}
	if err != nil {
		conn.Close()
		if asking.Err() != nil {
			err = asking.Err()
		}
		switch ReasonOf(err) {
		case ProxyAuth, NotTLS, CaptivePortal: // whatever host and port it is asked for
			a.proxyFailed = true
		}
		return nil, &connectError{err: fmt.Errorf("ask proxy %s: %w", p, err)}
	}
	return conn, nil
}

// connectProxy connects to the first address of a proxy that answers. Each gets its
// share of the time that is left. One after the other, since a proxy's addresses are few and near; they share one place
// among the connects in flight.
func (d *Dialer) connectProxy(ctx context.Context, a *Attempt, p Proxy) (net.Conn, error) {
	addrs, err := d.resolveProxy(ctx, p.host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, &Error{Reason: DNS, Op: "resolve " + p.host, Err: err}
	}
	addrs = interleave(addrs)
	deadline, _ := ctx.Deadline()
	var conn net.Conn
	for i, addr := range addrs {
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		conn, err = d.connectTCP(share, a, netip.AddrPortFrom(addr, uint16(p.port)))
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return conn, err
}

// resolveProxy finds the addresses of a proxy. A helper on this machine that proves
// itself to the site's proxy is called localhost, which no resolver need know (RFC 6761
// §6.3).
func (d *Dialer) resolveProxy(ctx context.Context, host string) ([]netip.Addr, error) {
	if name, _ := HostName(host); name == "localhost" {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	return d.resolve(ctx, host)
}

// ask has the proxy at the other end of conn connect to a host and port. It blocks as
// long as conn does.
func (p Proxy) ask(conn net.Conn, host string, port Port) error {
	var l *login
	if p.secret != nil {
		l = new(p.secret())
	}
	if p.scheme == schemeSOCKS {
		return askSOCKS(conn, l, host, port)
	}
	return askHTTP(conn, l, host, port)
}

// printable makes text of a proxy fit for a line that people read. The phrase of an answer goes into logs and onto
// terminals, and whoever is on the way can write it.
func printable(s string) string {
	const most = 80
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), most)])
}

// named returns the proxy of that URL: the configured one, with its name and password,
// or else the one that the URL says.
func (ps Proxies) named(url string) (Proxy, error) {
	if i := slices.IndexFunc(ps.list, func(p Proxy) bool { return p.String() == url }); i >= 0 {
		return ps.list[i], nil
	}
	return ParseProxy(url)
}
