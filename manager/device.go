package manager

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// maxPages bounds one list: a hostile server could always name a next page.
const maxPages = 1000

// codeLife is how long a code can be used (identity §13.3).
const codeLife = 72 * time.Hour

// NewDevice is a device that waits for its gateway.
type NewDevice struct {
	UID     identity.UID `json:"uid"`
	Name    string       `json:"name"`
	Folder  string       `json:"folder"` // empty for none
	Code    string       `json:"code"`   // shown once; no server has it. Empty: it is in File
	Expires time.Time    `json:"expires"`
	File    string       `json:"file"` // the provisioning file, or empty
}

// AddDevice states a device and makes the code for its gateway. Reason name-taken when the domain has one of that name. The
// code is printed when the server has taken what belongs to it, and not before.
func (a *Account) AddDevice(ctx context.Context, name string) (d NewDevice, err error) {
	return a.AddDeviceIn(ctx, name, "")
}

// AddDeviceIn is AddDevice in a folder; empty is none.
func (a *Account) AddDeviceIn(ctx context.Context, name, folder string) (d NewDevice, err error) {
	op := "add device " + name
	if err := checkPlace(name, folder); err != nil {
		return d, err
	}
	if _, err := a.readAndConfirm(ctx); err != nil {
		return d, err
	}
	p, err := a.pen(false)
	if err != nil {
		return d, err
	}
	for range maxTries {
		if d, err = a.addDevice(ctx, op, identity.NewOwnerCode(), p, name, folder); transport.ReasonOf(err) != transport.CodeTaken {
			break
		}
	}
	return d, err
}

func (a *Account) addDevice(ctx context.Context, op string, code identity.OwnerCode, p pen, name, folder string) (NewDevice, error) {
	stated, err := a.newDevice(p, name, folder)
	if err != nil {
		return NewDevice{}, err
	}
	return a.deviceCode(ctx, op, "/devices", code, p, stated)
}

// newDevice is the first statement about a device.
func (a *Account) newDevice(p pen, name, folder string) (identity.DeviceStatement, error) {
	s := identity.DeviceStatement{Domain: a.state.config.Domain, UID: identity.NewUID(), Name: name, Folder: folder, Seen: p.seen}
	var err error
	s.Serial, err = a.serial(nil, identity.Subject{UID: s.UID})
	return s, err
}

// DevicesIn lists the devices of a folder, and of all below it.
func (a *Account) DevicesIn(ctx context.Context, folder string) ([]api.Device, error) {
	if err := identity.CheckFolder(folder); err != nil {
		return nil, usage("folder: %w", err)
	}
	all, err := a.Devices(ctx)
	return slices.DeleteFunc(all, func(d api.Device) bool {
		return d.Folder != folder && !strings.HasPrefix(d.Folder, folder+"/")
	}), err
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

// pages reads a list (access §6): it calls get with the path of each page, until there is no next one. A server gives as many
// entries as fit into an answer.
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

// devicePath is the path of DEVICE.
func devicePath(device string) (string, error) {
	if err := checkTyped(device); err != nil {
		return "", err
	}
	return "/devices/" + url.PathEscape(device), nil
}

// checkTyped wants a UID, a name, or a folder and a name joined by "/". The check of names covers UIDs too. Checked here, so
// that a typing error is found without a network.
func checkTyped(device string) error {
	folder, name := splitTyped(device)
	err := identity.CheckDisplayName(name)
	if err == nil && len(name) < len(device) {
		err = identity.CheckFolder(folder)
	}
	if err != nil {
		return usage("device: neither a UID nor a name, nor a folder with a name: %w", err)
	}
	return nil
}

// splitTyped is the folder and the name of what was typed; the folder is empty for a name alone, and for a UID.
func splitTyped(device string) (folder, name string) {
	i := strings.LastIndexByte(device, '/')
	return device[:max(i, 0)], device[i+1:]
}

// checkPlace wants a name that is no UID, and a folder or none.
func checkPlace(name, folder string) error {
	if err := identity.CheckDisplayName(name); err != nil {
		return usage("name: %w", err)
	}
	if _, err := identity.ParseUID(name); err == nil {
		return usage("name: it would be taken for a UID")
	}
	if folder == "" {
		return nil
	}
	if err := identity.CheckFolder(folder); err != nil {
		return usage("folder: %w", err)
	}
	return nil
}

// list is never nil: an empty list is a list in JSON too.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
