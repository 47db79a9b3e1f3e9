package access

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/wire"
)

// control serves a control connection from its hello to its end (access §4). The audit record of the end is written
// after the link is gone, and says why.
func (s *Server) control(ctx context.Context, conn *tls.Conn, hello wire.Hello, leaf identity.SPKI) error {
	l, a, err := s.admit(ctx, conn, hello)
	if err != nil {
		return err
	}
	peer := l.peer
	// Beside the link: a commit may take seconds, and the device waits for its welcome.
	var ending sync.WaitGroup
	// So a process that stops has written what it began.
	defer ending.Wait()
	switch {
	case peer.Name.Kind != identity.KindDevice:
	case a.suspect:
		ending.Go(func() { s.convict(ctx, l) })
	default:
		if !a.cloned && a.join != joinSettled {
			ending.Go(func() { s.settle(ctx, l) })
		}
		ending.Go(func() { s.greet(ctx, l, a.stated) })
	}
	ending.Go(func() {
		for _, r := range a.before {
			s.sessions.load(r)
			s.finishSession(ctx, r.ID, peer.Name.String(), transport.LinkLost)
		}
	})
	// Its socket is closed then; what was read from it before is not worth a wait.
	defer context.AfterFunc(ctx, func() { l.closeWith(&wire.Refusal{Reason: transport.LinkLost}) })()
	err = l.run(s.cfg.Heartbeat, func(f wire.Frame) error { return s.handle(ctx, l, f, leaf) })
	s.counted.detached.Reason(transport.ReasonOf(err))
	s.log.Info("offline", "uid", peer.Name.ID, "addr", l.from, "reason", transport.ReasonOf(err))
	s.auditPresence(actionOffline, l, err, "")
	return nil // the link has told its peer why
}

// arrival is what the store says of who has said hello.
type arrival struct {
	before  []store.Session   // of an earlier process of a device
	stated  []store.Statement // of a device
	join    joinVerdict
	cloned  bool // two machines use this key: the connection is held
	suspect bool // this may be the second one
}

// admit attaches who has said hello. From cheap to dear: certificate, hello, place, database. Whoever fails early has cost
// little.
func (s *Server) admit(ctx context.Context, conn *tls.Conn, hello wire.Hello) (l *link, a arrival, err error) {
	peer, err := s.authenticate(conn)
	if err != nil {
		return nil, a, err
	}
	if err := checkHello(hello, peer.Name.Kind); err != nil {
		return nil, a, err
	}
	look := func() error {
		return s.store.View(ctx, func(tx *store.Tx) error { return s.lookUp(tx, peer, &hello, &a) })
	}
	if peer.Name.Kind == identity.KindDevice {
		// After the certificate was verified: strangers must not take the places of devices that come back.
		attached, refusal := s.admission.enter(s.cluster.state.unwritten(), time.Now())
		if refusal != nil {
			return nil, a, refusal
		}
		defer attached()
		err = s.inTurn(ctx, look)
	} else { // relays are few, and needed by all
		err = look()
	}
	if err != nil {
		return nil, a, err
	}
	apart := a.cloned || a.suspect
	if peer.Name.Kind == identity.KindDevice && !apart {
		a.stated = s.keepKey(ctx, peer, hello.Key, a.stated)
		if a.before, err = s.sessionsBefore(ctx, peer.Name, hello.Instance); err != nil {
			return nil, a, err
		}
	}
	// From here on the link sets its own deadlines, by the pings that the client promises.
	conn.SetDeadline(time.Time{})
	noKeepAlive(conn)
	l = newLink(conn, peer, hello, s.now())
	l.onEnd = func() {
		s.presence.detach(l)
		s.cluster.markDirty(peer.Name)
	}
	welcome := wire.Welcome{
		HeartbeatS: int(s.cfg.Heartbeat / time.Second),
		RenewAfter: halfLife(peer.Leaf.NotBefore, peer.Leaf.NotAfter),
		Reports:    true,
		Cloned:     a.cloned,
	}
	// Before it is attached: from then on it may be replaced, and its end must not stand before its beginning.
	s.auditPresence(actionOnline, l, nil, "version "+hello.Version)
	if apart {
		s.presence.hold(l, welcome)
		s.log.Info("online apart", "uid", peer.Name.ID, "addr", l.from, "cloned", a.cloned)
		return l, a, nil
	}
	s.presence.attach(l, welcome, s.now())
	s.cluster.markDirty(peer.Name)
	s.counted.attached.Inc(string(peer.Name.Kind))
	s.log.Info("online", "uid", peer.Name.ID, "addr", l.from)
	return l, a, nil
}

