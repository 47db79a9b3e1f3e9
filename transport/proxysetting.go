package transport

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ProxySetting is what a configuration says of proxies: a list of URLs, auto or none.
// The zero value is none. It is parsed once and printed in status and logs, so String leaves out what must not be
// there.
type ProxySetting struct {
	auto bool
	list Proxies
}

// AutoProxies is the setting auto.
func AutoProxies() ProxySetting { return ProxySetting{auto: true} }

// ParseProxySetting reads the words auto or none, or URLs. An error says for which
// item it is, counted from 0, and quotes nothing that may hold a password.
func ParseProxySetting(words []string) (s ProxySetting, item int, err error) {
	if len(words) == 1 && words[0] == "auto" {
		return AutoProxies(), 0, nil
	}
	if len(words) == 1 && words[0] == "none" {
		return s, 0, nil
	}
	if len(words) == 0 {
		return s, 0, errors.New("want auto, none, or at least one URL")
	}
	for i, w := range words {
		if w == "auto" || w == "none" {
			return s, i, errors.New("auto and none stand alone")
		}
	}
	s.list, item, err = ProxyList(words)
	return s, item, err
}

// ParseProxyFlag is ParseProxySetting for words of a command line. Others can read that: a URL with name and password is
// an error that says where else to put it.
func ParseProxyFlag(words []string, where string) (s ProxySetting, err error) {
	if s, _, err = ParseProxySetting(words); err == nil && s.HasLogin() {
		err = errors.New("others can read a command line: put a proxy with name and password into " + where)
	}
	if err != nil {
		err = fmt.Errorf("--proxy: %w", err)
	}
	return s, err
}

// Words are those of which ParseProxySetting makes s again, if no URL holds a name and
// password: these are left out.
func (s ProxySetting) Words() (words []string) {
	if s.auto || len(s.list.list) == 0 {
		return []string{s.String()}
	}
	for _, p := range s.list.list {
		words = append(words, p.String())
	}
	return words
}

// String is auto, none, or the URLs without names and passwords.
func (s ProxySetting) String() string {
	if s.auto {
		return "auto"
	}
	if len(s.list.list) == 0 {
		return "none"
	}
	return fmt.Sprint(s.list.list)
}

// HasLogin reports whether a URL holds a name and password.
func (s ProxySetting) HasLogin() bool { return slices.ContainsFunc(s.list.list, Proxy.HasLogin) }

// Source is what gives a Dialer its proxies. System, UserProxies or ServiceProxies,
// is asked at each search with auto, since a user may change his settings. The two systems differ by who asks: a
// service has no user whose settings could count.
func (s ProxySetting) Source(system func() Proxies) func() Proxies {
	if s.auto {
		return system
	}
	return func() Proxies { return s.list }
}

// UserProxies are the proxies of this process's environment and, on Windows, those
// that its user has set.
func UserProxies() Proxies { return settingsOf(userSettings()) }

// ServiceProxies are the proxies of this process's environment and, on Windows, those
// of WinHTTP: a service has no user.
func ServiceProxies() Proxies { return settingsOf(serviceSettings()) }

// settings are the proxies of a system, as it has them written: those of Windows.
type settings struct {
	server string // HOST:PORT for everything, or SCHEME=HOST:PORT;…
	bypass string
	script string // URL of a PAC file
}

// settingsOf puts the environment before the system.
func settingsOf(s settings) Proxies {
	ps := ProxiesOfEnvironment(os.LookupEnv)
	ps.addSystem(s)
	return ps
}

// addSystem adds proxies as Windows writes them: one for everything, or one each for
// http, https and socks, of which http is not for us.
func (ps *Proxies) addSystem(s settings) {
	separated := func(r rune) bool { return r == ';' || r == ' ' || r == '\t' || r == '\r' || r == '\n' }
	for field := range strings.FieldsFuncSeq(s.server, separated) {
		scheme, server, named := strings.Cut(field, "=")
		switch {
		case !named:
			ps.addSetting(field, "system")
		case strings.EqualFold(scheme, "https"):
			ps.addSetting(server, "system")
		case strings.EqualFold(scheme, "socks") && !strings.Contains(server, "://"):
			ps.addSetting(schemeSOCKS+"://"+server, "system")
		}
	}
	for field := range strings.FieldsFuncSeq(s.bypass, separated) {
		ps.addException(field)
	}
	if s.script != "" {
		ps.Notes = append(ps.Notes, "system: "+errPAC.Error())
	}
}
