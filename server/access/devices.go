package access

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// view makes DEVICE of access §6 from a device's row and, if it is online, its control connection.
func view(m store.Member, a *onlineMember, j store.Join) api.Device {
	v := api.Device{
		UID: m.UID(), Name: m.Name, Folder: m.Folder, Domain: m.Domain, State: api.StatePending, Created: m.Created,
		NotAfter: m.NotAfter, SPKI: m.SPKI, Hints: m.Hints, Lookup: m.Code,
	}
	if m.IsEnrolled() {
		v.State = api.StateEnrolled
	}
	if m.Name == m.ID { // see moveDevice
		v.State = api.StateReleased
	}
	if !m.Revoked.IsZero() {
		v.State = api.StateRevoked
	} else if a != nil {
		v.Online, v.Address, v.Since, v.Hints = true, a.address, a.since, a.hints
	}
	if v.Hints == nil {
		v.Hints = map[string]string{}
	}
	if m.Revoked.IsZero() {
		v.Cloned = cloneOf(j)
	}
	return v
}

// cloneOf is what DEVICE says of a device of which there are two; nil for one of which there are not.
func cloneOf(j store.Join) *api.Clone {
	if j.Cloned.IsZero() {
		return nil
	}
	c := &api.Clone{Since: j.Cloned, Accepted: j.Accepted, Keys: []api.FreshKey{}}
	for _, k := range j.Fresh {
		c.Keys = append(c.Keys, api.FreshKey(k))
	}
	return c
}

// viewNow asks who is online after the row was read: DEVICE says what is now, and not what was when the request came.
func (s *Server) viewNow(ctx context.Context, m store.Member) (api.Device, error) {
	a, err := s.locate(ctx, m.Identity())
	if err != nil {
		return api.Device{}, err
	}
	var j store.Join
	err = s.store.View(ctx, func(tx *store.Tx) (err error) {
		j, err = readJoin(tx, m.ID)
		return err
	})
	return view(m, a, j), err
}

// findDevice reads a device by UID, name, or folder and name. One of another domain, or that the caller does not see,
// counts as not found.
func (s *Server) findDevice(ctx context.Context, c caller, device string) (m store.Member, err error) {
	i := strings.LastIndexByte(device, '/')
	folder, inFolder, device := device[:max(i, 0)], i >= 0, device[i+1:]
	if identity.CheckDisplayName(device) != nil { // a UID passes, too. PostgreSQL must not be asked for just anything
		return m, store.ErrNotFound
	}
	err = s.store.View(ctx, func(tx *store.Tx) (err error) {
		uid, err := identity.ParseUID(device)
		if err != nil {
			m, err = tx.DeviceByName(c.domain(), device)
		} else if inFolder {
			return store.ErrNotFound
		} else {
			m = store.Member{Kind: identity.KindDevice, ID: uid.String()}
			err = tx.Get(&m)
		}
		if errors.Is(err, store.ErrNotFound) || m.Domain == c.domain() && c.sees(m) && (!inFolder || m.Folder == folder) {
			return err
		}
		if errors.Is(err, store.ErrDamaged) {
			return err // nobody knows whose it was
		}
		return store.ErrNotFound
	})
	return m, err
}

// device is findDevice for a route with {device}.
func (s *Server) device(r request) (store.Member, error) {
	m, err := s.findDevice(r.Context(), r.caller, r.vars["device"])
	if errors.Is(err, store.ErrNotFound) {
		err = s.orLost(errNotFound)
	}
	return m, err
}

// maxQuery is how many characters a part of a name can have.
const maxQuery = 64

func (s *Server) getDevices(r request) (int, any, error) {
	query := r.URL.Query()
	f := store.DeviceFilter{Domain: r.caller.domain(), Query: query.Get(api.ParamQuery), State: query.Get(api.ParamState)}
	switch api.DeviceState(f.State) {
	case "", api.StatePending, api.StateEnrolled, api.StateRevoked:
	default:
		return 0, nil, refuse(api.BadRequest, "state is not pending, enrolled or revoked")
	}
	if !utf8.ValidString(f.Query) || strings.Contains(f.Query, "\x00") || utf8.RuneCountInString(f.Query) > maxQuery {
		return 0, nil, refuse(api.BadRequest, "query is not a text of 64 characters at most")
	}
	var err error
	if f.Limit, err = r.limit(); err != nil {
		return 0, nil, err
	}
	if err := r.cursor(&f.After); err != nil {
		return 0, nil, err
	}
	list, more, err := s.devicesSeen(r, f)
	if err != nil {
		return 0, nil, err
	}
	page := api.Devices{Devices: []api.Device{}}
	online, err := s.locateAll(r.Context(), list)
	if err != nil {
		return 0, nil, err
	}
	cloned, err := s.clonedOf(r.Context(), r.caller.domain())
	if err != nil {
		return 0, nil, err
	}
	for _, m := range list {
		page.Devices = append(page.Devices, view(m, online[m.Identity()], cloned[m.ID]))
	}
	if more {
		last := list[len(list)-1]
		page.Next = cursorOf(store.DevicePlace{Name: last.Name, ID: last.ID})
	}
	return http.StatusOK, page, nil
}

