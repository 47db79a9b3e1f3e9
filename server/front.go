package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/internal/wait"
	"hawser/server/count"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/record"
)

// What a stranger gets before TLS has finished (wire §1.3).
const (
	handshakeTime  = 10 * time.Second        // from the first byte on
	turnTime       = 2500 * time.Millisecond // of it, at most, for a place among those of the role
	handshakeBytes = 16 << 10                // after the hello; a client's certificates are 2 or 3 KiB
)

// helloPlaces and rolePlaces are how many connections may be in a handshake: with a hello that is not whole, about 8 KiB
// each, and after that, up to 40 KiB each, for each role. Of the descriptors of the process they get one of so many. So
// few of a role at once that they end in time also on a processor that does 50 a second: with four times as many none
// would, all would try again, and that without end.
const (
	helloPlaces, helloShare = 1024, 8
	rolePlaces, roleShare   = 64, 32
)

// How many may wait for their turn, up to 15 KiB each with what the collector has not taken yet. After a restart thousands
// of devices come within 2 s. To wait costs next to nothing, while who is closed comes back after a pause that doubles
// each time: the last ones would be back after a minute, and the server have nothing to do meanwhile.
const (
	roleQueue  = 512
	crowdQueue = 3072 // of devices and relays
	crowdSpare = 4096 // descriptors; of those beyond them a quarter is for that crowd, and small limits for who is in
)

// queueOf is how many may wait for a place of a role, in a process with so many descriptors. It is pure.
func queueOf(alpn string, descriptors int) int {
	most, free := roleQueue, descriptors/roleShare
	if alpn == transport.ALPNAccess {
		most, free = crowdQueue, max(free, (descriptors-crowdSpare)/4)
	}
	if descriptors == 0 {
		return most
	}
	return min(most, free)
}

// How long an accept loop waits after an error, doubled with each one. When the process has no file descriptors left,
// Accept fails at once, and a loop without a pause would use all of the processor.
const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

// A role is what one ALPN protocol leads to (wire §1.2).
type role struct {
	alpn        string
	certificate func() (*tls.Certificate, error)       // the present one
	serve       func(ctx context.Context, c *tls.Conn) // serves and closes a connection
}

// front serves TLS on every port, with every role on each of them. One TLS front for all roles: sites leave one port
// open, and each role must be behind it (wire §1.2).
type front struct {
	roles  []counted
	log    *slog.Logger
	hellos *gate.Gate // of connections whose hello is not whole
	count  *listenCounters

	proxied gate.Throttle
}

// counted is a role with the places for its handshakes. Each has its own: a crowd of one role leaves room for the others.
type counted struct {
	role
	places *gate.Gate
}

// await waits for a place, for so much less time than clients wait for the end of a handshake (wire §8) that one which
// begins is not in vain.
func (r counted) await(ctx context.Context, conn net.Conn) *gate.Place {
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	return r.places.Wait(ctx, conn.RemoteAddr(), func() { conn.Close() })
}

// newFront makes a front for a process that may open so many descriptors; 0 is any number.
func newFront(log *slog.Logger, set *metrics.Set, descriptors int, roles ...role) *front {
	set = count.SetOr(set)
	hellos := gate.Places(helloPlaces, descriptors, helloShare)
	hellos.Patience = 0 // a client's hello comes with its first packets, and then it has no place here any more
	f := &front{log: log, count: newListenCounters(set), hellos: gate.New("hellos", hellos, log, set)}
	for _, r := range roles {
		places := gate.Places(rolePlaces, descriptors, roleShare)
		places.Queue = queueOf(r.alpn, descriptors)
		f.roles = append(f.roles, counted{r, gate.New("handshakes "+r.alpn, places, log, set)})
	}
	return f
}

// serve accepts until ctx is cancelled, closes ln, and returns when every connection that it accepted is over. It has
// no bound for connections after their handshake: each role has its own (wire §5.3, access §4).
func (f *front) serve(ctx context.Context, ln net.Listener) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	pause := firstPause
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			f.count.cannotAccept.Inc()
			f.log.Warn("cannot accept connections", "addr", ln.Addr().String(), "err", err)
			wait.Sleep(ctx, pause)
			pause = min(2*pause, longPause)
			continue
		}
		pause = firstPause
		f.count.accepted.Inc()
		place := f.hellos.Enter(conn.RemoteAddr(), func() { conn.Close() })
		if place == nil {
			conn.Close() // and not queued: its client tries another port or server at once
			continue
		}
		conns.Go(func() { f.handle(ctx, conn, place) })
	}
}

