package manager

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// maxPages bounds one list: a hostile server could always name a next page.
const maxPages = 100

// codeLife is how long a code can be used (identity §13.3).
const codeLife = 72 * time.Hour

// NewDevice is a device that waits for its gateway.
type NewDevice struct {
	UID     identity.UID `json:"uid"`
	Name    string       `json:"name"`
	Code    string       `json:"code"` // shown once; no server has it
	Expires time.Time    `json:"expires"`
}

// AddDevice states a device and makes the code for its gateway. Reason name-taken when the domain has one of that name. The
// code is printed when the server has taken what belongs to it, and not before.
func (a *Account) AddDevice(ctx context.Context, name string) (d NewDevice, err error) {
	op := "add device " + name
	if err := identity.CheckDisplayName(name); err != nil {
		return d, usage("name: %w", err)
	}
	if _, err := identity.ParseUID(name); err == nil {
		return d, usage("name: it would be taken for a UID")
	}
	if _, err := a.readAndConfirm(ctx); err != nil {
		return d, err
	}
	p, err := a.pen(false)
	if err != nil {
		return d, err
	}
	for range maxTries {
		if d, err = a.addDevice(ctx, op, p, name); transport.ReasonOf(err) != transport.CodeTaken {
			break
		}
	}
	return d, err
}

func (a *Account) addDevice(ctx context.Context, op string, p pen, name string) (NewDevice, error) {
	d := NewDevice{UID: identity.NewUID(), Name: name}
	serial, err := a.serial(nil, identity.Subject{UID: d.UID})
	if err != nil {
		return d, err
	}
	subject, err := identity.Sign(identity.DeviceStatement{Domain: a.state.config.Domain, UID: d.UID, Name: name, Serial: serial, Seen: p.seen}, p.key)
	if err != nil {
		return d, err
	}
	code, sent, err := a.invite(p, subject, serial, codeLife)
	if err != nil {
		return d, err
	}
	var answer api.NewSubject
	err = a.do(ctx, op, http.MethodPost, "/devices", api.DeviceRequest{Code: sent}, &answer)
	d.Code, d.Expires = code.String(), answer.Expires
	return d, err
}

// Devices lists the devices of the domain. It is never nil, so that JSON has a list.
func (a *Account) Devices(ctx context.Context) ([]api.Device, error) {
	all := []api.Device{}
	const op = "list devices"
	return all, pages(op, "/devices", api.MaxLimit, func(page string) (string, error) {
		var answer api.Devices
		err := a.do(ctx, op, http.MethodGet, page, nil, &answer)
		all = append(all, answer.Devices...)
		return answer.Next, err
	})
}

// pages reads a list (access §6): it calls get with the path of each page of so many entries, until there is no next one.
func pages(op, path string, limit int, get func(page string) (next string, err error)) error {
	query := url.Values{api.ParamLimit: {strconv.Itoa(limit)}}
	for range maxPages {
		next, err := get(path + "?" + query.Encode())
		if err != nil || next == "" {
			return err
		}
		query.Set(api.ParamAfter, next)
	}
	return fail(transport.Protocol, op, errors.New("the list has no end"))
}

// Device finds a device by UID or name. Reason not-found or no-device when the domain has none.
func (a *Account) Device(ctx context.Context, device string) (d api.Device, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	return d, a.do(ctx, "show device "+device, http.MethodGet, path, nil, &d)
}

// RevokeDevice shuts a device out for good and ends its sessions. There is no way back: the key is never accepted
// again, and the gateway is enrolled anew as another device.
func (a *Account) RevokeDevice(ctx context.Context, device string) (d api.Device, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	return d, a.do(ctx, "revoke device "+device, http.MethodPost, path+"/revoke", nil, &d)
}

// devicePath is the path of DEVICE. The check of names covers UIDs too. Checked here, so that a typing error is found
// without a network.
func devicePath(device string) (string, error) {
	if err := identity.CheckDisplayName(device); err != nil {
		return "", usage("device: neither a UID nor a name: %w", err)
	}
	return "/devices/" + url.PathEscape(device), nil
}

// Audit returns the newest records of the domain, newest last: limit of them, 1 to api.MaxLimit.
func (a *Account) Audit(ctx context.Context, limit int) ([]api.Record, error) {
	if limit < 1 || limit > api.MaxLimit {
		return nil, usage("limit %d: want 1 to %d", limit, api.MaxLimit)
	}
	var answer api.Records
	path := "/audit?" + url.Values{api.ParamLimit: {strconv.Itoa(limit)}}.Encode()
	err := a.do(ctx, "read audit", http.MethodGet, path, nil, &answer)
	return list(answer.Records), err
}

// list is never nil: an empty list is a list in JSON too.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
