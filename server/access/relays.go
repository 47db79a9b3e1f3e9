package access

import (
	"context"
	"errors"
	"net/http"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// getRelays returns where the online relays can be reached, so that the Manager can measure them. They are all in
// memory, so that pages cost no transaction.
func (s *Server) getRelays(r request) (int, any, error) {
	limit, err := r.limit()
	if err != nil {
		return 0, nil, err
	}
	var after string
	if err := r.cursor(&after); err != nil {
		return 0, nil, err
	}
	page := api.Relays{Relays: []wire.Relay{}}
	for _, relay := range s.presence.pool().Relays {
		if relay.Name <= after {
			continue
		}
		// After the name and not at an index: relays come and go between two pages.
		if len(page.Relays) == limit {
			page.Next = cursorOf(page.Relays[limit-1].Name)
			break
		}
		page.Relays = append(page.Relays, relay)
	}
	return http.StatusOK, page, nil
}

func (s *Server) postRelays(r request) (int, any, error) {
	var body api.RelayRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	var m store.Member
	var code identity.Code
	err := s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
		if err := runsInfrastructure(tx, r.caller); err != nil {
			return err
		}
		if err := identity.CheckLabel(body.Name); err != nil {
			return refuse(api.BadRequest, "name: "+err.Error())
		}
		at := store.RelayAddresses{Relay: body.Name, Hosts: body.Hosts, Ports: body.Ports}
		if len(at.Ports) == 0 {
			at.Ports = transport.DefaultPorts()
		}
		if err := checkAddresses(at.Hosts, at.Ports); err != nil || len(at.Hosts) == 0 {
			return refuse(api.BadRequest, "hosts, ports: want those on which clients reach the relay: 1 to 8 names or IP addresses, at most 8 ports")
		}
		// Grants and certificates name a relay, so its name is never used again.
		m, code, err = newMember(tx, store.Member{Kind: identity.KindRelay, ID: body.Name, Name: body.Name, Created: s.now().UTC()})
		if errors.Is(err, store.ErrExists) {
			return refuse(api.NameTaken, "another relay has this name")
		} else if err != nil {
			return err
		}
		if err := tx.Put(&at); err != nil {
			return err
		}
		return tx.Append(s.record(actionRelayAdd, r.caller.peer.Name.String(), m.Identity(), nil, ""))
	})
	return http.StatusCreated, api.NewRelay{Name: m.Name, Code: code.String(), Expires: m.CodeExpires}, err
}

// runsInfrastructure refuses a caller whose domain is not the one that was made with the infrastructure: a relay
// carries the sessions of all domains.
func runsInfrastructure(tx *store.Tx, c caller) error {
	d := store.Domain{Name: c.domain()}
	if err := tx.Get(&d); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if !d.Infrastructure {
		return refuse(transport.Policy, "only admins of the infrastructure's own domain manage relays")
	}
	return nil
}

// postMeasurements adds what the Manager on the caller's machine has measured. They are kept by the key and not by the
// user: a technician has a PC in the office and a laptop on the road.
func (s *Server) postMeasurements(r request) (int, any, error) {
	var body api.Measurements
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	list, err := checkMeasurements(body)
	if err != nil {
		return 0, nil, refuse(api.BadRequest, err.Error())
	}
	err = s.noteMeasurements(r.Context(), measuredByManager(r.caller.peer.SPKI), list)
	return http.StatusNoContent, nil, err
}

// getDeviceRelays returns what would be decided now. It does not store that, so the incumbent stays.
func (s *Server) getDeviceRelays(r request) (int, any, error) {
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	switch r.URL.Query().Get("measure") {
	case "", "0":
	// The device measures now, which takes seconds and its data: only a person who waits asks for it.
	case "1":
		if err := s.measureNow(r.Context(), m.Identity()); err != nil {
			return 0, nil, err
		}
	default:
		return 0, nil, refuse(api.BadRequest, "measure is not 0 or 1")
	}
	// For nobody's loss: no relay is left out, as it would be in a move.
	d, err := s.decide(r.Context(), r.caller.peer, m.UID(), "")
	return http.StatusOK, d, err
}

// measureNow asks a device to measure and waits for it. An offline device is no error: its old numbers are shown.
func (s *Server) measureNow(ctx context.Context, device identity.Name) error {
	runtime, err := s.locate(ctx, device)
	if err != nil || runtime == nil {
		return err
	}
	return s.requestMeasurements(ctx, runtime)
}
