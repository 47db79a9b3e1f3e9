package agent

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/board"
)

// Surroundings are what the default policy is judged by.
type Surroundings struct {
	Interfaces []board.Interface
	Routes     []board.Route
	Routed     bool // the routes are known; else nothing is on the LAN side
	// Uplinks had a default route at some time since the start. One that has lost its lease leads to the same office as
	// before.
	Uplinks map[string]bool
}

// Network is one network that is attached to the gateway, and whether it is on the LAN side.
type Network struct {
	Interface string       `json:"interface"`
	Network   netip.Prefix `json:"network"`
	LAN       bool         `json:"lan"`
	Why       string       `json:"why"`
}

// networks lists what is attached, sorted. It is pure.
func (s Surroundings) networks() (all []Network) {
	for _, i := range s.Interfaces {
		why := s.side(i)
		for _, p := range i.Prefixes {
			n := Network{i.Name, p.Masked(), why == "", why}
			if n.LAN {
				n.LAN, n.Why = usable(p)
			}
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Network) int { return a.Network.Compare(b.Network) })
	return all
}

// usable tells whether a network of a LAN interface has machines. A network of length 0 would be all addresses there are,
// and the metadata service of clouds has a link-local address.
func usable(p netip.Prefix) (ok bool, why string) {
	switch a := p.Addr(); {
	case p.Bits() == 0:
		return false, "it is every address there is"
	case p.IsSingleIP():
		return false, "it is the gateway's address alone"
	case special(a):
		return false, "its addresses need a rule"
	}
	return true, "its interface has and had no default route"
}

// side is empty for an interface on the LAN side, else why it is not there.
func (s Surroundings) side(i board.Interface) string {
	switch {
	case !s.Routed:
		return "the agent cannot read the routes here"
	case !i.Up:
		return "its interface is down"
	case i.Loopback:
		return "it is the gateway itself"
	case i.PointToPoint:
		return "it is a tunnel or modem"
	}
	if why := s.uplink(i); why != "" {
		return why
	}
	if !s.carries(i, true, len(s.Interfaces)) {
		return virtual(i)
	}
	return ""
}

// uplink says why an interface leads out of the site; empty: it does not. A macvlan is in the network of what it is
// stacked on.
func (s Surroundings) uplink(i board.Interface) string {
	for range s.Interfaces {
		switch {
		case s.solid(i):
			return "its interface has a default route"
		case s.Uplinks[i.Name]:
			return "its interface had a default route since the agent started"
		case s.routed(i, true) && !slices.ContainsFunc(s.Interfaces, s.solid):
			return "its interface has the only default route, by a router advertisement"
		}
		lower, ok := s.find(i.Lower)
		if !ok || i.Kind != "macvlan" && i.Kind != "ipvlan" {
			return ""
		}
		i = lower
	}
	return ""
}

// solid reports whether an interface has a default route that makes it an uplink, whatever the others have. One that a
// router advertisement brought does so only where there is no network of IPv4: every machine of the LAN can send
// advertisements, and with one it would shut all others off from the technicians.
func (s Surroundings) solid(i board.Interface) bool {
	v4 := slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool {
		return p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast()
	})
	return s.routed(i, false) || s.routed(i, true) && !v4
}

// routed reports whether an interface has a default route, in any table, by an advertisement or not. A cable that is out
// changes nothing: what is behind it is still not the owner's.
func (s Surroundings) routed(i board.Interface, advertised bool) bool {
	return slices.ContainsFunc(s.Routes, func(r board.Route) bool {
		return r.IsDefault() && r.Interface == i.Name && r.Advertised == advertised
	})
}

func (s Surroundings) find(name string) (board.Interface, bool) {
	n := slices.IndexFunc(s.Interfaces, func(i board.Interface) bool { return i.Name == name && name != "" })
	if n < 0 {
		return board.Interface{}, false
	}
	return s.Interfaces[n], true
}

