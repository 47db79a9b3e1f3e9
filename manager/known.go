package manager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
)

// devicesFile is what was stated about the devices that were connected to. It is private like the rest of a home.
const devicesFile = "devices.json"

// knownDevice is the newest statement that this home has seen of a device.
type knownDevice struct {
	Name   string `json:"name"`
	Serial uint64 `json:"serial"`
	// By is the admin's key that has signed it, nil for the domain key. When a list strikes that, the serial counts no more: it
	// may be a thief's, and greater than all that the owner can sign.
	By *identity.KeyStatement `json:"by,omitempty"`
}

// knownDevices are the devices by UID.
type knownDevices map[string]knownDevice

func (h home) readDevices() (knownDevices, error) {
	known, err := credential.Load(h.path(devicesFile), func(b []byte) (k knownDevices, err error) {
		return k, json.Unmarshal(b, &k)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return known, asUsage(err)
}

// serial is that of the newest statement known of a device: an older one is stale.
func (k knownDevices) serial(uid string, struck func(identity.Statement) bool) uint64 {
	d := k[uid]
	if d.By != nil && struck(*d.By) {
		return 0
	}
	return d.Serial
}

// check refuses a name that meant another device before. A new statement may be an owner's who has replaced a gateway, or
// that of somebody who has an admin's key: a person decides, by giving the UID.
func (k knownDevices) check(typed, uid string) error {
	for other, d := range k {
		if d.Name == typed && other != uid {
			return &identity.Error{Fault: identity.FaultWrongDevice, Detail: fmt.Sprintf(
				"%s was the device %s before, and is %s now; if that is right, connect once by the UID", typed, other, uid)}
		}
	}
	return nil
}

// learn remembers a statement about a device that counted, which is the first one of chain.
func (a *Account) learn(s identity.DeviceStatement, chain []string) error {
	d, pool := knownDevice{Name: s.Name, Serial: s.Serial}, parsed(chain)
	for _, by := range pool[1:] {
		if key, ok := by.Statement.(identity.KeyStatement); ok && key.User != "" && pool[0].SignedBy(key.Key) {
			d.By = &key
		}
	}
	return a.home.learnDevice(s.UID.String(), d, a.struck)
}

// learnDevice does it for [Account.learn]. A name belongs to the device that had it last.
func (h home) learnDevice(uid string, d knownDevice, struck func(identity.Statement) bool) error {
	known, err := h.readDevices()
	if was := known[uid]; err != nil || was.Name == d.Name && was.Serial == d.Serial {
		return err
	}
	unlock, err := h.lock()
	if err != nil {
		return asUsage(err)
	}
	defer unlock.Close()
	if known, err = h.readDevices(); err != nil {
		return err
	}
	if known.serial(uid, struck) > d.Serial {
		return nil // another command has learnt more meanwhile
	}
	if known == nil {
		known = knownDevices{}
	}
	for other, was := range known {
		if was.Name == d.Name {
			was.Name = ""
			known[other] = was
		}
	}
	known[uid] = d
	b, err := json.Marshal(known)
	if err != nil {
		return err
	}
	return durable.WriteFile(h.path(devicesFile), b, credential.Private)
}
