package manager

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// maxPages bounds one list: a hostile server could always name a next page.
const maxPages = 100

// AddDevice makes a device and its activation code. Reason name-taken when the domain has one of that name. The answer
// has the code, which the server keeps as a hash only: a lost answer means a device to be revoked.
func (a *Account) AddDevice(ctx context.Context, name string) (d api.NewDevice, err error) {
	if err := identity.CheckDisplayName(name); err != nil {
		return d, usage("name: %w", err)
	}
	return d, a.do(ctx, "add device "+name, http.MethodPost, "/devices", api.AddRequest{Name: name}, &d)
}

// Devices lists the devices of the domain. It is never nil, so that JSON has a list.
func (a *Account) Devices(ctx context.Context) ([]api.Device, error) {
	all := []api.Device{}
	const op = "list devices"
	return all, pages(op, "/devices", func(page string) (string, error) {
		var answer api.Devices
		err := a.do(ctx, op, http.MethodGet, page, nil, &answer)
		all = append(all, answer.Devices...)
		return answer.Next, err
	})
}

// pages reads a list (access §6): it calls get with the path of each page, until there is no next one.
func pages(op, path string, get func(page string) (next string, err error)) error {
	query := url.Values{api.ParamLimit: {strconv.Itoa(api.MaxLimit)}}
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
