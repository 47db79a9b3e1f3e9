package manager

import (
	"time"

	"hawser/probe/netcheck"
	"hawser/transport"
	"hawser/transport/api"
)

// Known is what the account in Home says about the network. Without one it is nearly nothing: netcheck works before login.
func (m *Manager) Known() (netcheck.Known, error) {
	k := netcheck.Known{Now: m.Now, Dial: m.DialContext, Proxies: transport.AutoProxies().Source(transport.UserProxies)}
	h, err := m.home()
	if err != nil {
		return k, err
	}
	s, err := h.load()
	switch {
	case err == nil:
		k.Hosts, k.Ports, k.Roots, k.Bounds = s.config.Hosts, s.config.Ports, s.roots, s.config.bounds()
		k.Relays = netcheck.RelaysIn(s.config.remembered(), k.Hosts, k.Ports)
		proxy, _ := s.config.proxy() // checked when it was read
		k.Proxies = proxy.Source(transport.UserProxies)
	case transport.ReasonOf(err) != api.NotLoggedIn:
		k.Note = "the account cannot be read, and netcheck does without it: " + err.Error()
	}
	return k, nil
}

// remembered lists the hosts that this account reached before.
func (c config) remembered() (list []netcheck.Good) {
	for _, g := range c.Good {
		list = append(list, netcheck.Good{Host: g.Host, Port: g.Candidate(g.Host, time.Time{}).Port()})
	}
	return list
}
