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
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// who may call a route (access §6), each of whom may call what those before may. The zero value is nobody: a route whose
// line says nothing is closed.
type who int

const (
	nobody         who = iota
	anyone             // no certificate; the body may have a code
	key                // a user's certificate that may have expired; not revoked
	user               // a valid one; the owner may not have stated its key yet
	viewer             // whom the owner has stated
	operator           // who may connect, by the owner's statement
	admin              // who may state others
	infrastructure     // an admin of the domain that runs the infrastructure
)

// route is one line of the table of access §6. Segments in braces are variables. handle returns the status and body of
// success.
type route struct {
	method, pattern string
	who             who
	handle          func(*Server, request) (status int, body any, err error)
}

// routes is the whole API. Who may call what is in this one table, and a test asks each route as each kind of caller.
func routes() []route {
	return []route{
		{http.MethodPost, "/api/v1/login", anyone, (*Server).postLogin},
		{http.MethodPost, "/api/v1/time", anyone, (*Server).postTime},
		{http.MethodPost, "/api/v1/renew", key, (*Server).postRenew},
		{http.MethodPost, "/api/v1/logout", user, (*Server).postLogout},
		{http.MethodPost, "/api/v1/code", viewer, (*Server).postCode},
		{http.MethodGet, "/api/v1/statements", user, (*Server).getStatements},
		{http.MethodPost, "/api/v1/statements", user, (*Server).postStatements},
		{http.MethodGet, "/api/v1/users", admin, (*Server).getUsers},
		{http.MethodPost, "/api/v1/users", admin, (*Server).postUsers},
		{http.MethodPost, "/api/v1/users/{user}/code", admin, (*Server).postUserCode},
		{http.MethodPost, "/api/v1/users/{user}/revoke", admin, (*Server).postUserRevoke},
		{http.MethodGet, "/api/v1/devices", viewer, (*Server).getDevices},
		{http.MethodPost, "/api/v1/devices", admin, (*Server).postDevices},
		{http.MethodPost, "/api/v1/batches", admin, (*Server).postBatches},
		{http.MethodPost, "/api/v1/batches/{lookup}/end", admin, (*Server).postBatchEnd},
		{http.MethodGet, "/api/v1/claims/{lookup}", admin, (*Server).getClaim},
		{http.MethodGet, "/api/v1/devices/{device}", viewer, (*Server).getDevice},
		{http.MethodPost, "/api/v1/devices/{device}/code", admin, (*Server).postDeviceCode},
		{http.MethodPost, "/api/v1/devices/{device}/accept", admin, (*Server).postDeviceAccept},
		{http.MethodPost, "/api/v1/devices/{device}/revoke", admin, (*Server).postRevoke},
		{http.MethodGet, "/api/v1/sessions", operator, (*Server).getSessions},
		{http.MethodPost, "/api/v1/sessions", operator, (*Server).postSessions},
		{http.MethodPost, "/api/v1/sessions/{session}/move", operator, (*Server).postMove},
		{http.MethodDelete, "/api/v1/sessions/{session}", operator, (*Server).deleteSession},
		{http.MethodGet, "/api/v1/relays", viewer, (*Server).getRelays},
		{http.MethodPost, "/api/v1/relays", infrastructure, (*Server).postRelays},
		{http.MethodGet, "/api/v1/relays/registered", infrastructure, (*Server).getRegistered},
		{http.MethodPost, "/api/v1/relays/{relay}/revoke", infrastructure, (*Server).postRelayRevoke},
		{http.MethodPost, "/api/v1/measurements", viewer, (*Server).postMeasurements},
		{http.MethodGet, "/api/v1/devices/{device}/relays", viewer, (*Server).getDeviceRelays},
		{http.MethodGet, "/api/v1/audit", operator, (*Server).getAudit},
		{http.MethodGet, "/api/v1/audit/heads", admin, (*Server).getAuditHeads},
		{http.MethodGet, "/api/v1/audit/chain", admin, (*Server).getAuditChain},
	}
}

// match finds the route of a request. http.ServeMux would clean the path and redirect; here it is compared as it was
// sent, segment by segment, so that each object has exactly one path.
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
			// Unescaped after the split, so that an escaped slash stays part of its segment.
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

// errNotFound is the answer for what does not exist and for what belongs to another domain. It is the same byte for
// byte, so that nobody can find out what another domain has (access §6).
var errNotFound = refuse(api.NotFound, "no such object")

