//go:build linux

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// pool is a rig with three relays on machines of their own, and none beside the Access Server.
type pool struct {
	*rig
	relays []*relay
}

// relay is a Relay Server that has been enrolled. It has a process from run on.
type relay struct {
	*process
	name, host string // the relay's own, the machine's
	config     string // file
}

func newPool(t *testing.T) *pool {
	t.Helper()
	p := &pool{rig: newRig(t, "relay:\n  name: relay1\n  dir: relay\n", "")}
	for n := range 3 {
		p.relays = append(p.relays, p.addRelay(n+1))
	}
	return p
}

// addRelay makes a relay of the n-th machine. It is not called after it: relays have names of their own.
func (p *pool) addRelay(n int) *relay {
	p.t.Helper()
	r := &relay{name: fmt.Sprintf("rs%d", n), host: fmt.Sprintf("relay%d", n)}
	r.config = p.path(r.name + "/server.yaml")
	var added struct{ Code string }
	reached := fmt.Sprintf("ubiquityrs%d.asem.it", n)
	p.manager(&added, "relay", "add", r.name, "--host", reached, "--json")
	must(p.t, nil, r.host, hawser("hawser-server"), "enroll", "--dir", p.path(r.name), "--host", reached,
		"--access", accessName, "--code", added.Code, "--root", p.root)
	return r
}

// behind has the relay listen on one address alone.
func (r *relay) behind(t *testing.T, address string) {
	t.Helper()
	text, err := os.ReadFile(r.config)
	if err == nil {
		err = os.WriteFile(r.config, fmt.Appendf(text, "listen: [%s]\n", address), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the relay and returns when the Access Server has it in the pool.
func (r *relay) run(t *testing.T) {
	t.Helper()
	r.process = start(t, r.host, hawser("hawser-server"), "run", "--config", r.config)
	r.await(0, registered)
}

const registered = `msg="relay is registered"`

// carrier is the relay that the newest session after a mark of the Manager's output has come up at.
func (p *pool) carrier(tech *process, mark int) *relay {
	p.t.Helper()
	const up = "session up via relay "
	text := tech.await(mark, up).text
	_, name, _ := strings.Cut(text, up)
	for _, r := range p.relays {
		if r.name == name {
			return r
		}
	}
	p.t.Fatalf("%q names no relay", text)
	return nil
}
