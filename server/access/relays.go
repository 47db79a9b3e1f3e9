package access

import (
	"context"
	"errors"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// getRelays tells where the relays that are online answer, for the Manager to
// measure them.
func (s *Server) getRelays(request) (int, any, error) {
	return http.StatusOK, s.presence.pool(), nil
}

// relayBody and relayAnswer are those of POST /api/v1/relays.
type relayBody struct {
	Name string `json:"name"`
}

type relayAnswer struct {
	Name    string    `json:"name"`
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

func (s *Server) postRelays(r request) (int, any, error) {
	var body relayBody
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	if err := s.runsInfrastructure(r.Context(), r.caller); err != nil {
		return 0, nil, err
	}
	if err := identity.CheckLabel(body.Name); err != nil {
		return 0, nil, refuse(codeBadRequest, "name: "+err.Error())
	}
	m, code, err := s.addRelay(r.Context(), body.Name)
	if errors.Is(err, ErrConflict) {
		return 0, nil, refuse(codeNameTaken, "another relay has this name")
	} else if err != nil {
		return 0, nil, err
	}
	err = s.audit(r.Context(), actionRelayAdd, r.caller.peer.Name.String(), m.name(), nil, "")
	return http.StatusCreated, relayAnswer{m.Name, code.String(), m.Code.Expires}, err
}

// runsInfrastructure refuses a caller whose domain is not the one that came with
// the infrastructure: relays are everybody's.
func (s *Server) runsInfrastructure(ctx context.Context, c caller) error {
	d, _, err := load[domainRecord](ctx, s.cfg.Store, bucketDomains, c.domain())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if !d.Infrastructure {
		return refuse(transport.Policy, "only users of the infrastructure's own domain may add relays")
	}
	return nil
}

// addRelay makes a relay's record, which is the commit and is made once: its
// name is in grants and certificates, and never another relay's.
func (s *Server) addRelay(ctx context.Context, name string) (memberRecord, identity.Code, error) {
	m := memberRecord{Name: name, Created: s.now().UTC()}
	_, _, err := load[memberRecord](ctx, s.cfg.Store, bucketRelays, name)
	switch {
	case err == nil:
		return m, identity.Code{}, ErrConflict
	case !errors.Is(err, ErrNotFound):
		return m, identity.Code{}, err
	}
	code, ref, err := newCode(ctx, s.cfg.Store, identity.KindRelay, "", name, m.Created)
	if err != nil {
		return m, code, err
	}
	m.Code = ref
	return m, code, save(ctx, s.cfg.Store, bucketRelays, name, m, 0)
}

// postMeasurements takes what the Manager on the caller's machine has measured.
func (s *Server) postMeasurements(r request) (int, any, error) {
	var body wire.Measurements
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	list, err := checkMeasurements(body)
	if err != nil {
		return 0, nil, refuse(codeBadRequest, err.Error())
	}
	err = s.noteMeasurements(r.Context(), measuredByManager(r.caller.peer.SPKI), list)
	return http.StatusNoContent, nil, err
}

// getDeviceRelays tells how it would be decided now. It changes nothing.
func (s *Server) getDeviceRelays(r request) (int, any, error) {
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	switch r.URL.Query().Get("measure") {
	case "", "0":
	case "1":
		if err := s.measureNow(r.Context(), m.name()); err != nil {
			return 0, nil, err
		}
	default:
		return 0, nil, refuse(codeBadRequest, "measure is not 0 or 1")
	}
	d, err := s.decide(r.Context(), r.caller.peer, m.UID, "")
	return http.StatusOK, d, err
}

func (s *Server) measureNow(ctx context.Context, device identity.Name) error {
	runtime, err := s.locate(ctx, device)
	if err != nil || runtime == nil {
		return err
	}
	return s.measure(ctx, runtime)
}
