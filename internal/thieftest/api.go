package thieftest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/wire"
)

// Request is one of a Manager.
type Request struct {
	Name string // METHOD /path, below the prefix
	Peer identity.Name
	SPKI identity.SPKI
	Body []byte
}

// Answer is what the server says to a request: a body, nil for none, or a refusal.
type Answer func(Request) (any, error)

// Answer replaces what the server says to a request.
func (s *Server) Answer(name string, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[name] = a
}

// Statements are those that it shows to Managers: all that were in the store, and that came since.
func (s *Server) Statements() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kept)
}

// Show makes it show these statements instead.
func (s *Server) Show(statements []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.Clone(statements)
}

// Asked are the requests of a name so far.
func (s *Server) Asked(name string) (all []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked {
		if r.Name == name {
			all = append(all, r)
		}
	}
	return all
}

// serveAPI answers Managers.
func (s *Server) serveAPI(host *memnet.Host) (stop func(), err error) {
	l, err := host.Listen(80)
	if err != nil {
		return nil, err
	}
	run, server := apitest.Serve(l, s.Leaf, s.serveHTTP)
	s.tasks.Go(run)
	return func() { server.Close() }, nil
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	ask := Request{Name: r.Method + " " + strings.TrimPrefix(r.URL.Path, api.Prefix)}
	ask.Body, _ = io.ReadAll(r.Body)
	ask.Peer, ask.SPKI, _ = peerOf(apitest.Conn(r)) // who logs in has none
	s.mu.Lock()
	s.asked = append(s.asked, ask)
	answer := s.answers[ask.Name]
	s.mu.Unlock()
	if answer == nil {
		answer = s.other
	}
	body, err := answer(ask)
	switch {
	case err != nil:
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(http.StatusForbidden)
		body = api.Problem{Type: "about:blank", Status: http.StatusForbidden, Code: transport.ReasonOf(err),
			Title: err.Error()}
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Content-Type", "application/json")
	}
	json.NewEncoder(w).Encode(body)
}

// honest is what the server says to a request unless the thief wants it otherwise.
func (s *Server) honest() map[string]Answer {
	none := func(Request) (any, error) { return nil, nil }
	return map[string]Answer{
		"POST /sessions":     s.openSession,
		"POST /statements":   s.keep,
		"POST /time":         s.signTime,
		"POST /renew":        s.renew,
		"POST /measurements": none,
		"GET /statements":    func(Request) (any, error) { return api.Statements{Statements: s.Statements()}, nil },
		"GET /users":         func(Request) (any, error) { return api.Users{}, nil },
		"GET /devices":       func(Request) (any, error) { return api.Devices{Devices: []api.Device{}}, nil },
		"GET /relays": func(Request) (any, error) {
			relay, _ := s.relay()
			return api.Relays{Relays: []wire.Relay{relay}}, nil
		},
	}
}

// other answers what has a name in its path.
func (s *Server) other(r Request) (any, error) {
	switch {
	case strings.HasPrefix(r.Name, "DELETE /sessions/"):
		return nil, nil
	case strings.HasPrefix(r.Name, "POST /users") && strings.HasSuffix(r.Name, "/revoke"):
		return s.keep(r)
	case strings.HasPrefix(r.Name, "POST /users"), r.Name == "POST /devices":
		var m struct{ Code json.RawMessage }
		json.Unmarshal(r.Body, &m)
		r.Body = m.Code
		s.keep(r)
		return api.NewSubject{Expires: time.Now().Add(time.Hour)}, nil
	}
	return nil, &wire.Refusal{Reason: api.NotFound}
}

// keep takes the statements of a request, whatever they are.
func (s *Server) keep(r Request) (any, error) {
	var m api.Statements
	if err := json.Unmarshal(r.Body, &m); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, jws := range m.Statements {
		if !slices.Contains(s.kept, jws) {
			s.kept = append(s.kept, jws)
		}
	}
	return nil, nil
}

// signTime signs what his clock says.
func (s *Server) signTime(r Request) (any, error) {
	var m api.TimeRequest
	if err := json.Unmarshal(r.Body, &m); err != nil || len(m.Nonce) != 32 {
		return nil, &wire.Refusal{Reason: api.BadRequest}
	}
	ask := wire.NewTimeRequest([32]byte(m.Nonce), identity.UID{})
	return api.TimeAnswer{Time: s.Time(wire.Frame{Type: wire.TypeTimeRequest, Payload: bytes.Clone(ask[:])}, nil)}, nil
}

// renew certifies whoever asks by the name that he shows, from long ago: for a gateway whose clock the thief has
// stopped, a certificate that begins now is not valid yet.
func (s *Server) renew(r Request) (any, error) {
	var m api.RenewRequest
	if err := json.Unmarshal(r.Body, &m); err != nil {
		return nil, err
	}
	pub, err := identity.ParseCSR(m.CSR)
	if err != nil {
		return nil, err
	}
	chain := s.PKI.Chain(pub, r.Peer, -30*24*time.Hour, 12*time.Hour)
	return api.RenewAnswer{Chain: string(identity.MarshalChain(chain))}, nil
}

// openSession brings a technician to whom Find names.
func (s *Server) openSession(r Request) (any, error) {
	var m api.SessionRequest
	if err := json.Unmarshal(r.Body, &m); err != nil {
		return nil, err
	}
	var d Device
	s.Set(func() {
		if s.Find != nil {
			d = s.Find(m.Device)
		}
	})
	if d.UID == (identity.UID{}) {
		return nil, &wire.Refusal{Reason: transport.NoDevice}
	}
	name := identity.DeviceName(r.Peer.Domain, d.UID)
	technician, end, id := peer{r.Peer, r.SPKI}, peer{name, d.SPKI}, random()
	if d.Self != nil {
		end.spki = identity.CertSPKI(d.Self.Leaf)
	}
	forEnd := s.offer(id, wire.RoleRuntime, end, technician, r.Peer.ID)
	if d.Self != nil {
		s.tasks.Go(func() { s.standIn(d.Self, forEnd) })
	} else if err := s.give(name, forEnd); err != nil {
		return nil, err
	}
	offer := s.offer(id, wire.RoleManager, technician, end, r.Peer.ID)
	offer.PeerSPKI, offer.Statements = d.SPKI, d.Statements
	return api.SessionAnswer{Offer: offer}, nil
}
