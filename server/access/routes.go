package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// who may call a route (access §6). The zero value is nobody: a route that
// forgets to say is closed.
type who int

const (
	nobody who = iota
	anyone     // with a code in the body, at most
	user       // a valid, not revoked user certificate
	key        // the same, but its dates may be over
)

// route is one line of the table of access §6. Segments in braces are
// variables. handle returns the status and body of success.
type route struct {
	method, pattern string
	who             who
	handle          func(*Server, request) (status int, body any, err error)
}

// routes is the whole API: what is not here does not exist.
func routes() []route {
	return []route{
		{http.MethodPost, "/api/v1/login", anyone, (*Server).postLogin},
		{http.MethodPost, "/api/v1/renew", key, (*Server).postRenew},
		{http.MethodGet, "/api/v1/devices", user, (*Server).getDevices},
		{http.MethodPost, "/api/v1/devices", user, (*Server).postDevices},
		{http.MethodGet, "/api/v1/devices/{device}", user, (*Server).getDevice},
		{http.MethodPost, "/api/v1/devices/{device}/revoke", user, (*Server).postRevoke},
		{http.MethodPost, "/api/v1/sessions", user, (*Server).postSessions},
		{http.MethodPost, "/api/v1/sessions/{session}/move", user, (*Server).postMove},
		{http.MethodDelete, "/api/v1/sessions/{session}", user, (*Server).deleteSession},
		{http.MethodGet, "/api/v1/relays", user, (*Server).getRelays},
		{http.MethodPost, "/api/v1/relays", user, (*Server).postRelays},
		{http.MethodPost, "/api/v1/measurements", user, (*Server).postMeasurements},
		{http.MethodGet, "/api/v1/devices/{device}/relays", user, (*Server).getDeviceRelays},
		{http.MethodGet, "/api/v1/audit", user, (*Server).getAudit},
	}
}

// match finds the route of a request. The path is compared as it was sent,
// segment by segment: nothing is cleaned, so that no two spellings mean one thing.
func match(table []route, method, path string) (route, map[string]string, error) {
	var allowed []string
	for _, r := range table {
		vars, ok := r.matches(path)
		switch {
		case ok && r.method == method:
			return r, vars, nil
		case ok:
			allowed = append(allowed, r.method)
		}
	}
	if len(allowed) > 0 {
		return route{}, nil, &methodError{strings.Join(allowed, ", ")}
	}
	return route{}, nil, errNotFound
}

func (r route) matches(path string) (map[string]string, bool) {
	pattern, segments := strings.Split(r.pattern, "/"), strings.Split(path, "/")
	if len(pattern) != len(segments) {
		return nil, false
	}
	vars := make(map[string]string)
	for i, p := range pattern {
		name, isVar := strings.CutPrefix(p, "{")
		switch {
		case isVar:
			value, err := url.PathUnescape(segments[i])
			if err != nil || value == "" {
				return nil, false
			}
			vars[strings.TrimSuffix(name, "}")] = value
		case p != segments[i]:
			return nil, false
		}
	}
	return vars, true
}

// errNotFound is the one answer for what does not exist and for what belongs
// to another domain: byte for byte the same (access §6).
var errNotFound = refuse(codeNotFound, "no such object")

// methodError is a path that exists for other methods.
type methodError struct{ methods string }

func (e *methodError) Error() string { return "method not allowed" }

// Unwrap makes it a refusal.
func (e *methodError) Unwrap() error { return refuse(codeMethodNotAllowed, "allowed: "+e.methods) }

// caller is who sent a request.
type caller struct {
	from netip.Addr
	peer identity.Peer // the zero Peer for anyone
}

func (c caller) domain() string { return c.peer.Name.Domain }

// identifyCaller verifies that a connection's client may call a route.
func (s *Server) identifyCaller(ctx context.Context, who who, conn *tls.Conn) (caller, error) {
	c := caller{from: remote(conn).Addr()}
	if who == anyone {
		return c, nil
	}
	var err error
	c.peer, err = s.judgeCaller(who, conn.ConnectionState().PeerCertificates)
	if err != nil {
		return c, err
	}
	return c, s.registered(ctx, c.peer, who == key)
}

// judgeCaller verifies a client's chain as a route wants it.
func (s *Server) judgeCaller(who who, chain []*x509.Certificate) (peer identity.Peer, err error) {
	if len(chain) == 0 {
		return peer, refuse(codeNotLoggedIn, "no client certificate")
	}
	switch who {
	case user:
		peer, err = identity.Verify(chain, s.cfg.Roots, s.now(), identity.KindUser)
	case key:
		peer, err = identity.VerifyIgnoringDates(chain, s.cfg.Roots, identity.KindUser)
	default:
		return peer, refuse(transport.Policy, "nobody may call this")
	}
	if err != nil {
		return peer, unproven(err)
	}
	return peer, nil
}

// registered refuses a verified user whom the registry does not know by this key.
func (s *Server) registered(ctx context.Context, peer identity.Peer, renewing bool) error {
	u, _, err := load[userRecord](ctx, s.cfg.Store, bucketUsers, userKeyOf(peer.Name.Domain, peer.Name.ID))
	if errors.Is(err, ErrNotFound) {
		return refuse(codeNotLoggedIn, "no such user")
	} else if err != nil {
		return err
	}
	reason := judgeUser(u, peer.SPKI, renewing, s.now())
	if s.presence.isRevoked(peer.SPKI) {
		reason = transport.Revoked
	}
	if reason == "" {
		return nil
	}
	return &wire.Refusal{Reason: reason, Text: "not accepted by the registry"}
}
