package identity

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// How long a statement counts (identity §11.2, §15.3). Each is dated by its serial, so that an entry of a list, which lasts
// EntryLifetime, outlives all that it strikes.
const (
	// UserLifetime is how long a user's statement and his confirmed keys count at most.
	UserLifetime = 366 * 24 * time.Hour
	// UserInviteLifetime and DeviceInviteLifetime are how long a code can be used at most; the second is that of a batch.
	UserInviteLifetime   = 72 * time.Hour
	DeviceInviteLifetime = 30 * 24 * time.Hour
	// EntryLifetime is how long a new entry about a user strikes: 13 months.
	EntryLifetime = 396 * 24 * time.Hour

	maxScopeItems = 64
)

// Role is what a user may do in a domain (identity §11.2).
type Role string

// The roles.
const (
	RoleAdmin    Role = "admin"    // states others, has no scope
	RoleOperator Role = "operator" // connects within his scope
	RoleViewer   Role = "viewer"   // sees within his scope, and opens nothing
)

// UserStatement says that there is a user, and what he may do.
type UserStatement struct {
	Domain string `json:"domain"`
	User   string `json:"user"`
	Role   Role   `json:"role"`
	Scope  *Scope `json:"scope,omitempty"` // nil for an admin, and for nobody else
	Exp    int64  `json:"exp"`             // seconds since 1970; counts until the end of that second
	Serial uint64 `json:"serial"`          // milliseconds since 1970, or one more than the newest known; see [NextSerial]
	Seen   uint64 `json:"seen"`            // serial of the newest list that the signer knew, 0 for none
}

// DeviceStatement says that there is a device, and where it belongs.
type DeviceStatement struct {
	Domain   string `json:"domain"`
	UID      UID    `json:"uid"`
	Name     string `json:"name"`   // a display name
	Folder   string `json:"folder"` // empty for none
	Serial   uint64 `json:"serial"`
	Seen     uint64 `json:"seen"`
	Released bool   `json:"released"` // the device is nobody's any more
}

// Subject is a user or a device: exactly one of the two is there.
type Subject struct {
	User string `json:"user,omitempty"`
	UID  UID    `json:"uid,omitzero"`
}

// InviteStatement says that a key may state one key of the subject. Who has the code has that key.
type InviteStatement struct {
	Domain string `json:"domain"`
	Subject
	Slot   uint32    `json:"slot"` // of a device's batch; 0 and not written for a user
	Key    PublicKey `json:"key"`  // Ed25519
	Exp    int64     `json:"exp"`
	Serial uint64    `json:"serial"`
}

// KeyStatement says that a key is the subject's.
type KeyStatement struct {
	Domain string `json:"domain"`
	Subject
	Key    PublicKey `json:"key"`
	Label  string    `json:"label"`  // for people: a display name, or empty
	Serial uint64    `json:"serial"` // 0 when an invite's key signs
}

// ListStatement says what does not count any more.
type ListStatement struct {
	Domain  string  `json:"domain"`
	Serial  uint64  `json:"serial"`
	Iat     int64   `json:"iat"`     // seconds since 1970, when it was signed
	Entries []Entry `json:"entries"` // in their one order; see [SortEntries]. Never nil
}

// Entry is one line of a list (identity §11.2): about a key (SPKI), or about a subject (with Statements or All). Entries
// about users have Until, those about devices have not.
type Entry struct {
	SPKI SPKI `json:"spki,omitzero"`
	Subject
	Statements uint64 `json:"statements,omitempty"` // strikes statements with a lower serial
	All        uint64 `json:"all,omitempty"`        // strikes statements, invites and keys with a lower serial
	Until      int64  `json:"until,omitempty"`      // seconds since 1970; from then on it strikes nothing
}

// DomainStatement replaces the domain key. The old one signs it.
type DomainStatement struct {
	Domain string    `json:"domain"`
	Old    PublicKey `json:"old"`
	New    PublicKey `json:"new"`
	Serial uint64    `json:"serial"`
}

func (UserStatement) typ() string   { return typUser }
func (DeviceStatement) typ() string { return typDevice }
func (InviteStatement) typ() string { return typInvite }
func (KeyStatement) typ() string    { return typKey }
func (ListStatement) typ() string   { return typList }
func (DomainStatement) typ() string { return typDomain }

func (s UserStatement) domain() string   { return s.Domain }
func (s DeviceStatement) domain() string { return s.Domain }
func (s InviteStatement) domain() string { return s.Domain }
func (s KeyStatement) domain() string    { return s.Domain }
func (s ListStatement) domain() string   { return s.Domain }
func (s DomainStatement) domain() string { return s.Domain }

func (s UserStatement) check() error {
	if err := firstError(CheckLabel(s.Domain), CheckLabel(s.User), checkSerial(s.Serial, s.Seen), checkEnd(s.Exp, s.Serial, UserLifetime)); err != nil {
		return err
	}
	switch {
	case s.Role == RoleAdmin && s.Scope == nil:
		return nil
	case (s.Role == RoleOperator || s.Role == RoleViewer) && s.Scope != nil:
		return s.Scope.check()
	}
	return refuse(FaultMalformed, "not a role with its scope: an admin has none, everybody else has one")
}

func (s DeviceStatement) check() error {
	if s.UID.IsZero() {
		return refuse(FaultMalformed, "a device without UID")
	}
	if s.Folder != "" {
		if err := CheckFolder(s.Folder); err != nil {
			return err
		}
	}
	return firstError(CheckLabel(s.Domain), CheckDisplayName(s.Name), checkSerial(s.Serial, s.Seen))
}

