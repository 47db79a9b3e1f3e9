package manager

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// Machine is one of those that use the identity of one device. All but the words is the server's word: the words are made here,
// of the key that would be stated, and whoever stands at the gateway reads them there.
type Machine struct {
	Words    string        `json:"words"`
	SPKI     identity.SPKI `json:"spki_sha256"`
	Address  string        `json:"address"`
	Instance string        `json:"instance"` // of its process
	Since    time.Time     `json:"since"`
	At       time.Time     `json:"at"`

	key identity.PublicKey
}

// maxMachines is how many are shown, of what a server says.
const maxMachines = 16

// machinesOf lists the machines of a device that is there twice; nil for one that is not.
func machinesOf(d api.Device) (machines []Machine, err error) {
	if d.Cloned == nil {
		return nil, nil
	}
	for _, k := range d.Cloned.Keys[:min(len(d.Cloned.Keys), maxMachines)] {
		m := Machine{SPKI: k.Key.SPKI(), Address: k.Address, Instance: k.Instance, Since: k.Since, At: k.At, key: k.Key}
		if m.Words, err = identity.Words(d.UID, m.SPKI); err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// AcceptDevice chooses one of the machines that use the identity of a device, by the four words that which gives: those that
// the gateway itself shows. Its fresh key is stated, and all that was stated of the device before is listed. The keys of the
// other machines are not: nobody has stated them, and what a server shows as such could be anybody's.
func (a *Account) AcceptDevice(ctx context.Context, typed string, which func([]Machine) (words string, err error)) (d api.Device, err error) {
	if err := checkTyped(typed); err != nil {
		return d, err
	}
	op := "accept device " + typed
	pool, p, stated, err := a.about(ctx, typed)
	if err != nil {
		return d, err
	}
	if err = a.do(ctx, op, http.MethodGet, pathOf(stated.UID), nil, &d); err != nil {
		return d, err
	}
	// By the UID of the statement: of that one the words are made, and not of the one that the server says it is.
	d.UID = stated.UID
	machines, err := machinesOf(d)
	switch {
	case err != nil:
		return d, err
	case d.Cloned == nil:
		return d, fail(api.NotFound, op, errors.New("it is not there twice"))
	case len(machines) == 0:
		return d, fail(api.NotFound, op, errors.New("none of its machines has shown a fresh key yet: try again when one is online"))
	}
	words, err := which(machines)
	if err != nil {
		return d, err
	}
	i := slices.IndexFunc(machines, func(m Machine) bool { return m.Words == identity.NormalWords(words) })
	if i < 0 {
		return d, fail(transport.Policy, op, errors.New("no machine has these words: read them at the gateway, by hawser-agent identity show"))
	}
	return a.accept(ctx, op, pool, p, stated, machines[i])
}

func (a *Account) accept(ctx context.Context, op string, pool statements, p pen, stated identity.DeviceStatement, m Machine) (d api.Device, err error) {
	subject := identity.Subject{UID: stated.UID}
	// Stated again: all that is older can be listed by it, codes that are open as well.
	if stated.Serial, err = a.serial(pool, subject); err != nil {
		return d, err
	}
	stated.Seen = p.seen
	key := identity.KeyStatement{Domain: stated.Domain, Subject: subject, Key: m.key, Serial: stated.Serial + 1}
	device, err1 := identity.Sign(stated, p.key)
	fresh, err2 := identity.Sign(key, p.key)
	if err := errors.Join(err1, err2); err != nil {
		return d, err
	}
	before := slices.DeleteFunc(a.keysOf(ctx, pool, identity.Subject{UID: stated.UID}), func(spki identity.SPKI) bool { return spki == m.SPKI })
	return d, a.strike(ctx, op, p, entriesOf(stated.UID, stated.Serial, before), []string{device.JWS, fresh.JWS}, func(texts []string) error {
		return a.do(ctx, op, http.MethodPost, pathOf(stated.UID)+"/accept", api.AcceptRequest{SPKI: m.SPKI, Statements: texts}, &d)
	})
}
