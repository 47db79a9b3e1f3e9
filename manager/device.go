package manager

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"hawser/identity"
)

// Device is DEVICE of access §6. Its strings are the server's word: print them through this package.
type Device struct {
	UID      identity.UID      `json:"uid"`
	Name     string            `json:"name"`
	Domain   string            `json:"domain"`
	State    string            `json:"state"` // pending, enrolled or revoked
	Online   bool              `json:"online"`
	Address  string            `json:"address"`            // where it came from last
	Since    time.Time         `json:"since,omitzero"`     // when it came online, or was last
	Created  time.Time         `json:"created,omitzero"`   // when it was added
	NotAfter time.Time         `json:"not_after,omitzero"` // of its certificate
	SPKI     identity.SPKI     `json:"spki_sha256"`
	Hints    map[string]string `json:"hints"` // what it says of its hardware
}

// NewDevice is a device that waits for its gateway.
type NewDevice struct {
	UID     identity.UID `json:"uid"`
	Name    string       `json:"name"`
	Code    string       `json:"code"` // the activation code, shown once
	Expires time.Time    `json:"expires"`
}

// Record is RECORD of access §7.
type Record struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Domain string    `json:"domain,omitempty"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	Object string    `json:"object"`
	Result string    `json:"result"`
	Detail string    `json:"detail"`
	Prev   string    `json:"prev"`
	Hash   string    `json:"hash"`
}

// MaxAudit is how many records one Audit can ask for (access §6).
const MaxAudit = 1000

// AddDevice makes a device and its activation code. Reason name-taken when the domain has one of that name.
func (a *Account) AddDevice(ctx context.Context, name string) (d NewDevice, err error) {
	if err := identity.CheckDisplayName(name); err != nil {
		return d, usage("name: %w", err)
	}
	request := struct {
		Name string `json:"name"`
	}{name}
	return d, a.do(ctx, "add device "+name, http.MethodPost, "/devices", request, &d)
}

// Devices lists the devices of the domain.
func (a *Account) Devices(ctx context.Context) ([]Device, error) {
	var answer struct {
		Devices []Device `json:"devices"`
	}
	err := a.do(ctx, "list devices", http.MethodGet, "/devices", nil, &answer)
	return list(answer.Devices), err
}

// Device finds a device by UID or name. Reason not-found or no-device when the domain has none such.
func (a *Account) Device(ctx context.Context, device string) (d Device, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	return d, a.do(ctx, "show device "+device, http.MethodGet, path, nil, &d)
}

// RevokeDevice takes a device's identity away for good and ends its sessions.
func (a *Account) RevokeDevice(ctx context.Context, device string) (d Device, err error) {
	path, err := devicePath(device)
	if err != nil {
		return d, err
	}
	return d, a.do(ctx, "revoke device "+device, http.MethodPost, path+"/revoke", nil, &d)
}

// devicePath is the path of DEVICE. A UID is also a possible name, so one check covers both.
func devicePath(device string) (string, error) {
	if err := identity.CheckDisplayName(device); err != nil {
		return "", usage("device: neither a UID nor a name: %w", err)
	}
	return "/devices/" + url.PathEscape(device), nil
}

// Audit returns the newest records of the domain, newest last: limit of them, 1 to MaxAudit.
func (a *Account) Audit(ctx context.Context, limit int) ([]Record, error) {
	if limit < 1 || limit > MaxAudit {
		return nil, usage("limit %d: want 1 to %d", limit, MaxAudit)
	}
	var answer struct {
		Records []Record `json:"records"`
	}
	err := a.do(ctx, "read audit", http.MethodGet, fmt.Sprintf("/audit?limit=%d", limit), nil, &answer)
	return list(answer.Records), err
}

// list is never nil: an empty list is a list in JSON too.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
