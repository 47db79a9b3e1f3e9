package probe

import (
	"net/netip"
	"time"
)

// How long a server is treated specially before it gets another chance.
const (
	caseMemory = 24 * time.Hour // names §2
	tcpMemory  = time.Hour      // names §3
	maxQuirks  = 32             // servers remembered; moving between networks must not add up
)

// quirk is what was learnt about one server.
type quirk struct {
	noCase   time.Time // until then it is not asked in mixed case
	tcpFirst time.Time // until then it is asked over TCP first
}

func (r *Resolver) keepsNoCase(server netip.AddrPort) bool {
	return time.Now().Before(r.quirk(server).noCase)
}

func (r *Resolver) tcpFirst(server netip.AddrPort) bool {
	return time.Now().Before(r.quirk(server).tcpFirst)
}

func (r *Resolver) setKeepsNoCase(server netip.AddrPort) {
	r.learn(server, func(q *quirk) { q.noCase = time.Now().Add(caseMemory) })
	r.log().Info("resolver changes the case of names", "addr", server)
}

func (r *Resolver) setTCPFirst(server netip.AddrPort, on bool) {
	if !on {
		r.learn(server, func(q *quirk) { q.tcpFirst = time.Time{} })
		return
	}
	r.learn(server, func(q *quirk) { q.tcpFirst = time.Now().Add(tcpMemory) })
	r.log().Info("resolver answers over tcp only", "addr", server)
}

func (r *Resolver) quirk(server netip.AddrPort) quirk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quirks[server]
}

func (r *Resolver) learn(server netip.AddrPort, change func(*quirk)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quirks == nil || len(r.quirks) >= maxQuirks {
		r.quirks = make(map[netip.AddrPort]quirk) // learnt again when met again
	}
	q := r.quirks[server]
	change(&q)
	r.quirks[server] = q
}
