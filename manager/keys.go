package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/api"
)

// KeyState is what the owner's statements say of the key that a device has for the server.
type KeyState string

// The states of a key. Empty: there is no key, or this user is no admin, who alone sees the keys of devices.
const (
	KeyConfirmed   KeyState = "confirmed"   // it lasts
	KeyUnconfirmed KeyState = "unconfirmed" // it came with a code, and ends when no admin confirms it
	KeyUnknown     KeyState = "unknown"     // nothing is stated of it: the gateway was not online yet, or is an impostor
)

// StatedDevice is a device of the registry, with what the owner's statements say of its key.
type StatedDevice struct {
	api.Device
	Key KeyState `json:"key"`
	// Machines are those of a device that is there twice; StatedDevice alone lists them.
	Machines []Machine `json:"machines,omitempty"`
}

// StatedDevices lists the devices of a folder and of all below it, or all with an empty one, and marks their keys by the
// statements that this Manager has judged: the server has no word in that.
func (a *Account) StatedDevices(ctx context.Context, folder string) ([]StatedDevice, error) {
	list := a.Devices
	if folder != "" {
		list = func(ctx context.Context) ([]api.Device, error) { return a.DevicesIn(ctx, folder) }
	}
	devices, err := list(ctx)
	if err != nil {
		return nil, err
	}
	return a.mark(ctx, devices)
}

// StatedDevice is Device with the state of its key.
func (a *Account) StatedDevice(ctx context.Context, typed string) (StatedDevice, error) {
	d, err := a.Device(ctx, typed)
	if err != nil {
		return StatedDevice{}, err
	}
	marked, err := a.mark(ctx, []api.Device{d})
	if err != nil {
		return StatedDevice{}, err
	}
	marked[0].Machines, err = machinesOf(d)
	return marked[0], err
}

func (a *Account) mark(ctx context.Context, devices []api.Device) ([]StatedDevice, error) {
	marked := []StatedDevice{}
	for _, d := range devices {
		marked = append(marked, StatedDevice{Device: d})
	}
	own, err := a.state.owner.Statement()
	if u, ok := own.Statement.(identity.UserStatement); err != nil || !ok || u.Role != identity.RoleAdmin {
		return marked, nil
	}
	pool, err := a.read(ctx)
	if err != nil {
		return nil, err
	}
	states := a.keyStates(pool)
	for i := range marked {
		d := &marked[i]
		if d.State != api.StateEnrolled {
			continue
		}
		if d.Key = states[deviceKey{d.UID, d.SPKI}]; d.Key == "" {
			d.Key = KeyUnknown
		}
	}
	return marked, nil
}

type deviceKey struct {
	uid  identity.UID
	spki identity.SPKI
}

// keyStates are the keys of devices that count. One that a list strikes is not there.
func (a *Account) keyStates(pool statements) map[deviceKey]KeyState {
	states, near := make(map[deviceKey]KeyState), a.near(pool)
	for _, state := range []KeyState{KeyConfirmed, KeyUnconfirmed} {
		for _, s := range pool {
			key, ok := s.Statement.(identity.KeyStatement)
			if !ok || key.UID.IsZero() || (key.Serial != 0) != (state == KeyConfirmed) {
				continue
			}
			k := deviceKey{key.UID, key.Key.SPKI()}
			if states[k] == "" && a.genuine(near[key.Subject], s) {
				states[k] = state
			}
		}
	}
	return states
}

// ConfirmDevices confirms the keys of gateways that have enrolled, and says how each of these devices stands then. seen are
// those of BatchKeys that a person has looked at. The error names those whose key could not be confirmed: of two that came
// with one code, none is.
func (a *Account) ConfirmDevices(ctx context.Context, typed []string, seen []StatedDevice) ([]StatedDevice, error) {
	for _, one := range typed {
		if err := checkTyped(one); err != nil {
			return nil, err
		}
	}
	if _, err := a.pen(false); err != nil {
		return nil, err
	}
	keys := make(map[deviceKey]bool)
	for _, d := range seen {
		keys[deviceKey{d.UID, d.SPKI}] = true
	}
	pool, err := a.readAndConfirmAlso(ctx, keys)
	if err != nil {
		return nil, err
	}
	var devices []api.Device
	for _, one := range typed {
		stated, err := a.device(pool, one)
		if err != nil {
			return nil, err
		}
		d, err := a.Device(ctx, stated.UID.String())
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	marked, err := a.mark(ctx, devices)
	if err != nil {
		return nil, err
	}
	for i, d := range marked {
		if d.Key != KeyConfirmed {
			err = errors.Join(err, fail(transport.NotStated, "confirm device "+typed[i], fmt.Errorf("its key is %s", whyNot(d))))
		}
	}
	return marked, err
}

func whyNot(d StatedDevice) string {
	if d.State != api.StateEnrolled {
		return "not there: the device is " + string(d.State)
	}
	return string(d.Key)
}

// How often a gateway is looked for that somebody waits for.
const waitPoll = 2 * time.Second

// AwaitDevice waits until the gateway of a new device has enrolled and come online, and confirms its key. It ends with ctx,
// or when the code cannot be used any more; then the key waits for the next command that signs.
func (a *Account) AwaitDevice(ctx context.Context, d NewDevice) (StatedDevice, error) {
	op := "wait for " + d.Name
	a.m.progress("waiting for the gateway to enroll")
	for {
		marked, err := a.lookFor(ctx, d)
		switch {
		case err == nil && marked.Key == KeyConfirmed:
			return marked, nil
		case err != nil && isFinal(err):
			return marked, err
		case ctx.Err() != nil:
			return marked, ctx.Err()
		case err == nil && marked.Key == KeyUnconfirmed:
			return marked, fail(transport.InviteUsedTwice, op, errors.New("its key is not the only one that came with the code"))
		case err == nil && marked.State == api.StatePending && a.m.now().After(d.Expires):
			return marked, fail(transport.Timeout, op, errors.New("the code has ended"))
		}
		wait.Sleep(ctx, waitPoll)
	}
}

// lookFor asks for the device alone until it has a key: its statements are more.
func (a *Account) lookFor(ctx context.Context, d NewDevice) (StatedDevice, error) {
	seen, err := a.Device(ctx, d.UID.String())
	if err != nil || seen.State == api.StatePending || !seen.Online {
		return StatedDevice{Device: seen}, err
	}
	a.m.progress("confirming its key")
	marked, err := a.ConfirmDevices(ctx, []string{d.UID.String()}, nil)
	if len(marked) == 0 {
		return StatedDevice{Device: seen}, err
	}
	return marked[0], nil
}
