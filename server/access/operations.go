package access

import (
	"errors"
	"net/http"
	"strconv"

	"hawser/transport"
	"hawser/transport/wire"
)

// sessionBody and sessionAnswer are those of POST /api/v1/sessions.
type sessionBody struct {
	Device string `json:"device"`
}

type sessionAnswer struct {
	Offer wire.Offer `json:"offer"`
}

func (s *Server) postSessions(r request) (int, any, error) {
	var body sessionBody
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	m, err := s.findDevice(r.Context(), r.caller.domain(), body.Device)
	if errors.Is(err, ErrNotFound) {
		return 0, nil, refuse(transport.NoDevice, "no such device")
	} else if err != nil {
		return 0, nil, err
	}
	offer, err := s.openSession(r.Context(), r.caller.peer, m)
	return http.StatusCreated, sessionAnswer{offer}, err
}

func (s *Server) deleteSession(r request) (int, any, error) {
	id := r.vars["session"]
	if !isID(id) {
		return 0, nil, errNotFound
	}
	record, _, err := load[sessionRecord](r.Context(), s.cfg.Store, bucketSessions, id)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && record.Domain != r.caller.domain():
		return 0, nil, errNotFound
	case err != nil:
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.endSession(r.Context(), id, r.caller.peer.Name.String(), transport.Closed)
}

// Bounds of GET /api/v1/audit.
const (
	defaultAuditLimit = 100
	maxAuditLimit     = 1000
)

func (s *Server) getAudit(r request) (int, any, error) {
	limit := defaultAuditLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxAuditLimit {
			return 0, nil, refuse(codeBadRequest, "limit is not 1 to 1000")
		}
		limit = n
	}
	records, err := readAudit(r.Context(), s.cfg.Store, "", r.caller.domain(), limit)
	return http.StatusOK, map[string]any{"records": records}, err
}
