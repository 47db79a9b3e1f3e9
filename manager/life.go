package manager

import (
	"context"
	"errors"
	"net/http"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// RevokeDevice shuts a device out for good: by a list that every Manager and the gateway itself learn, and in the registry.
// Its sessions end at once. There is no way back: its keys are never accepted again, and the gateway is enrolled anew as
// another device.
func (a *Account) RevokeDevice(ctx context.Context, typed string) (d api.Device, err error) {
	if _, err := devicePath(typed); err != nil {
		return d, err
	}
	op := "revoke device " + typed
	pool, p, stated, err := a.about(ctx, typed)
	if err != nil {
		return d, err
	}
	serial, err := a.serial(pool, identity.Subject{UID: stated.UID})
	if err != nil {
		return d, err
	}
	entries := entriesOf(stated.UID, serial, a.keysOf(ctx, pool, identity.Subject{UID: stated.UID}))
	return d, a.strike(ctx, op, p, entries, nil, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, pathOf(stated.UID)+"/revoke", api.Statements{Statements: texts}, &d)
	})
}

// about is what every command about a device begins with: what is stated, what signs, and the newest word about this one.
func (a *Account) about(ctx context.Context, typed string) (pool statements, p pen, stated identity.DeviceStatement, err error) {
	if pool, err = a.readAndConfirm(ctx); err != nil {
		return nil, p, stated, err
	}
	if p, err = a.pen(false); err != nil {
		return nil, p, stated, err
	}
	stated, err = a.device(pool, typed)
	return pool, p, stated, err
}

// pathOf is the path of a device that the owner's statement names.
func pathOf(uid identity.UID) string { return "/devices/" + uid.String() }

// RenameDevice states a device under another name. Reason name-taken when the domain has one of that name.
func (a *Account) RenameDevice(ctx context.Context, typed, name string) (api.Device, error) {
	return a.place(ctx, "rename device", typed, func(s *identity.DeviceStatement) error {
		s.Name = name
		return checkPlace(s.Name, s.Folder)
	})
}

// MoveDevice states a device in another folder; empty is none.
func (a *Account) MoveDevice(ctx context.Context, typed, folder string) (api.Device, error) {
	return a.place(ctx, "move device", typed, func(s *identity.DeviceStatement) error {
		s.Folder = folder
		return checkPlace(s.Name, s.Folder)
	})
}

// place signs a newer statement about a device. The registry follows it, and the gateway is told.
func (a *Account) place(ctx context.Context, op, typed string, change func(*identity.DeviceStatement) error) (d api.Device, err error) {
	if err := checkTyped(typed); err != nil {
		return d, err
	}
	if err := change(&identity.DeviceStatement{Name: "x"}); err != nil { // before anything is asked
		return d, err
	}
	pool, p, stated, err := a.about(ctx, typed)
	if err != nil {
		return d, err
	}
	if err := change(&stated); err != nil {
		return d, err
	}
	if stated.Released {
		return d, fail(transport.Policy, op+" "+typed, errors.New("it was released: add it anew"))
	}
	if stated.Serial, err = a.serial(pool, identity.Subject{UID: stated.UID}); err != nil {
		return d, err
	}
	stated.Seen = p.seen
	signed, err := identity.Sign(stated, p.key)
	if err != nil {
		return d, err
	}
	op += " " + typed
	texts := append([]string{signed.JWS}, p.signers...)
	if err := a.do(ctx, op, http.MethodPost, "/statements", api.Statements{Statements: texts}, nil); err != nil {
		return d, err
	}
	if err := a.learn(stated, texts); err != nil {
		return d, err
	}
	return d, a.do(ctx, op, http.MethodGet, pathOf(stated.UID), nil, &d)
}

// DeviceCode makes another code for a device: for new hardware, or because the last one was lost. The codes before it are
// worth nothing from then on. When the gateway that enrolls with it has its key confirmed, that of the old one is listed.
func (a *Account) DeviceCode(ctx context.Context, typed string) (d NewDevice, err error) {
	if err := checkTyped(typed); err != nil {
		return d, err
	}
	pool, p, stated, err := a.about(ctx, typed)
	if err != nil {
		return d, err
	}
	op := "make code for " + typed
	if stated.Released {
		return d, fail(transport.Policy, op, errors.New("it was released: add it anew"))
	}
	// Stated again: what came with an earlier code is older than that, and can be listed by it.
	if stated.Serial, err = a.serial(pool, identity.Subject{UID: stated.UID}); err != nil {
		return d, err
	}
	stated.Seen = p.seen
	for range maxTries {
		if d, err = a.deviceCode(ctx, op, pathOf(stated.UID)+"/code", identity.NewOwnerCode(), p, stated); transport.ReasonOf(err) != transport.CodeTaken {
			break
		}
	}
	return d, err
}

// deviceCode signs a statement about a device, gives it a code, and gives the server its part.
func (a *Account) deviceCode(ctx context.Context, op, path string, code identity.OwnerCode, p pen, stated identity.DeviceStatement) (NewDevice, error) {
	d := NewDevice{UID: stated.UID, Name: stated.Name, Folder: stated.Folder}
	subject, err := identity.Sign(stated, p.key)
	if err != nil {
		return d, err
	}
	sent, err := a.invite(code, p, subject, 0, stated.Serial, endOf(stated.Serial, codeLife))
	if err != nil {
		return d, err
	}
	var answer api.NewSubject
	err = a.do(ctx, op, http.MethodPost, path, api.DeviceRequest{Code: sent}, &answer)
	d.Code, d.Expires = code.String(), answer.Expires
	return d, err
}
