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

// presence knows who is attached to this node, which relays are attached to others, and which keys are revoked. All of
// it is under one lock: with two, a client could attach between the revocation of its key and the end of its links.
// Nothing under the lock waits for a peer. The zero value works.
type presence struct {
	mu      sync.Mutex // guards the rest
	links   map[identity.Name]*link
	ours    map[identity.Name]*link // of links those of relays, since there are few, and the pool is made often
	others  []*onlineMember         // relays of other nodes
	pushed  []byte                  // the pool that every link was sent last
	revoked map[identity.SPKI]time.Time
	cloned  map[identity.SPKI]time.Time // keys that two machines use, since when: nobody may go on with them
	held    map[identity.Name][]*link   // connections with them, which get no offers; the oldest first
	relayed bool                        // a relay has been online
	waiting chan struct{}               // closed when relayed is set; nil: nobody waits
}

// attach makes l the link of its identity and ends an older one: the newest wins (wire §4.3), because a gateway that
// comes back after a cut cable has a new connection long before its old one is noticed to be dead. Its welcome is
// queued before any other frame.
func (p *presence) attach(l *link, welcome wire.Welcome, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, no := p.revoked[l.peer.SPKI]; no {
		l.closeWith(&wire.Refusal{Reason: transport.Revoked})
		return
	}
	if _, no := p.cloned[l.peer.SPKI]; no {
		l.closeWith(clonedRefusal())
		return
	}
	if p.links == nil {
		p.links, p.ours = make(map[identity.Name]*link), make(map[identity.Name]*link)
	}
	if old := p.links[l.peer.Name]; old != nil {
		old.closeWith(&wire.Refusal{Reason: transport.Replaced})
	}
	p.links[l.peer.Name] = l
	if l.peer.Name.Kind == identity.KindRelay {
		p.ours[l.peer.Name] = l
	}
	welcome.Pool = p.poolLocked()
	l.send(encode(wire.TypeWelcome, welcome))
	if len(p.revoked)+len(p.cloned) > 0 {
		l.send(encode(wire.TypeRevoked, p.revokedLocked(now)))
	}
	p.pushPoolLocked(l)
}

// detach removes l, unless a newer link has replaced it.
func (p *presence) detach(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held := p.held[l.peer.Name]; slices.Contains(held, l) {
		p.held[l.peer.Name] = slices.DeleteFunc(held, func(other *link) bool { return other == l })
		if len(held) == 1 {
			delete(p.held, l.peer.Name)
		}
		return
	}
	if p.links[l.peer.Name] != l {
		return
	}
	delete(p.links, l.peer.Name)
	delete(p.ours, l.peer.Name)
	p.pushPoolLocked(nil)
}

// maxHeld is how many connections of one cloned device there are, of which each may be another machine's.
const maxHeld = 16

// hold keeps a connection apart that gets no offers: of a key that two machines use, or may be using. It replaces none (wire
// §4.11), but of too many the oldest goes.
func (p *presence) hold(l *link, welcome wire.Welcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.apart = true
	if _, no := p.revoked[l.peer.SPKI]; no {
		l.closeWith(&wire.Refusal{Reason: transport.Revoked})
		return
	}
	if p.held == nil {
		p.held = make(map[identity.Name][]*link)
	}
	p.held[l.peer.Name] = append(p.held[l.peer.Name], l)
	if held := p.held[l.peer.Name]; len(held) > maxHeld {
		held[0].closeWith(&wire.Refusal{Reason: transport.Busy, RetryAfter: awayRetry})
	}
	l.send(encode(wire.TypeWelcome, welcome))
}

// heldOf returns the connections of a device that get no offers.
func (p *presence) heldOf(name identity.Name) []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.held[name])
}

// suspend ends the links with keys that two machines use, and tells all others to go on with none of them.
func (p *presence) suspend(keys map[identity.SPKI]time.Time, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.cloned)
	if p.cloned == nil {
		p.cloned = make(map[identity.SPKI]time.Time)
	}
	maps.Copy(p.cloned, keys)
	if len(p.cloned) == before {
		return
	}
	for _, l := range p.links {
		if _, no := p.cloned[l.peer.SPKI]; no {
			l.closeWith(clonedRefusal())
		}
	}
	p.pushLocked(encode(wire.TypeRevoked, p.revokedLocked(now)), nil)
}

// find returns the link of an identity to this node, or nil.
func (p *presence) find(name identity.Name) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[name]
}

// devices returns the links of the devices of a domain, or of all, to this node.
func (p *presence) devices(domain string) (links []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, l := range p.links {
		if name.Kind == identity.KindDevice && (domain == "" || name.Domain == domain) {
			links = append(links, l)
		}
	}
	return links
}

// names returns who is attached to this node.
func (p *presence) names() []identity.Name {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.links))
}