// clonedOf are the devices of a domain of which there are two.
func (s *Server) clonedOf(ctx context.Context, domain string) (map[string]store.Join, error) {
	cloned := make(map[string]store.Join)
	return cloned, s.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Cloned(domain)
		for _, j := range list {
			cloned[j.ID] = j
		}
		return err
	})
}

// devicesSeen reads as many devices as fill a page of those that the caller sees. more: there may be more behind it. A full
// page may have been the last one; then the next one is empty. To know it, one row more would be read each time.
func (s *Server) devicesSeen(r request, f store.DeviceFilter) (seen []store.Member, more bool, err error) {
	err = s.store.View(r.Context(), func(tx *store.Tx) error {
		for {
			list, err := tx.Devices(f)
			if err != nil {
				return err
			}
			for _, m := range list {
				if r.caller.sees(m) {
					seen = append(seen, m)
				}
				if len(seen) == f.Limit {
					more = true
					return nil
				}
			}
			if len(list) < f.Limit {
				return nil
			}
			last := list[len(list)-1]
			f.After = store.DevicePlace{Name: last.Name, ID: last.ID}
		}
	})
	return seen, more, err
}

func (s *Server) getDevice(r request) (int, any, error) {
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	v, err := s.viewNow(r.Context(), m)
	return http.StatusOK, v, err
}

// sessionsOf returns the open sessions of a device, those that another node has just opened too. Memory alone would
// miss those; it is what is left when the store cannot be read.
func (s *Server) sessionsOf(ctx context.Context, device identity.UID) (ids []string) {
	for _, r := range s.sessions.of(device) {
		ids = append(ids, r.ID)
	}
	var list []store.Session
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.OpenSessionsOf(device)
		return err
	})
	if err != nil {
		s.log.Error("sessions of other nodes are not looked for", "uid", device, "err", err)
	}
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// postDevices makes a device, which its owner has stated, and keeps the code for its gateway.
func (s *Server) postDevices(r request) (int, any, error) {
	var body api.DeviceRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	var m store.Member
	err := s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (k kept, err error) {
		subject, c, k, err := s.takeCode(tx, o, body.Code, identity.KindDevice, nil)
		known := errors.Is(err, errCodeKnown)
		if err != nil && !known {
			return k, err
		}
		stated := subject.Statement.(identity.DeviceStatement)
		m = s.pending(c, stated)
		if known {
			return k, nil
		}
		if err := addDevice(tx, m, stated); err != nil {
			return k, err
		}
		return k, tx.Append(s.record(actionDeviceAdd, r.caller.peer.Name.String(), m.Identity(), nil, "name "+m.Name))
	})
	return http.StatusCreated, api.NewSubject{UID: m.UID(), Name: m.Name, Expires: m.CodeExpires}, err
}

// addDevice adds a device whose gateway has not enrolled yet.
func addDevice(tx *store.Tx, m store.Member, stated identity.DeviceStatement) error {
	if stated.Released {
		return refuse(api.BadRequest, "a released device")
	}
	if err := nameIsFree(tx, stated); err != nil {
		return err
	}
	err := tx.Insert(&m)
	if errors.Is(err, store.ErrExists) {
		return refuse(transport.CodeTaken, "there is a device with this UID")
	}
	return err
}

// pending is the row of a device that waits for its gateway.
func (s *Server) pending(c store.Code, stated identity.DeviceStatement) store.Member {
	return store.Member{Kind: identity.KindDevice, ID: c.Subject, Domain: c.Domain, Name: stated.Name, Folder: stated.Folder,
		Created: s.now().UTC(), Code: c.Lookup, CodeHash: c.Hash, CodeExpires: c.Expires}
}