// hardware reports whether there is a card or a port behind an interface.
func hardware(i board.Interface) bool {
	switch i.Kind {
	case "", "dsa", "wwan", "rmnet": // dsa: a port of a switch
		return !i.Loopback
	}
	return false
}

// carries reports whether an interface leads to a network of cables or radio, by itself or by what it is made of. The
// list of kinds is closed: what is not known is not opened. Where there is no hardware at all the agent is in a
// container, whose veth is its card. Depth ends a circle that the kernel does not make.
func (s Surroundings) carries(i board.Interface, card bool, depth int) bool {
	if depth < 0 {
		return false
	}
	switch i.Kind {
	case "vlan", "macvlan", "ipvlan", "macsec":
		lower, ok := s.find(i.Lower)
		return !ok && i.Lower == "" || ok && s.carries(lower, card, depth-1) // outside of the container
	case "bridge", "bond", "team", "hsr":
		return !strings.HasPrefix(i.Name, "docker") && slices.ContainsFunc(s.Interfaces, func(port board.Interface) bool {
			return port.Master == i.Name && s.carries(port, false, depth-1)
		})
	case "veth":
		return card && !slices.ContainsFunc(s.Interfaces, hardware)
	}
	return hardware(i)
}

// virtual says why an interface without a cable is not on the LAN side.
func virtual(i board.Interface) string {
	switch {
	case i.Kind == "bridge" && !strings.HasPrefix(i.Name, "docker"):
		return "its interface is a bridge without a port of hardware"
	case i.Kind == "bridge", i.Kind == "veth":
		return "its interface leads to containers"
	}
	return fmt.Sprintf("its interface is no hardware, but %s", i.Kind)
}

// looksFresh is how long one look at the machine serves. To ask the kernel for each of two thousand streams costs a small
// gateway its memory.
const looksFresh = time.Second

// lookout reads what the policy is judged by, and remembers the uplinks: the names of all interfaces that had a default
// route since the start. Names, since a modem comes back with its name and another index. Safe for concurrent use.
type lookout struct {
	mu   sync.Mutex // guards all below; held while the machine is asked, so that it is asked once
	at   time.Time  // monotonic; zero: never
	last Surroundings
}

// look returns what is around now, or was a second ago; err is set by a look that failed.
func (l *lookout) look(b *board.Board, fresh time.Duration) (s Surroundings, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && time.Since(l.at) < fresh {
		return l.last, nil
	}
	s, err = Around(b)
	s.Uplinks = everUplinks(l.last.Uplinks, s)
	l.last, l.at = s, time.Now()
	if err != nil {
		l.at = time.Time{}
	}
	return s, err
}

// surroundings are what the policy is judged by.
func (a *Agent) surroundings(fresh time.Duration) Surroundings {
	s, err := a.around.look(a.board, fresh)
	if a.status.trouble("read networks", err) {
		a.log.Warn("read networks", "err", err)
	}
	return s
}

// everUplinks adds to the uplinks of before those of now. Not those of which only an advertisement says so and another
// machine's word may replace it.
func everUplinks(before map[string]bool, s Surroundings) map[string]bool {
	names := before
	for _, i := range s.Interfaces {
		if s.solid(i) && !names[i.Name] {
			more := map[string]bool{i.Name: true}
			for name := range names {
				more[name] = true
			}
			names = more
		}
	}
	return names
}

// Around reads what the policy of this machine is judged by, without the uplinks of before. After an error it is what could
// be read: without routes nothing is on the LAN side. They are read on Linux only.
func Around(b *board.Board) (s Surroundings, err error) {
	if s.Interfaces, err = b.Interfaces(); err != nil {
		return Surroundings{}, fmt.Errorf("list interfaces: %w", err)
	}
	if s.Routes, err = b.Routes(); err != nil {
		return Surroundings{Interfaces: s.Interfaces}, fmt.Errorf("find uplinks: %w", err)
	}
	s.Routed = runtime.GOOS == "linux"
	return s, nil
}
