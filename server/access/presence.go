package access

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// presence knows who is attached to this node, which relays are attached to
// others, and which keys are revoked. All is under one
// lock, so that nobody who is revoked can slip in while it happens; nothing
// under the lock waits for a peer. The zero value works.
type presence struct {
	mu      sync.Mutex // guards the rest
	links   map[identity.Name]*link
	others  []*attached // relays of other nodes
	pushed  []byte      // the pool that everybody knows
	revoked map[identity.SPKI]time.Time
}

// attach makes l the live connection of its identity, newest wins (wire §4.3),
// and queues its welcome before anything else.
func (p *presence) attach(l *link, welcome wire.Welcome, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, no := p.revoked[l.peer.SPKI]; no {
		l.finish(&wire.Refusal{Reason: transport.Revoked})
		return
	}
	if p.links == nil {
		p.links = make(map[identity.Name]*link)
	}
	if old := p.links[l.peer.Name]; old != nil {
		old.finish(&wire.Refusal{Reason: transport.Replaced})
	}
	p.links[l.peer.Name] = l
	welcome.Pool = p.poolLocked()
	l.send(encode(wire.TypeWelcome, welcome))
	if len(p.revoked) > 0 {
		l.send(encode(wire.TypeRevoked, p.revokedLocked(now)))
	}
	p.pushPoolLocked(l)
}

// detach forgets l, unless a newer one has taken its place.
func (p *presence) detach(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.links[l.peer.Name] != l {
		return
	}
	delete(p.links, l.peer.Name)
	p.pushPoolLocked(nil)
}

// find returns the live connection of an identity, or nil.
func (p *presence) find(name identity.Name) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[name]
}

// names returns who is attached here.
func (p *presence) names() []identity.Name {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.links))
}

// setOthers notes the relays of other nodes, and pushes the pool if that changes it.
func (p *presence) setOthers(relays []*attached) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = relays
	p.pushPoolLocked(nil)
}

// relays returns the relays that are online, ordered by name.
func (p *presence) relays() []*attached {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.relaysLocked()
}

// relay returns the relay of that name if it is online, or nil.
func (p *presence) relay(name string) *attached {
	for _, r := range p.relays() {
		if r.name.ID == name {
			return r
		}
	}
	return nil
}

func (p *presence) relaysLocked() []*attached {
	var relays []*attached
	for name, l := range p.links {
		if name.Kind == identity.KindRelay {
			relays = append(relays, l.attached())
		}
	}
	for _, r := range p.others {
		if p.links[r.name] == nil { // here it is newer, or will soon be ended
			relays = append(relays, r)
		}
	}
	slices.SortFunc(relays, func(a, b *attached) int { return strings.Compare(a.name.ID, b.name.ID) })
	return relays
}

// pool returns where the relays that are online answer.
func (p *presence) pool() wire.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.poolLocked()
}

// pushPoolLocked tells everybody but one the pool, if it has changed. A relay
// that comes back as it was is no news: idle Runtimes pay for each byte.
func (p *presence) pushPoolLocked(but *link) {
	m := encode(wire.TypePool, p.poolLocked())
	if bytes.Equal(m.payload, p.pushed) {
		return
	}
	p.pushed = m.payload
	p.pushLocked(m, but)
}

func (p *presence) poolLocked() wire.Pool {
	pool := wire.Pool{Relays: []wire.Relay{}}
	for _, r := range p.relaysLocked() {
		pool.Relays = append(pool.Relays, r.relay())
	}
	return pool
}

// pushLocked queues a frame for everybody but one.
func (p *presence) pushLocked(m message, but *link) {
	for _, l := range p.links {
		if l != but {
			l.send(m)
		}
	}
}

func (p *presence) forbidLocked(spki identity.SPKI, at time.Time) {
	if p.revoked == nil {
		p.revoked = make(map[identity.SPKI]time.Time)
	}
	p.revoked[spki] = at
}

// revoke forbids a key now.
func (p *presence) revoke(spki identity.SPKI, now time.Time) {
	p.revokeAll(map[identity.SPKI]time.Time{spki: now}, now)
}

// revokeAll forbids keys that were revoked at those times, ends what is
// connected with them and tells everybody else. What was known is no news.
func (p *presence) revokeAll(keys map[identity.SPKI]time.Time, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.revoked)
	for spki, at := range keys {
		if _, known := p.revoked[spki]; !known {
			p.forbidLocked(spki, at)
		}
	}
	if len(p.revoked) == before {
		return
	}
	for _, l := range p.links {
		if _, no := p.revoked[l.peer.SPKI]; no {
			l.finish(&wire.Refusal{Reason: transport.Revoked})
		}
	}
	p.pushLocked(encode(wire.TypeRevoked, p.revokedLocked(now)), nil)
}

func (p *presence) isRevoked(spki identity.SPKI) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, no := p.revoked[spki]
	return no
}

// Bounds of what is pushed (wire §4.7): older keys have no valid certificate
// any more, and cannot get one.
const (
	revokedFor = memberLife + 2*backdate
	maxRevoked = 900 // of 67 bytes each, in a frame of 64 KiB
)

// revokedLocked returns the list to push, newest first when it is too long.
func (p *presence) revokedLocked(now time.Time) wire.Revoked {
	keys := []identity.SPKI{}
	for k, at := range p.revoked {
		if now.Sub(at) <= revokedFor {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b identity.SPKI) int {
		if c := p.revoked[b].Compare(p.revoked[a]); c != 0 {
			return c
		}
		return bytes.Compare(a[:], b[:])
	})
	return wire.Revoked{SPKI: keys[:min(len(keys), maxRevoked)]}
}

// encode makes a message of one of wire's types, which always can be encoded.
func encode(t wire.Type, v any) message {
	payload, err := json.Marshal(v)
	if err != nil {
		panic("access: " + err.Error())
	}
	return message{t, payload}
}
