package manager

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

// A key is marked by what the owner has stated of it. What the server says is not asked, nor who is no admin.
func TestKeysAreMarkedInTheOwnersWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		thief, code := identitytest.NewOwner("default"), identity.NewUID()
		good := must(identity.SPKIOf(f.gatewayTLS.Leaf.PublicKey))
		invited, invitation := f.owner.Invite(f.owner.Device(code, "press 2"))
		waits, spki := enrolls(t, invited.String(), code)
		other := identitytest.NewKey().Public()
		pool := slices.Concat(f.chain, []string{invitation.Subject.JWS, invitation.Invite.JWS, waits}, thief.DeviceChain(f.uid, "press", other))
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool}))
		var devices []api.Device
		device := func(uid identity.UID, spki identity.SPKI, state api.DeviceState) {
			devices = append(devices, api.Device{UID: uid, SPKI: spki, State: state, Folder: "north/hall"})
		}
		device(f.uid, good, api.StateEnrolled)
		device(code, spki, api.StateEnrolled)
		device(f.uid, must(identity.SPKIOf(other)), api.StateEnrolled)
		device(code, good, api.StateEnrolled)
		device(f.uid, good, api.StateRevoked)
		device(code, identity.SPKI{}, api.StatePending)
		devices = append(devices, api.Device{Folder: "north/hall2"}, api.Device{})
		f.answer("GET /devices", jsonAnswer(api.Devices{Devices: devices}))
		marked, err := a.StatedDevices(t.Context(), "north/hall")
		var got []KeyState
		for _, d := range marked {
			got = append(got, d.Key)
		}
		if want := []KeyState{KeyConfirmed, KeyUnconfirmed, KeyUnknown, KeyUnknown, "", ""}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if all, err := a.StatedDevices(t.Context(), ""); err != nil || len(all) != len(devices) {
			t.Errorf("%d of %d devices, %v", len(all), len(devices), err)
		}
		if n := f.called("POST /statements"); n != 0 {
			t.Errorf("a list has confirmed %d times", n)
		}
	})
}

// Who waits for a gateway has its key confirmed when it is online, over a server that is away meanwhile; who does not wait any
// more leaves it as it is.
func TestWaitingForAGatewayConfirmsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.answer("GET /statements", jsonAnswer(api.Statements{}))
		code, sent := f.codes(), f.posted()
		add := func() NewDevice {
			d := must(a.AddDeviceIn(t.Context(), "press", "north/hall"))
			d.Expires = time.Now().Add(codeLife)
			f.answer("GET /devices/"+d.UID.String(), jsonAnswer(api.Device{UID: d.UID, State: api.StatePending}))
			return d
		}
		d := add()
		if d.Folder != "north/hall" || must(identity.ParseStatement(code.Statements[0])).Statement.(identity.DeviceStatement).Folder != d.Folder {
			t.Errorf("%+v", d)
		}
		begin := time.Now()
		key, spki := enrolls(t, d.Code, d.UID)
		time.AfterFunc(10*time.Second, func() {
			f.answer("GET /devices/"+d.UID.String(), problemAnswer(503, "busy", "later"))
		})
		time.AfterFunc(20*time.Second, func() {
			f.answer("GET /devices/"+d.UID.String(), jsonAnswer(api.Device{UID: d.UID, State: api.StateEnrolled, SPKI: spki, Online: true}))
			f.answer("GET /statements", func(w http.ResponseWriter, r *http.Request) {
				jsonAnswer(api.Statements{Statements: slices.Concat(code.Statements, []string{key}, sent.Statements)})(w, r)
			})
		})
		seen, err := a.AwaitDevice(t.Context(), d)
		if took := time.Since(begin); err != nil || seen.Key != KeyConfirmed || took < 20*time.Second || took > 25*time.Second {
			t.Errorf("after %v: %+v, %v", took, seen, err)
		}
		if n := f.called("POST /statements"); n != 1 {
			t.Errorf("%d times stated, want once", n)
		}
		if got, err := a.ConfirmDevices(t.Context(), []string{"north/hall/press"}, nil); err != nil || len(got) != 1 || got[0].Key != KeyConfirmed {
			t.Errorf("confirmed already: %+v, %v", got, err)
		}

		d = add()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.AwaitDevice(ctx, d); err == nil {
			t.Error("nobody came, and somebody was confirmed")
		}
		d.Expires = time.Now().Add(time.Hour)
		if _, err := a.AwaitDevice(t.Context(), d); transport.ReasonOf(err) != transport.Timeout {
			t.Errorf("after the code has ended: %v", err)
		}
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: code.Statements}))
		got, err := a.ConfirmDevices(t.Context(), []string{d.UID.String()}, nil)
		if transport.ReasonOf(err) != transport.NotStated || len(got) != 1 || got[0].Key != "" {
			t.Errorf("nobody to confirm: %+v, %v", got, err)
		}
	})
}