// lookUp reads what the store has of who has said hello, and refuses whom the registry does not know.
func (s *Server) lookUp(tx *store.Tx, peer identity.Peer, hello *wire.Hello, a *arrival) error {
	*a = arrival{}
	m := store.Member{Kind: peer.Name.Kind, ID: peer.Name.ID}
	refusal := s.readMember(tx, &m, peer)
	if m.Kind == identity.KindRelay && refusal == nil {
		return s.place(tx, m.ID, hello)
	}
	if m.Kind != identity.KindDevice {
		return refusal
	}
	j, err := readJoin(tx, m.ID)
	if err != nil {
		return errors.Join(refusal, err)
	}
	// Its owner may have chosen since: the machine with the key before gets the certificate for its fresh one.
	a.cloned = !j.Cloned.IsZero() && j.SPKI == peer.SPKI
	if refusal != nil && (!a.cloned || transport.ReasonOf(refusal) != transport.WrongKey) {
		return refusal
	}
	j = joinOf(j, peer)
	a.join = judgeJoin(j, s.shown(j, peer, hello.JoinState), hello.Instance, s.now())
	a.suspect = !a.cloned && a.join == joinCloned
	// While they cannot be read, control connections are accepted all the same (access §1.5).
	if a.stated, err = tx.StatementsOf(m.Domain, subjectOf(peer.Name)); errors.Is(err, store.ErrDamaged) {
		err = nil
	}
	return err
}

// authenticate returns the device or relay behind a connection, whose certificate is valid now. Whether the registry has
// its key is looked up by readMember, at every connect: a revocation counts from the moment in which it is written.
func (s *Server) authenticate(conn *tls.Conn) (identity.Peer, error) {
	chain := conn.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return identity.Peer{}, refuse(transport.NotEnrolled, "no client certificate")
	}
	peer, err := identity.Verify(chain, s.cfg.Roots, s.now(), identity.KindDevice, identity.KindRelay)
	if err != nil {
		return identity.Peer{}, badCertificate(err)
	}
	return peer, nil
}

// Limits of a hello.
const (
	maxVersionBytes  = 64
	maxInstanceBytes = 64 // hex digits
	maxHosts         = 8
	maxPorts         = 8
)

// checkHello refuses values that would harm others: a relay's hosts and ports go to every Runtime and Manager, a
// version into logs. Frames that break a limit are a protocol error: no program of ours sends them, so there is nobody
// to advise.
func checkHello(h wire.Hello, kind identity.Kind) error {
	bad := func(what string) error { return fmt.Errorf("%w: hello: %s", wire.ErrFrame, what) }
	_, err := hex.DecodeString(h.Instance)
	switch relay := kind == identity.KindRelay; {
	case len(h.Version) > maxVersionBytes || store.Printable(h.Version) != h.Version:
		return bad("version")
	case err != nil || len(h.Instance) > maxInstanceBytes || relay && h.Instance == "":
		return bad("instance")
	// A relay in the pool that nobody can dial would be chosen for its empty load.
	case relay && (len(h.Hosts) == 0 || len(h.Ports) == 0):
		return bad("a relay without hosts or ports")
	}
	if err := checkAddresses(h.Hosts, h.Ports); err != nil {
		return bad(err.Error())
	}
	return nil
}

