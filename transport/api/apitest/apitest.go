// Package apitest is an owner who makes a domain, devices and codes at a real Access Server, and the listener of one that is not
// real, for tests.
package apitest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Post makes a request of the API on a connection, closes that, and decodes the answer, unless answer is nil. An answer that is a
// refusal is an error.
func Post(conn net.Conn, path string, body, answer any) error {
	response, raw, err := accesstest.Ask(conn, http.MethodPost, api.Prefix+path, body)
	switch {
	case err != nil:
		return err
	case response.StatusCode >= 300:
		return fmt.Errorf("%s: %d %s", path, response.StatusCode, raw)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(raw, answer)
}

// Domain is a domain at a real Access Server whose owner is the test. It is safe for concurrent use.
type Domain struct {
	Admin *accesstest.Client // the founder, once he is logged in

	root  identity.SPKI // of the infrastructure
	mu    sync.Mutex    // guards owner
	owner *identitytest.Owner
}

// NewDomain makes the keys of a domain in the infrastructure of a root.
func NewDomain(name string, root identity.SPKI) *Domain {
	return &Domain{Admin: accesstest.NewClient(), root: root, owner: identitytest.NewOwner(name)}
}

// Login is the founder's login by a server's code.
func (d *Domain) Login(code, user string) api.LoginRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return api.LoginRequest{Code: code, User: user, CSR: d.Admin.CSR(), DomainKey: d.owner.Key,
		Statements: d.owner.UserChain(user, identity.RoleAdmin, nil, d.Admin.Key.Public())}
}

// Device is one that waits for its gateway.
type Device struct {
	UID     identity.UID
	Code    identity.OwnerCode
	Request api.DeviceRequest // that makes it

	root identity.SPKI
}

// Device states a device and makes its code.
func (d *Domain) Device(name string) Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	uid := identity.NewUID()
	code, invitation := d.owner.Invite(d.owner.Device(uid, name))
	sent, err := api.CodeOf(code, invitation, d.root, nil)
	if err != nil {
		panic(err)
	}
	return Device{uid, code, api.DeviceRequest{Code: sent}, d.root}
}

// Enroll asks for the identity of the device.
func (d Device) Enroll(c *accesstest.Client) wire.Enroll {
	auth := d.Code.Auth()
	return wire.Enroll{Lookup: d.Code.LookupID(), Auth: auth[:], CSR: c.CSR()}
}

// Take stores the answer, and states the key that the client has.
func (d Device) Take(c *accesstest.Client, id wire.Identity) error {
	if err := c.Take(id.Chain); err != nil {
		return err
	}
	_, chain, err := id.Open(d.Code, d.root, identity.DeviceName(id.Domain, id.UID), c.Key.Public(), "")
	if err == nil {
		c.Stated = chain[1]
	}
	return err
}