// methodError says that a path exists, but only for other methods.
type methodError struct{ methods string }

func (e *methodError) Error() string { return "method not allowed" }

// Unwrap makes it a refusal.
func (e *methodError) Unwrap() error { return refuse(api.MethodNotAllowed, "allowed: "+e.methods) }

// caller is who has sent a request.
type caller struct {
	from   netip.Addr
	peer   identity.Peer          // the zero Peer for anyone
	stated identity.UserStatement // by the owner; zero: nothing yet
	owner  *owner                 // nil for anyone
}

func (c caller) domain() string { return c.peer.Name.Domain }

// sees tells whether a device of the caller's domain is in the scope of his statement. What is not does not exist for him.
func (c caller) sees(m store.Member) bool { return c.stated.Sees(m.UID(), m.Folder) }

// role is what a route wants of a caller's statement.
func (c caller) role() who {
	switch c.stated.Role {
	case identity.RoleViewer:
		return viewer
	case identity.RoleOperator:
		return operator
	case identity.RoleAdmin:
		return infrastructure // of which domain is looked up by the few routes that want it
	}
	return user
}

// authorize looks what the owner has stated of a caller, whom the registry knows, and refuses what that does not reach.
func (s *Server) authorize(ctx context.Context, wanted who, c *caller) (err error) {
	if wanted < user {
		return nil
	}
	if c.owner, err = s.owner(ctx, c.domain()); err != nil {
		return err
	}
	c.stated, err = c.owner.stated(c.peer, s.now())
	switch {
	case wanted == user:
		return nil // to bring a statement is the way out
	case err != nil:
		return err
	case c.role() < wanted:
		return refuse(transport.Policy, "the owner has stated "+c.peer.Name.ID+" as "+string(c.stated.Role))
	}
	return nil
}

// identifyCaller verifies that a connection's client may call a route.
func (s *Server) identifyCaller(ctx context.Context, who who, conn *tls.Conn) (caller, error) {
	c := caller{from: remote(conn).Addr()}
	if who == anyone {
		return c, nil
	}
	var err error
	c.peer, err = s.verifyCaller(who, conn.ConnectionState().PeerCertificates)
	if err != nil {
		return c, err
	}
	return c, s.checkRegistered(ctx, c.peer, who == key)
}

// verifyCaller verifies a client's chain as a route requires.
func (s *Server) verifyCaller(who who, chain []*x509.Certificate) (peer identity.Peer, err error) {
	if len(chain) == 0 {
		return peer, refuse(api.NotLoggedIn, "no client certificate")
	}
	s.refusedNow()
	switch {
	case who == key:
		peer, err = identity.VerifyIgnoringDates(chain, s.cfg.Roots, identity.KindUser)
	case who > key:
		peer, err = identity.Verify(chain, s.cfg.Roots, s.now(), identity.KindUser)
	default:
		return peer, refuse(transport.Policy, "nobody may call this")
	}
	if err != nil {
		return peer, badCertificate(err)
	}
	return peer, nil
}

// checkRegistered refuses a verified user whom the registry does not know by this key: a certificate that was issued
// before the user was revoked or logged out is still valid.
func (s *Server) checkRegistered(ctx context.Context, peer identity.Peer, renewing bool) error {
	var reason transport.Reason
	err := s.store.View(ctx, func(tx *store.Tx) error {
		u := store.User{Domain: peer.Name.Domain, Name: peer.Name.ID}
		if err := tx.Get(&u); errors.Is(err, store.ErrNotFound) {
			return s.orLost(refuse(api.NotLoggedIn, "no such user"))
		} else if err != nil {
			return err
		}
		k := &store.UserKey{Domain: u.Domain, User: u.Name, SPKI: peer.SPKI}
		if err := tx.Get(k); errors.Is(err, store.ErrNotFound) {
			k = nil
		} else if err != nil {
			return err
		}
		reason = judgeUser(u, k, renewing, s.now())
		return nil
	})
	if err != nil {
		return err
	}
	// Whatever became of the row: memory knows a revocation whose row cannot be read any more.
	if s.presence.isRevoked(peer.SPKI) {
		reason = transport.Revoked
	}
	switch reason {
	case "":
		return nil
	case api.NotLoggedIn:
		return s.orLost(refuse(reason, "not accepted by the registry"))
	}
	return refuse(reason, "not accepted by the registry")
}