// setOthers replaces the relays of other nodes, and pushes the pool if that changes it.
func (p *presence) setOthers(relays []*onlineMember) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = relays
	p.pushPoolLocked(nil)
}

// relays returns the relays that are online, ordered by name.
func (p *presence) relays() []*onlineMember {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.relaysLocked()
}

// relay returns the relay of that name if it is online, or nil.
func (p *presence) relay(name string) *onlineMember {
	for _, r := range p.relays() {
		if r.name.ID == name {
			return r
		}
	}
	return nil
}

// relaysLocked has an order, by name: pages of the list and the pool that clients get would change with each call
// otherwise.
func (p *presence) relaysLocked() []*onlineMember {
	var relays []*onlineMember
	for _, l := range p.ours {
		relays = append(relays, l.member())
	}
	for _, r := range p.others {
		if p.links[r.name] == nil { // this node's link is newer, or clusterLoop will end it soon
			relays = append(relays, r)
		}
	}
	slices.SortFunc(relays, func(a, b *onlineMember) int { return strings.Compare(a.name.ID, b.name.ID) })
	return relays
}

// noteRelayLocked tells those who wait for the first relay.
func (p *presence) noteRelayLocked() {
	p.relayed = true
	if p.waiting != nil {
		close(p.waiting)
		p.waiting = nil
	}
}

// firstRelay is closed when the first relay of this process has come, or nil if there was one already.
func (p *presence) firstRelay() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.relayed && p.waiting == nil {
		p.waiting = make(chan struct{})
	}
	return p.waiting
}

// pool returns where the online relays can be reached.
func (p *presence) pool() wire.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.poolLocked()
}

// pushPoolLocked sends the pool to every link except one, if it has changed. A relay that comes back with the same
// addresses changes nothing: an idle Runtime on a mobile link pays for each byte.
func (p *presence) pushPoolLocked(except *link) {
	pool := p.poolLocked()
	if len(pool.Relays) > 0 {
		p.noteRelayLocked()
	}
	m := encode(wire.TypePool, pool)
	if bytes.Equal(m.payload, p.pushed) {
		return
	}
	// Compared as bytes: what is equal on the wire need not be sent.
	p.pushed = m.payload
	p.pushLocked(m, except)
}

func (p *presence) poolLocked() wire.Pool {
	pool := wire.Pool{Relays: []wire.Relay{}}
	for _, r := range p.relaysLocked() {
		pool.Relays = append(pool.Relays, r.relay())
	}
	return pool
}

// pushLocked queues a frame for every link except one.
func (p *presence) pushLocked(m message, except *link) {
	for _, l := range p.links {
		if l != except {
			l.send(m)
		}
	}
}

// forbidLocked never forgets a key while the process lives, unlike the list that is pushed: the registry must refuse it
// at any time.
func (p *presence) forbidLocked(spki identity.SPKI, at time.Time) {
	if p.revoked == nil {
		p.revoked = make(map[identity.SPKI]time.Time)
	}
	p.revoked[spki] = at
}

// revoke revokes a key now.
func (p *presence) revoke(spki identity.SPKI, now time.Time) {
	p.revokeAll(map[identity.SPKI]time.Time{spki: now}, now)
}

// revokeAll adds keys that were revoked at those times, ends their links and sends the list to all others. Keys that
// were known already change nothing.
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
	all := slices.Collect(maps.Values(p.links))
	for _, held := range p.held {
		all = append(all, held...)
	}
	for _, l := range all {
		if _, no := p.revoked[l.peer.SPKI]; no {
			l.closeWith(&wire.Refusal{Reason: transport.Revoked})
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

// Limits of the list that is pushed (wire §4.7). Older keys need not be in it: their certificates have expired, and
// they cannot get new ones.
const (
	revokedFor = memberLife + 2*backdate
	maxRevoked = 900 // of 67 bytes each, in a frame of 64 KiB
)

// revokedLocked returns the list to push: the newest keys, if there are too many.
func (p *presence) revokedLocked(now time.Time) wire.Revoked {
	keys, all := []identity.SPKI{}, maps.Clone(p.cloned)
	if all == nil {
		all = make(map[identity.SPKI]time.Time)
	}
	maps.Copy(all, p.revoked)
	for k, at := range all {
		_, cloned := p.cloned[k]
		if cloned || now.Sub(at) <= revokedFor {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b identity.SPKI) int {
		if c := all[b].Compare(all[a]); c != 0 {
			return c
		}
		return bytes.Compare(a[:], b[:])
	})
	return wire.Revoked{SPKI: keys[:min(len(keys), maxRevoked)]}
}

// encode makes a message of one of the types of package wire, all of which can be encoded.
func encode(t wire.Type, v any) message {
	payload, err := json.Marshal(v)
	if err != nil {
		panic("access: " + err.Error())
	}
	return message{t, payload}
}
