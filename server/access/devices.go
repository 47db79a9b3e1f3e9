package access

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"hawser/identity"
)

// deviceView is DEVICE of access §6.
type deviceView struct {
	UID      identity.UID      `json:"uid"`
	Name     string            `json:"name"`
	Domain   string            `json:"domain"`
	State    string            `json:"state"` // pending, enrolled or revoked
	Online   bool              `json:"online"`
	Address  string            `json:"address"`         // of its control connection; empty when offline
	Since    *time.Time        `json:"since,omitempty"` // of its control connection
	Created  time.Time         `json:"created"`
	NotAfter *time.Time        `json:"not_after,omitempty"`
	SPKI     identity.SPKI     `json:"spki_sha256"`
	Hints    map[string]string `json:"hints"`
}

func (s *Server) view(ctx context.Context, m memberRecord) (deviceView, error) {
	v := deviceView{UID: m.UID, Name: m.Name, Domain: m.Domain, State: "pending", Created: m.Created, Hints: m.Hints}
	if m.Enrolled != nil {
		v.State, v.SPKI, v.NotAfter = "enrolled", m.Enrolled.SPKI, &m.Enrolled.NotAfter
	}
	if m.Revoked != nil {
		v.State = "revoked"
	} else if a, err := s.locate(ctx, m.name()); err != nil {
		return v, err
	} else if a != nil {
		v.Online, v.Address, v.Since, v.Hints = true, a.address, &a.since, a.hints
	}
	if v.Hints == nil {
		v.Hints = map[string]string{}
	}
	return v, nil
}

// findDevice returns a device of a domain by UID or name. One of another
// domain does not exist.
func (s *Server) findDevice(ctx context.Context, domain, device string) (memberRecord, error) {
	uid, err := identity.ParseUID(device)
	if err != nil {
		name, _, err := load[nameRecord](ctx, s.cfg.Store, bucketNames, nameKeyOf(domain, device))
		if err != nil {
			return memberRecord{}, err
		}
		uid = name.UID
	}
	m, _, err := load[memberRecord](ctx, s.cfg.Store, bucketDevices, uid.String())
	if err == nil && m.Domain != domain {
		err = ErrNotFound
	}
	return m, err
}

// device is findDevice for a route with {device}.
func (s *Server) device(r request) (memberRecord, error) {
	m, err := s.findDevice(r.Context(), r.caller.domain(), r.vars["device"])
	if errors.Is(err, ErrNotFound) {
		err = errNotFound
	}
	return m, err
}

func (s *Server) getDevices(r request) (int, any, error) {
	names, err := list[nameRecord](r.Context(), s.cfg.Store, bucketNames, r.caller.domain()+".")
	if err != nil {
		return 0, nil, err
	}
	views := []deviceView{}
	for _, n := range names {
		m, _, err := load[memberRecord](r.Context(), s.cfg.Store, bucketDevices, n.UID.String())
		switch {
		case errors.Is(err, ErrNotFound): // being made at this moment
		case err != nil:
			return 0, nil, err
		default:
			v, err := s.view(r.Context(), m)
			if err != nil {
				return 0, nil, err
			}
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b deviceView) int { return strings.Compare(a.Name, b.Name) })
	return http.StatusOK, map[string]any{"devices": views}, nil
}

func (s *Server) getDevice(r request) (int, any, error) {
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	v, err := s.view(r.Context(), m)
	return http.StatusOK, v, err
}

func (s *Server) postRevoke(r request) (int, any, error) {
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	if m, err = s.revoke(r.Context(), r.caller.peer, m.UID); err != nil {
		return 0, nil, err
	}
	v, err := s.view(r.Context(), m)
	return http.StatusOK, v, err
}

// addBody and addAnswer are those of POST /api/v1/devices.
type addBody struct {
	Name string `json:"name"`
}

type addAnswer struct {
	UID     identity.UID `json:"uid"`
	Name    string       `json:"name"`
	Code    string       `json:"code"`
	Expires time.Time    `json:"expires"`
}

func (s *Server) postDevices(r request) (int, any, error) {
	var body addBody
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	if err := identity.CheckDisplayName(body.Name); err != nil {
		return 0, nil, refuse(codeBadRequest, "name: "+err.Error())
	}
	if _, err := identity.ParseUID(body.Name); err == nil {
		return 0, nil, refuse(codeBadRequest, "name: it would be taken for a UID")
	}
	m, code, err := s.addDevice(r.Context(), r.caller.domain(), body.Name)
	if err != nil {
		return 0, nil, err
	}
	err = s.audit(r.Context(), actionDeviceAdd, r.caller.peer.Name.String(), m.name(), nil, "name "+m.Name)
	return http.StatusCreated, addAnswer{m.UID, m.Name, code.String(), m.Code.Expires}, err
}

// addDevice makes a device's record, which is the commit; name and code before
// it are only reservations.
func (s *Server) addDevice(ctx context.Context, domain, name string) (memberRecord, identity.Code, error) {
	now := s.now().UTC()
	m := memberRecord{Domain: domain, UID: identity.NewUID(), Name: name, Created: now}
	if err := s.claimName(ctx, nameKeyOf(domain, name), nameRecord{m.UID, now}); err != nil {
		return m, identity.Code{}, err
	}
	code, ref, err := newCode(ctx, s.cfg.Store, identity.KindDevice, domain, m.UID.String(), now)
	if err != nil {
		return m, code, err
	}
	m.Code = ref
	return m, code, save(ctx, s.cfg.Store, bucketDevices, m.UID.String(), m, 0)
}

// claimGrace is how long a name stays reserved for a device that is not there.
const claimGrace = time.Minute

// claimName reserves a name. It takes over that of a revoked device, so that a
// replacement can have it, and a reservation without a device: that is left
// from a server that died in between.
func (s *Server) claimName(ctx context.Context, at string, n nameRecord) error {
	err := save(ctx, s.cfg.Store, bucketNames, at, n, 0)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	taken := refuse(codeNameTaken, "another device has this name")
	old, revision, err := load[nameRecord](ctx, s.cfg.Store, bucketNames, at)
	if err != nil {
		return err
	}
	m, _, err := load[memberRecord](ctx, s.cfg.Store, bucketDevices, old.UID.String())
	missing := errors.Is(err, ErrNotFound)
	switch {
	case err != nil && !missing:
		return err
	case missing && n.Created.Sub(old.Created) < claimGrace, !missing && m.Revoked == nil:
		return taken
	}
	if err = save(ctx, s.cfg.Store, bucketNames, at, n, revision); errors.Is(err, ErrConflict) {
		return taken
	}
	return err
}