// handle does the handshake and hands the connection to its role. When the role serves, the connection has no place
// here any more: control connections stay for months.
func (f *front) handle(ctx context.Context, conn net.Conn, place *gate.Place) {
	f.count.open.Inc()
	defer f.count.open.Dec()
	began := time.Now()
	until := began.Add(handshakeTime)
	r, hello, err := f.receive(ctx, conn, place, until)
	var tlsConn *tls.Conn
	if err == nil {
		// In turn: after a restart all come back at once, and who is sent away comes back much later than a short wait.
		// Without the place from before: those who wait for one role must not shut the others out.
		place.Leave()
		if place = r.await(ctx, conn); place == nil {
			err = errNoPlace
		}
	}
	if err == nil {
		// As in receive: the stack that a handshake needs is not to stay for as long as the connection.
		var shaking sync.WaitGroup
		shaking.Go(func() { tlsConn, err = f.handshake(ctx, conn, r, hello, until) })
		shaking.Wait()
	}
	f.count.handshake(began, r.role, err)
	defer place.Leave()
	if err != nil {
		conn.Close()
		f.log.Debug("handshake failed", "addr", conn.RemoteAddr().String(), "err", err)
		return
	}
	if r.alpn != webALPN { // who only gets an answer has his place until it is over: no other counts him
		place.Leave()
	}
	r.serve(ctx, tlsConn)
}

// receive reads the hello, and finds the role for which it is. Who sends something else is told so where that helps.
func (f *front) receive(ctx context.Context, conn net.Conn, place *gate.Place, until time.Time) (r counted, hello []byte, err error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	hello, err = readHello(conn, place, until)
	if err != nil {
		switch judgeFirst(hello) {
		case balancer:
			f.warnOfProxy(conn)
			err = errors.Join(errBalancer, err)
		case webUser:
			answerWeb(conn)
			err = errors.Join(errWebUser, err)
		}
		return counted{}, nil, err
	}
	// On a stack of its own, of which TLS takes some KiB: a connection that waits for its turn would keep them.
	var protocols []string
	var reading sync.WaitGroup
	reading.Go(func() { protocols, err = protocolsOf(hello) })
	reading.Wait()
	if err != nil {
		return counted{}, nil, err
	}
	r, ok := f.role(protocols)
	if !ok {
		return counted{}, nil, refuseProtocol(conn)
	}
	return r, hello, nil
}

var (
	errNoPlace  = errors.New("no place for one more handshake")
	errBalancer = errors.New("a PROXY header")
	errWebUser  = errors.New("a plain HTTP request")
)

// handshake finishes TLS, whose hello has been read. Each connection is read record by record until then, because one
// with a relay leaves its TLS later (session §2).
func (f *front) handshake(ctx context.Context, conn net.Conn, r counted, hello []byte, until time.Time) (*tls.Conn, error) {
	cert, err := r.certificate() // for each hello: it may have been renewed since the last one
	if err != nil {
		return nil, errors.Join(err, alert(conn, internalError))
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	under := record.Replay(conn, hello)
	under.Bound(handshakeBytes)
	tlsConn := tls.Server(under, serverTLS(r.alpn, cert))
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	under.Bound(-1)
	if r.alpn != transport.ALPNRelay {
		under.Through()
	}
	return tlsConn, nil
}

// serverTLS asks for client certificates and has their keys proven, but who may come is for the role to judge (wire
// §1.1): an enrolling client has none, and a renewing one's is expired.
func serverTLS(alpn string, cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		NextProtos: []string{alpn}, Certificates: []tls.Certificate{*cert},
		ClientAuth: tls.RequestClientCert, DynamicRecordSizingDisabled: true,
	}
}

// warnOfProxy tells the operator why nobody gets in: clients see a connection that ends after their hello, and blame a
// firewall. A load balancer comes with each client, and strangers must not fill the log, so it says so once a minute.
func (f *front) warnOfProxy(conn net.Conn) {
	if f.proxied.Allow(time.Now()) {
		f.log.Warn("a PROXY header came where TLS was expected: switch the PROXY protocol off in the load balancer", "addr", conn.RemoteAddr().String())
	}
}

// role returns the first role that is among the protocols of a hello.
func (f *front) role(protocols []string) (counted, bool) {
	for _, p := range protocols {
		if i := slices.IndexFunc(f.roles, func(r counted) bool { return r.alpn == p }); i >= 0 {
			return f.roles[i], true
		}
	}
	return counted{}, false
}

var errNoRole = errors.New("hello asks for no role of this server")

// Descriptions of TLS alerts (RFC 8446 §6.2).
const (
	internalError         = 80
	noApplicationProtocol = 120
)

// refuseProtocol sends the alert no_application_protocol (RFC 7301 §3.2), as wire §1.2 wants. Package tls can send it
// only after a hello that has ALPN at all.
func refuseProtocol(conn net.Conn) error {
	return errors.Join(errNoRole, alert(conn, noApplicationProtocol))
}

// alert sends a fatal alert. Nothing is encrypted yet, so these are its bytes.
func alert(conn net.Conn, description byte) error {
	const record, fatal = 21, 2
	conn.SetWriteDeadline(time.Now().Add(webTime))
	_, err := conn.Write([]byte{record, 3, 3, 0, 2, fatal, description})
	return err
}
