package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// infrastructure is the answer of hawser-server init (cli §1). The programs' own types are not imported here: a member
// that is renamed there has to break the demo, as it breaks a user's script.
type infrastructure struct {
	Dir        string `json:"dir"`
	RootFile   string `json:"root_file"`
	RootSHA256 string `json:"root_sha256"`
	AdminCode  string `json:"admin_code"`
}

// account is the answer of hawser login (cli §3).
type account struct {
	Domain   string    `json:"domain"`
	User     string    `json:"user"`
	NotAfter time.Time `json:"not_after"`
}

// newDevice is the answer of hawser device add (cli §3).
type newDevice struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
	Code string `json:"code"`
}

// enrolled is the answer of hawser-agent enroll (cli §2).
type enrolled struct {
	UID      string    `json:"uid"`
	Name     string    `json:"name"`
	SPKI     string    `json:"spki_sha256"`
	NotAfter time.Time `json:"not_after"`
}

// device is one of hawser device list (cli §3, access §6).
type device struct {
	UID    string `json:"uid"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Online bool   `json:"online"`
}

// newRelay is the answer of hawser relay add (cli §3).
type newRelay struct {
	Name string `json:"name"`
	Code string `json:"code"`
}

// enrolledRelay is the answer of hawser-server enroll (cli §1).
type enrolledRelay struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// decision is the answer of hawser relays (access §8).
type decision struct {
	Chosen string       `json:"chosen"`
	Relays []ratedRelay `json:"relays"`
}

type ratedRelay struct {
	Name    string    `json:"name"`
	Manager *measured `json:"manager"`
	Runtime *measured `json:"runtime"`
	Verdict string    `json:"verdict"`
}

// measured is what one end found; with a reason it could not reach the relay.
type measured struct {
	Reason string `json:"reason"`
}

// String names the relays and how far each is usable, for an error.
func (d decision) String() string {
	texts := []string{fmt.Sprintf("%d relays", len(d.Relays))}
	for _, r := range d.Relays {
		texts = append(texts, fmt.Sprintf("%s (technician %s, gateway %s)", r.Name, r.Manager, r.Runtime))
	}
	return strings.Join(texts, ", ")
}

func (m *measured) String() string {
	switch {
	case m == nil:
		return "not measured"
	case m.Reason != "":
		return m.Reason
	}
	return "reached"
}

func (m *measured) good() bool { return m != nil && m.Reason == "" }

func (d decision) has(name string) bool {
	return slices.ContainsFunc(d.Relays, func(r ratedRelay) bool { return r.Name == name })
}

// complete reports whether exactly these relays are there, and both ends reached each of them.
func (d decision) complete(relays []*relay) bool {
	for _, r := range d.Relays {
		if !r.Manager.good() || !r.Runtime.good() {
			return false
		}
	}
	return len(d.Relays) == len(relays) && !slices.ContainsFunc(relays, func(r *relay) bool { return !d.has(r.name) })
}

// decode reads the JSON answer of a command into v. More members than we look at are no error.
func decode(command, answer string, v any) error {
	if err := json.Unmarshal([]byte(answer), v); err != nil {
		return fmt.Errorf("read answer of %s: %w: %.200q", command, err, answer)
	}
	return nil
}

const (
	readyPrefix   = "ready "   // of hawser-server run (cli §1)
	onlinePrefix  = "online "  // of hawser-agent run (cli §2)
	forwardPrefix = "forward " // of hawser connect (cli §3)
	upPrefix      = "session up via relay "
	refusedPrefix = "connection to " // of the same, when a tool cannot be carried
)

// parseOnline reads "online UID via HOST:PORT".
func parseOnline(line string) (uid, via string, err error) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != "online" || f[2] != "via" || len(f[1]) != 32 {
		return "", "", fmt.Errorf("line %q: want online UID via HOST:PORT", line)
	}
	return f[1], f[3], nil
}

// parseUp reads "session up via relay NAME".
func parseUp(line string) (relay string, ok bool) {
	relay, ok = strings.CutPrefix(line, upPrefix)
	return relay, ok && relay != ""
}

// forward is where a tool connects, and where that leads from the gateway.
type forward struct{ local, target netip.AddrPort }

// parseForward reads "forward 127.0.0.1:PORT -> HOST:PORT".
func parseForward(line string) (forward, error) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != "forward" || f[2] != "->" {
		return forward{}, fmt.Errorf("line %q: want forward HOST:PORT -> HOST:PORT", line)
	}
	local, err1 := netip.ParseAddrPort(f[1])
	target, err2 := netip.ParseAddrPort(f[3])
	if err1 != nil || err2 != nil || local.Port() == 0 {
		return forward{}, fmt.Errorf("line %q: want forward HOST:PORT -> HOST:PORT", line)
	}
	return forward{local, target}, nil
}
