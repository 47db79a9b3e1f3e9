package access

import (
	"context"
	"encoding/json"
	"slices"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport/wire"
)

// tellKept tells the devices of this node what concerns them: lists all of the domain, statements about a device that one.
func (s *Server) tellKept(ctx context.Context, domain string, k kept) {
	if k.people {
		s.tellLists(ctx, domain)
	}
	for _, uid := range k.devices {
		s.tellDevice(ctx, identity.DeviceName(domain, uid))
	}
}

// tellLists sends every device of a domain, or of all, the lists that it has not been sent.
func (s *Server) tellLists(ctx context.Context, domain string) {
	for _, l := range s.presence.devices(domain) {
		o, err := s.owner(ctx, l.peer.Name.Domain)
		if err != nil {
			s.logFailure("lists are not sent", err, "domain", l.peer.Name.Domain)
			return
		}
		l.tell(o, nil)
	}
}

// tellDevice sends a device what is stated about itself.
func (s *Server) tellDevice(ctx context.Context, name identity.Name) {
	l := s.presence.find(name)
	if l == nil {
		return
	}
	var stated []store.Statement
	o, err := s.owner(ctx, name.Domain)
	if err == nil {
		err = s.store.View(ctx, func(tx *store.Tx) (err error) {
			stated, err = tx.StatementsOf(name.Domain, subjectOf(name))
			return err
		})
	}
	if err != nil {
		s.logFailure("statements are not sent", err, "uid", name.ID)
		return
	}
	l.tell(o, s.aboutDevice(o, stated, l.peer))
}

// aboutDevice is what a device is told of itself: its chain, and without one its newest statement.
func (s *Server) aboutDevice(o *owner, stated []store.Statement, peer identity.Peer) []string {
	pool := append(parseAll(stated), o.people...)
	var newest identity.Signed
	var serial uint64
	released := false
	for _, one := range pool {
		if d, ok := one.Statement.(identity.DeviceStatement); ok && d.Serial > serial {
			newest, serial, released = one, d.Serial, d.Released
		}
	}
	if chain := o.verifier().Gather(pool, peer); chain != nil && !released {
		return chain
	}
	if serial == 0 {
		return nil
	}
	return append([]string{newest.JWS}, o.signersOf(newest)...)
}

// greet sends who has just been attached what its hello does not know.
func (s *Server) greet(ctx context.Context, l *link, stated []store.Statement) {
	s.takeReset(ctx, l.peer.Name.Domain)
	o, err := s.owner(ctx, l.peer.Name.Domain)
	if err != nil {
		s.logFailure("statements are not sent", err, "uid", l.peer.Name.ID)
		return
	}
	var about []string
	for _, row := range stated {
		if row.Typ == typDevice && uint64(row.Serial) > l.hello.Device {
			about = s.aboutDevice(o, stated, l.peer)
			break
		}
	}
	l.tell(o, about)
}

// tell sends lists that the device has not been sent and does not have, and what is new about itself.
func (l *link) tell(o *owner, about []string) {
	l.mu.Lock()
	var reset []byte
	if l.domainKey() != o.Key.SPKI() {
		reset = o.reset
		about = append(o.changes(), about...) // first: it makes the rest count
		l.toldKey = o.Key.SPKI()
	}
	// A device that knows of a greater serial than there is may have it from a thief, whose end is in one of these.
	ahead := l.hello.List > o.union.NewestBeside(o.Key, o.union.Entries())
	texts, ids := o.news(maxNews, func(list ownerList) bool {
		return !l.told[list.id] && (ahead || list.serial > l.hello.List || list.at.After(l.since))
	})
	if l.told == nil {
		l.told = make(map[store.Hash]bool)
	}
	for _, id := range ids {
		l.told[id] = true
	}
	l.mu.Unlock()
	if sizeOf(about)+sizeOf(texts) > maxNews { // a long list has a frame to itself
		l.send(encode(wire.TypeStatements, wire.Statements{Statements: about, DomainReset: reset}))
		about, reset = nil, nil
	}
	if texts = append(about, texts...); len(texts) > 0 || reset != nil {
		l.send(encode(wire.TypeStatements, wire.Statements{Statements: texts, DomainReset: reset}))
	}
}

// domainKey is the one that the device knows of, by its hello or because it was told. The caller holds mu.
func (l *link) domainKey() identity.SPKI {
	if !l.toldKey.IsZero() {
		return l.toldKey
	}
	return l.hello.DomainKey
}

// keepKey takes a device's own word that this key is its, which its invite has signed. Without it nobody has a chain of the
// device, so it is written before the device is attached. What is wrong with it is the device's loss, and no reason to
// refuse it.
func (s *Server) keepKey(ctx context.Context, peer identity.Peer, jws string, stated []store.Statement) []store.Statement {
	if slices.ContainsFunc(stated, func(has store.Statement) bool { return has.JWS == jws }) {
		return stated
	}
	one, err := identity.ParseStatement(jws)
	if err != nil {
		return stated
	}
	key, ok := one.Statement.(identity.KeyStatement)
	if !ok || key.UID.IsZero() || identity.DeviceName(key.Domain, key.UID) != peer.Name || key.Key.SPKI() != peer.SPKI {
		s.log.Debug("a device's own key is not kept", "uid", peer.Name.ID, "err", "it is about somebody else")
		return stated
	}
	o, err := s.owner(ctx, peer.Name.Domain)
	if err != nil {
		s.logFailure("a device's own key is not kept", err, "uid", peer.Name.ID)
		return stated
	}
	pool := append(parseAll(stated), o.people...)
	row := rowOf(peer.Name.Domain, one, pool, s.now())
	err = o.verifier().Keep(one, pool, o.at(s.now()))
	if err == nil {
		err = roomFor(row, one, stated)
	}
	if err != nil {
		s.log.Debug("a device's own key is not kept", "uid", peer.Name.ID, "err", err)
		return stated
	}
	if err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(row) }); err != nil {
		s.logFailure("a device's own key is not kept", err, "uid", peer.Name.ID)
		return stated
	}
	return append(stated, *row)
}

// applyStatements is a change that another node has kept.
func (s *Server) applyStatements(ctx context.Context, subject string) error {
	var c statementsChange
	if err := json.Unmarshal([]byte(subject), &c); err != nil {
		return err
	}
	if c.Device.IsZero() {
		s.owners.drop(c.Domain)
		s.tellLists(ctx, c.Domain)
		return nil
	}
	s.tellDevice(ctx, identity.DeviceName(c.Domain, c.Device))
	return nil
}
