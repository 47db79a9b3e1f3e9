package manager

import (
	"slices"
	"time"

	"hawser/identity"
)

// Stated is what the owner says of a user or a device.
type Stated struct {
	User   string          `json:"user,omitempty"`
	Role   identity.Role   `json:"role,omitempty"`
	Scope  *identity.Scope `json:"scope,omitempty"` // nil: all, as of an admin
	Ends   time.Time       `json:"ends,omitzero"`   // of a user
	UID    identity.UID    `json:"uid,omitzero"`
	Name   string          `json:"name,omitempty"` // of a device
	Folder string          `json:"folder,omitempty"`
	Keys   []identity.SPKI `json:"keys"`
	Codes  int             `json:"codes,omitempty"` // that nobody has used

	says []identity.Statement
}

// Change is what a command is about to change beside what it was asked for. A person looks at it: among what is said again may
// be what a thief has said, or somebody who should have nothing any more.
type Change struct {
	Again []Stated // is said again, with a new signature
	Falls []Stated // counts no more: it hangs on what ends
}

// statedOf sums up what is said of a subject.
func statedOf(subject identity.Subject, says []identity.Statement) Stated {
	one := Stated{User: subject.User, UID: subject.UID, Keys: []identity.SPKI{}, says: says}
	for _, s := range says {
		switch s := s.(type) {
		case identity.UserStatement:
			one.Role, one.Scope, one.Ends = s.Role, s.Scope, time.Unix(s.Exp, 0).UTC()
		case identity.DeviceStatement:
			one.Name, one.Folder = s.Name, s.Folder
		case identity.KeyStatement:
			one.Keys = append(one.Keys, s.Key.SPKI())
		case identity.InviteStatement:
			one.Codes++
		}
	}
	return one
}

func (one Stated) isIn(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		return n != "" && (n == one.User || n == one.Name || n == one.UID.String() && one.User == "")
	})
}

// approved shows a change to a person, if there is one to look at it and somebody to look.
func (a *Account) approved(c Change) error {
	if a.m.Approve == nil || len(c.Again)+len(c.Falls) == 0 {
		return nil
	}
	return asUsage(a.m.Approve(c))
}