func (s InviteStatement) check() error {
	if err := firstError(CheckLabel(s.Domain), s.Subject.check(), checkSerial(s.Serial, 0)); err != nil {
		return err
	}
	if _, ok := s.Key.ed25519(); !ok {
		return refuse(FaultMalformed, "an invite's key is Ed25519")
	}
	if s.User == "" {
		return checkEnd(s.Exp, s.Serial, DeviceInviteLifetime)
	}
	if s.Slot != 0 {
		return refuse(FaultMalformed, "a user has no slot")
	}
	return checkEnd(s.Exp, s.Serial, UserInviteLifetime)
}

func (s KeyStatement) check() error {
	if err := firstError(CheckLabel(s.Domain), s.Subject.check()); err != nil {
		return err
	}
	if s.Key.IsZero() || s.Serial > MaxSerial {
		return refuse(FaultMalformed, "no key, or too great a serial")
	}
	if s.Label == "" {
		return nil
	}
	return CheckDisplayName(s.Label)
}

func (s ListStatement) check() error {
	if err := firstError(CheckLabel(s.Domain), checkSerial(s.Serial, 0)); err != nil {
		return err
	}
	if s.Iat < 1 || s.Iat > maxSeconds || uint64(s.Iat)*1000 > s.Serial || s.Entries == nil {
		return refuse(FaultMalformed, "a list from later than its serial, or without entries")
	}
	var last []byte
	for _, e := range s.Entries {
		if err := e.check(); err != nil {
			return err
		}
		if e.Until > s.Iat+int64(EntryLifetime/time.Second) {
			return refuse(FaultMalformed, "an entry for more than 13 months")
		}
		this := e.encode()
		if bytes.Compare(last, this) >= 0 {
			return refuse(FaultMalformed, "entries that are not in their one order")
		}
		last = this
	}
	return nil
}

func (e Entry) check() error {
	subject, spki := e.Subject != Subject{}, !e.SPKI.IsZero()
	switch {
	case subject == spki, subject != ((e.Statements == 0) != (e.All == 0)), spki && (e.Statements != 0 || e.All != 0):
		return refuse(FaultMalformed, "an entry is about a key, or about a subject and its serials")
	case max(e.Statements, e.All) > MaxSerial, e.Until < 0, e.Until > maxSeconds:
		return refuse(FaultMalformed, "an entry with too great a number")
	case spki:
		return nil
	case (e.Until == 0) != (e.User == ""):
		return refuse(FaultMalformed, "entries of users end, and those of devices do not")
	}
	return e.Subject.check()
}

func (s DomainStatement) check() error {
	_, old := s.Old.ed25519()
	_, new := s.New.ed25519()
	if !old || !new || s.Old == s.New {
		return refuse(FaultMalformed, "not two different Ed25519 keys")
	}
	return firstError(CheckLabel(s.Domain), checkSerial(s.Serial, 0))
}

func (s Subject) check() error {
	if (s.User == "") == s.UID.IsZero() {
		return refuse(FaultMalformed, "neither one user nor one device")
	}
	if s.User == "" {
		return nil
	}
	return CheckLabel(s.User)
}

// MarshalJSON writes the slot for devices only, where 0 is one, too.
func (s InviteStatement) MarshalJSON() ([]byte, error) {
	if s.User != "" {
		return json.Marshal(struct {
			Domain string    `json:"domain"`
			User   string    `json:"user"`
			Key    PublicKey `json:"key"`
			Exp    int64     `json:"exp"`
			Serial uint64    `json:"serial"`
		}{s.Domain, s.User, s.Key, s.Exp, s.Serial})
	}
	type device InviteStatement // without this method
	return json.Marshal(device(s))
}

// NextSerial is the serial of what is signed at now about a subject, of which newest is the newest known serial (0: none).
// The fault is [FaultRefused] when there is no number left; then the key that used them up has to be listed.
func NextSerial(newest uint64, now time.Time) (uint64, error) {
	serial := max(uint64(max(now.UnixMilli(), 1)), newest+1)
	if newest >= MaxSerial || serial > MaxSerial {
		return 0, refuse(FaultRefused, "next serial: there is no greater one")
	}
	return serial, nil
}

// SortEntries brings entries into the order that a list has, without doubles. It changes and returns its argument; never
// nil.
func SortEntries(entries []Entry) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare(a.encode(), b.encode()) })
	if entries = slices.Compact(entries); entries == nil {
		entries = []Entry{}
	}
	return entries
}

// ofDevice tells whether e is about a device.
func (e Entry) ofDevice() bool { return e.Until == 0 }

// encode is the entry as it stands in a list.
func (e Entry) encode() []byte {
	b, err := json.Marshal(e)
	if err != nil { // hex digits, a label and numbers
		panic(err)
	}
	return b
}

func checkSerial(serial, seen uint64) error {
	if serial < 1 || serial > MaxSerial || seen > MaxSerial {
		return refuse(FaultMalformed, "a serial outside 1 to 2^53-1")
	}
	return nil
}

// checkEnd wants an end that is at most lifetime after the serial.
func checkEnd(exp int64, serial uint64, lifetime time.Duration) error {
	if exp < 1 || exp > maxSeconds || uint64(exp)*1000 > serial+uint64(lifetime.Milliseconds()) {
		return refuse(FaultMalformed, "ends too long after its serial")
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
