package access

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/identity"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// What those may have who have not proven who they are (access §4.1).
const (
	anonymousTime = 15 * time.Second // an API connection, with its one request
	strangerRetry = 10 * time.Second // who finds no place
)

// places are for connections after TLS. Who is attached, or whose request was that of a registered user, has none and needs
// none.
type places struct {
	anonymous *gate.Gate // API connections without a user's certificate
	strangers *gate.Gate // connections to enroll, without a certificate
	purposes  *gate.Gate // of devices and relays that have not said what they want, and of users before a request of theirs
	refusals  *gate.Gate // of those who are told that there is no place
}

func newPlaces(descriptors int, log *slog.Logger, set *metrics.Set) places {
	return places{
		anonymous: gate.New("anonymous API connections", gate.Places(128, descriptors, 16), log, set),
		strangers: gate.New("connections without a certificate", gate.Places(128, descriptors, 8), log, set),
		purposes:  gate.New("connections without a purpose", gate.Places(1024, descriptors, 16), log, set),
		refusals:  gate.New("refusals", gate.Places(32, descriptors, 32), log, set),
	}
}

// enter gives a place to a connection. If the place is taken from it, its socket is closed: TLS would wait for a write
// that blocks.
func enter(g *gate.Gate, conn *tls.Conn) *gate.Place {
	return g.Enter(conn.RemoteAddr(), func() { conn.NetConn().Close() })
}

// holds reports whether a client has shown a certificate of such a kind, valid or expired. It has proven its key in TLS.
func (s *Server) holds(conn *tls.Conn, kinds ...identity.Kind) bool {
	chain := conn.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return false
	}
	_, err := identity.VerifyIgnoringDates(chain, s.cfg.Roots, kinds...)
	return err == nil
}

// placeFor gives a connection a place: among those whose clients have a certificate of such a kind, or among the others. It
// is nil when there is none.
func (s *Server) placeFor(conn *tls.Conn, others *gate.Gate, kinds ...identity.Kind) (place *gate.Place, known bool) {
	if s.holds(conn, kinds...) {
		return enter(s.places.purposes, conn), true
	}
	return enter(others, conn), false
}

// turnAway lets a client be told that there is no place, as long as there is one to tell it.
func (s *Server) turnAway(conn *tls.Conn, tell func(*tls.Conn) error) {
	place := enter(s.places.refusals, conn)
	if place == nil {
		return
	}
	defer place.Leave()
	conn.SetDeadline(time.Now().Add(endTimeout))
	if tell(conn) == nil {
		linger(conn)
	}
}

// tellNoPlace is for a client of hawser-access/1.
func tellNoPlace(conn *tls.Conn) error { return wire.Refuse(conn, noPlace()) }

// tellNoPlaceAPI reads before it answers: net/http's client takes an answer that comes before its request for a broken
// connection.
func tellNoPlaceAPI(conn *tls.Conn) error {
	if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
		return err
	}
	problem := problemOf(noPlace())
	body, err := json.Marshal(problem)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nRetry-After: %d\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		problem.Status, problem.Title, strangerRetry/time.Second, api.ProblemType, len(body), body)
	return err
}

func noPlace() *wire.Refusal {
	return &wire.Refusal{Reason: transport.Busy, Text: "many connect at once", RetryAfter: strangerRetry}
}

// linger waits until the peer has read a refusal. Closing a socket with unread bytes resets the connection, and the
// peer's kernel then throws the refusal away.
func linger(conn *tls.Conn) {
	const mostBytes = 64 << 10
	defer time.AfterFunc(endTimeout, func() { conn.NetConn().Close() }).Stop()
	conn.CloseWrite()
	io.CopyN(io.Discard, conn.NetConn(), mostBytes)
}
