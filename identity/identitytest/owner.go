package identitytest

import (
	"crypto"
	"time"

	"hawser/identity"
)

// Owner is the owner of a domain, who signs everything with the domain key. Whoever wants an admin states one.
type Owner struct {
	identity.Pinned
	DomainKey crypto.Signer
	List      uint64 // serial of the newest list that it signed

	serial uint64
}

// NewOwner makes a domain key.
func NewOwner(domain string) *Owner {
	o := &Owner{DomainKey: NewKey()}
	o.Pinned = identity.Pinned{Domain: domain, Key: must(identity.NewPublicKey(o.DomainKey.Public()))}
	return o
}

// Serial is the next serial.
func (o *Owner) Serial() uint64 {
	o.serial = must(identity.NextSerial(o.serial, time.Now()))
	return o.serial
}

// Sign signs any statement with the domain key.
func (o *Owner) Sign(s identity.Statement) identity.Signed {
	return must(identity.Sign(s, o.DomainKey))
}

// User states a user for a year. An admin has no scope; everybody else has the one that is given, and nil is everything.
func (o *Owner) User(user string, role identity.Role, scope *identity.Scope) identity.Signed {
	s := identity.UserStatement{Domain: o.Domain, User: user, Role: role, Scope: scope, Serial: o.Serial(), Seen: o.List}
	if scope == nil && role != identity.RoleAdmin {
		s.Scope = &identity.Scope{Devices: []string{"*"}, Targets: []string{"*"}}
	}
	s.Exp = int64(s.Serial/1000) + int64(365*24*time.Hour/time.Second)
	return o.Sign(s)
}

// Device states a device.
func (o *Owner) Device(uid identity.UID, name string) identity.Signed {
	return o.Sign(identity.DeviceStatement{Domain: o.Domain, UID: uid, Name: name, Serial: o.Serial(), Seen: o.List})
}

// UserKey states a confirmed key of a user, and DeviceKey one of a device.
func (o *Owner) UserKey(user string, pub crypto.PublicKey) identity.Signed {
	return o.key(identity.Subject{User: user}, pub)
}

// DeviceKey states a confirmed key of a device.
func (o *Owner) DeviceKey(uid identity.UID, pub crypto.PublicKey) identity.Signed {
	return o.key(identity.Subject{UID: uid}, pub)
}

func (o *Owner) key(subject identity.Subject, pub crypto.PublicKey) identity.Signed {
	return o.Sign(identity.KeyStatement{Domain: o.Domain, Subject: subject, Key: must(identity.NewPublicKey(pub)), Serial: o.Serial()})
}

// UserChain is a whole chain of a user, both of it confirmed by the domain key.
func (o *Owner) UserChain(user string, role identity.Role, scope *identity.Scope, pub crypto.PublicKey) []string {
	return []string{o.User(user, role, scope).JWS, o.UserKey(user, pub).JWS}
}

// DeviceChain is a whole chain of a device.
func (o *Owner) DeviceChain(uid identity.UID, name string, pub crypto.PublicKey) []string {
	return []string{o.Device(uid, name).JWS, o.DeviceKey(uid, pub).JWS}
}

// Lists signs a list of these entries, which replaces those before it.
func (o *Owner) Lists(entries ...identity.Entry) identity.Signed {
	s := identity.ListStatement{Domain: o.Domain, Serial: o.Serial(), Entries: identity.SortEntries(entries)}
	s.Iat = int64(s.Serial / 1000)
	o.List = s.Serial
	return o.Sign(s)
}

// Invite makes a code for a subject, and its invitation, for 72 h.
func (o *Owner) Invite(subject identity.Signed) (identity.OwnerCode, identity.Invitation) {
	code := identity.NewOwnerCode()
	return code, o.InviteBy(code, subject)
}

// InviteBy is Invite with a code that is there already.
func (o *Owner) InviteBy(code identity.OwnerCode, subject identity.Signed) identity.Invitation {
	serial := o.Serial()
	end := time.UnixMilli(int64(serial)).Add(identity.UserInviteLifetime)
	return must(o.Pinned.Invite(code, subject, 0, end, serial, o.List, o.DomainKey))
}
