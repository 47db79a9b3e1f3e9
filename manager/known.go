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
func (k knownDevices) serial(uid string) uint64 { return k[uid].Serial }

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

// learnDevice remembers a statement that counted. A name belongs to the device that had it last.
func (h home) learnDevice(uid string, d knownDevice) error {
	known, err := h.readDevices()
	if err != nil || known[uid] == d {
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
	if known.serial(uid) > d.Serial {
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
