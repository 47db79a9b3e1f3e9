package transport

import (
	"errors"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Proxies says which proxies lead out, and when they are tried (wire §8.2). The zero
// value has none. It is a value without a lock: a search asks for it once, so settings that change meanwhile count for
// the next one.
type Proxies struct {
	First bool     // before the direct way, as a list of the configuration is; else behind it
	Notes []string // what of the settings cannot be used, for people; without names and passwords

	list   []Proxy
	except []exception
}

// exception is a host that is reached without a proxy. The forms are those of no_proxy as curl and Go read it, and of
// Windows' list; there is no standard for either.
type exception struct {
	name   string // in lower case; all its subdomains, too
	sub    bool   // only its subdomains
	glob   string // a pattern with *, as Windows has them; instead of a name
	local  bool   // every name without a dot
	prefix netip.Prefix
	port   Port // zero: any
}

// ProxyList makes proxies of URLs, which are tried before the direct way. An error is
// that of ParseProxy, with the number of the item, from 0. One bad URL makes all of them an error, unlike in the
// environment: somebody has written this list for this program.
func ProxyList(urls []string) (ps Proxies, item int, err error) {
	ps.First = true
	for i, s := range urls {
		p, err := ParseProxy(s)
		if err != nil {
			return Proxies{}, i, err
		}
		ps.add(p)
	}
	return ps, 0, nil
}

// add adds a proxy unless it is there. Compared without name and password, so https_proxy and all_proxy that name one
// proxy are one way; the first counts.
func (ps *Proxies) add(p Proxy) {
	if !slices.ContainsFunc(ps.list, func(q Proxy) bool { return q.String() == p.String() }) {
		ps.list = append(ps.list, p)
	}
}

// All lists the proxies. The caller may keep and change the list.
func (ps Proxies) All() []Proxy { return slices.Clone(ps.list) }

// For lists the proxies that lead to a host and port.
func (ps Proxies) For(host string, port Port) []Proxy {
	if len(ps.list) == 0 || slices.ContainsFunc(ps.except, func(e exception) bool { return e.is(host, port) }) {
		return nil
	}
	return ps.list
}

func (e exception) is(host string, port Port) bool {
	if e.port != 0 && e.port != port {
		return false
	}
	if e.glob != "" {
		matched, _ := path.Match(e.glob, strings.ToLower(strings.TrimSuffix(host, ".")))
		return matched
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return e.prefix.IsValid() && e.prefix.Contains(a.Unmap())
	}
	name, _ := HostName(host)
	switch {
	case e.local:
		return !strings.Contains(name, ".")
	case e.name == "" || name == "":
		return false
	case name == e.name:
		return !e.sub
	}
	return strings.HasSuffix(name, "."+e.name)
}

// ProxiesOfEnvironment reads https_proxy and all_proxy, and the hosts of no_proxy, in
// small or capital letters; small ones come first, as curl has it. lookup is
// os.LookupEnv. http_proxy is for plain HTTP and not read.
func ProxiesOfEnvironment(lookup func(string) (string, bool)) (ps Proxies) {
	value := func(name string) string {
		if v, ok := lookup(name); ok {
			return strings.TrimSpace(v)
		}
		v, _ := lookup(strings.ToUpper(name))
		return strings.TrimSpace(v)
	}
	for _, name := range []string{"https_proxy", "all_proxy"} {
		if v := value(name); v != "" {
			ps.addSetting(v, name)
		}
	}
	for field := range strings.FieldsFuncSeq(value("no_proxy"), func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		ps.addException(field)
	}
	return ps
}

// addSetting adds a proxy of a setting that this program did not check: one that cannot
// be used becomes a note. A scheme may be missing.
func (ps *Proxies) addSetting(url, where string) {
	if !strings.Contains(url, "://") {
		url = schemeHTTP + "://" + url
	}
	p, err := ParseProxy(url)
	if err != nil {
		ps.Notes = append(ps.Notes, where+": "+err.Error())
		return
	}
	ps.add(p)
}

// addException adds a host of no_proxy, or of Windows' list: a name with its subdomains,
// an address or a prefix, the first two with a port or without; a pattern with *; or
// <local>, every name without a dot. Anything else is no exception. An exception that is not understood makes the
// direct way the second one, and closes none.
func (ps *Proxies) addException(s string) {
	e, err := parseException(strings.ToLower(s))
	if err == nil {
		ps.except = append(ps.except, e)
	}
}

func parseException(s string) (e exception, err error) {
	if s == "<local>" {
		return exception{local: true}, nil
	}
	if rest, ok := strings.CutPrefix(s, "*."); ok && !strings.Contains(rest, "*") {
		s, e.sub = rest, true
	}
	if strings.Contains(s, "*") {
		_, err = path.Match(s, "")
		return exception{glob: s}, err
	}
	if e.prefix, err = netip.ParsePrefix(s); err == nil {
		return e, nil
	}
	host, port, err := SplitHost(strings.TrimPrefix(s, "."))
	if err != nil {
		return exception{}, errors.New("no host")
	}
	e.port = port
	if a, err := netip.ParseAddr(host); err == nil {
		e.prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return e, nil
	}
	e.name, _ = HostName(host)
	return e, nil
}