// checkAddresses checks where clients are to reach a relay.
func checkAddresses(hosts []string, ports []transport.Port) error {
	if len(hosts) > maxHosts || len(ports) > maxPorts {
		return errors.New("too many hosts or ports")
	}
	for _, host := range hosts {
		if _, port, err := transport.SplitHost(host); err != nil || port != 0 {
			return errors.New("host")
		}
	}
	if slices.Contains(ports, 0) {
		return errors.New("port")
	}
	return nil
}

// place puts a relay where it was said to be when it was added, whatever it says: whoever has stolen it would lead every
// gateway and technician to addresses of his choice (wire §8.3). One that came with the infrastructure has no such row, and
// is where the configuration beside the Access Server says.
func (s *Server) place(tx *store.Tx, relay string, hello *wire.Hello) error {
	at := store.RelayAddresses{Relay: relay}
	if err := tx.Get(&at); errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if !slices.Equal(at.Hosts, hello.Hosts) || !slices.Equal(at.Ports, hello.Ports) {
		s.log.Warn("a relay says that it is elsewhere than it was added for, and is not believed", "relay", relay,
			"hosts", hello.Hosts, "ports", hello.Ports)
	}
	hello.Hosts, hello.Ports = at.Hosts, at.Ports
	return nil
}

// handle acts on one frame of a control connection that is no ping or pong. It runs on the goroutine that reads, so
// frames of one device are handled in order, and a slow store slows that device alone.
func (s *Server) handle(ctx context.Context, l *link, f wire.Frame, leaf identity.SPKI) error {
	switch f.Type {
	case wire.TypeOfferAck:
		var m wire.OfferAck
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.offerAnswered(l, m)
		return nil
	case wire.TypeEndSession:
		var m wire.EndSession
		if err := f.Decode(&m); err != nil {
			return err
		}
		return s.sessionEnded(ctx, l.peer.Name, m)
	case wire.TypeMeasurements:
		if l.apart {
			return nil // whose they are is not known
		}
		return s.measurementsFrom(ctx, l, f)
	case wire.TypeJoinStateAck:
		var m wire.JoinStateAck
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.joinAnswered(ctx, l, m)
		return nil
	case wire.TypeFreshKey:
		return s.freshKeyFrom(ctx, l, f)
	case wire.TypeLoad:
		return s.loadFrom(l, f)
	case wire.TypeReport:
		return s.reportFrom(ctx, l, f)
	// By the same link: a connection of its own each day would cost the gateway a handshake.
	case wire.TypeTimeAgain:
		if raw := s.refusedNow(); raw != nil { // a link may stay up for months
			l.send(message{wire.TypeRefusedKeys, raw})
		}
		answer, err := s.signTime(f, leaf)
		if err != nil {
			return err
		}
		l.send(message{wire.TypeTime, answer})
		if l.peer.Name.Kind == identity.KindDevice && !l.apart && l.joinDue(time.Now()) {
			s.changeJoin(ctx, l)
		}
		return nil
	}
	return unexpected(f)
}

// halfLife returns the middle of a certificate's life, when it is renewed: a second half is left for a server that is
// away.
func halfLife(from, to time.Time) time.Time { return from.Add(to.Sub(from) / 2).UTC() }

// maxPipes is more than any relay can carry.
const maxPipes = 1 << 20

// loadFrom takes the load that a relay reports. It goes to the other nodes with the next row of presence; every node
// chooses by it.
func (s *Server) loadFrom(l *link, f wire.Frame) error {
	if l.peer.Name.Kind != identity.KindRelay {
		return unexpected(f)
	}
	var m wire.Load
	if err := f.Decode(&m); err != nil {
		return err
	}
	// The score divides by Max (access §8).
	if m.Pipes < 0 || m.Pipes > maxPipes || m.Max < 1 || m.Max > maxPipes {
		return fmt.Errorf("%w: load is out of bounds", wire.ErrFrame)
	}
	l.mu.Lock()
	l.load = m
	l.mu.Unlock()
	s.cluster.markDirty(l.peer.Name)
	return nil
}
