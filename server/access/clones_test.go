package access

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// twin is a machine with the key of a device: the gateway itself, or a copy of it.
type twin struct {
	w        *world
	who      *someone
	instance string
	state    []byte
	fresh    *someone
}

// come says hello, and answers what it is asked. It returns once nothing more comes; the connection stays.
func (m *twin) come() *control {
	h := m.who.hello(m.instance)
	h.JoinState = m.state
	c := m.w.control(m.who, h)
	c.SetReadDeadline(time.Now().Add(time.Minute))
	return c
}

// serve reads what comes until a frame of a type, and answers as an agent does.
func (m *twin) serve(c *control, until wire.Type) wire.Frame {
	m.w.t.Helper()
	for {
		f, err := wire.Read(c)
		if err != nil {
			m.w.t.Fatalf("waiting for frame %#02x: %v", byte(until), err)
		}
		switch f.Type {
		case wire.TypePing:
			wire.Write(c, wire.TypePong, nil)
		case wire.TypeJoinState:
			var given wire.JoinState
			if err := f.Decode(&given); err != nil {
				m.w.t.Fatal(err)
			}
			m.state = given.State
			c.write(wire.TypeJoinStateAck, wire.JoinStateAck{Counter: given.Counter})
		}
		if f.Type == until {
			return f
		}
	}
}

// settle comes, and is given a join-state.
func (m *twin) settle() *control {
	c := m.come()
	m.serve(c, wire.TypeJoinState)
	synctest.Wait()
	return c
}

// refused comes, and is told why it must go.
func (m *twin) refused() transport.Reason {
	c := m.come()
	defer c.Close()
	return m.serve(c, wire.TypeRefuse).Refusal().Reason
}

// quarantined comes, and shows a fresh key.
func (m *twin) quarantined() *control {
	m.w.t.Helper()
	c := m.come()
	if !c.welcome.Cloned {
		m.w.t.Fatal("it is not told that it is cloned")
	}
	if m.fresh == nil {
		m.fresh = newSomeone()
	}
	c.write(wire.TypeFreshKey, wire.FreshKey{CSR: m.fresh.CSR()})
	synctest.Wait()
	return c
}

// acceptance is the owner's word for a fresh key.
func (w *world) acceptance(uid identity.UID, name string, fresh, old *someone) api.AcceptRequest {
	o := w.owner("plant")
	device := o.Device(uid, name)
	serial := device.Statement.(identity.DeviceStatement).Serial
	key := o.DeviceKey(uid, fresh.Key.Public())
	list := o.Lists(identity.Entry{Subject: identity.Subject{UID: uid}, All: serial}, identity.Entry{SPKI: old.spki()})
	return api.AcceptRequest{SPKI: fresh.spki(), Statements: []string{device.JWS, key.JWS, list.JWS}}
}

func TestACloneIsFoundQuarantinedAndCured(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		gateway := &twin{w: w, who: w.addDevice(admin, "press 1"), instance: "0a"}
		uid := gateway.who.id.UID
		path := "/api/v1/devices/" + uid.String()
		first := gateway.settle()
		copied := &twin{w: w, who: gateway.who, instance: "0b", state: gateway.state}
		second := copied.settle()
		if got := refusal(first); got != transport.Replaced {
			t.Errorf("the first connection ended with %q", got)
		}
		if got := gateway.refused(); got != transport.Cloned {
			t.Fatalf("the gateway comes back, and is refused with %q", got)
		}
		if got := refusal(second); got != transport.Cloned {
			t.Errorf("the copy was ended with %q", got)
		}
		if !slices.Contains(w.actions(20), "device-cloned cloned") {
			t.Errorf("audit: %q", w.actions(20))
		}
		open := func() transport.Reason {
			_, raw := w.callRaw(admin, http.MethodPost, "/api/v1/sessions", api.SessionRequest{Device: "press 1", SessionVersion: wire.SessionVersion})
			return reasonIn(raw)
		}
		if got := open(); got != transport.Cloned {
			t.Errorf("a session is refused with %q", got)
		}
		a, b := gateway.quarantined(), copied.quarantined()
		defer a.Close()
		defer b.Close()
		for range 3 { // the same one again is the same one
			defer copied.quarantined().Close()
		}
		var v api.Device
		if w.call(admin, http.MethodGet, path, nil, &v); v.Cloned == nil || len(v.Cloned.Keys) != 2 || v.Cloned.Keys[0].Key.SPKI() != gateway.fresh.spki() {
			t.Fatalf("device: %+v", v)
		}
		var list api.Devices
		if w.call(admin, http.MethodGet, "/api/v1/devices", nil, &list); list.Devices[0].Cloned == nil || list.Devices[0].Online {
			t.Errorf("list: %+v", list.Devices[0])
		}
		if got := open(); got != transport.Cloned {
			t.Errorf("a session of the quarantined is refused with %q", got)
		}

		body := w.acceptance(uid, "press 1", gateway.fresh, gateway.who)
		stranger := body
		stranger.SPKI = newSomeone().spki()
		if _, raw := w.callRaw(admin, http.MethodPost, path+"/accept", stranger); reasonIn(raw) != api.NotFound {
			t.Errorf("a key that nobody showed: %s", raw)
		}
		other := body
		other.SPKI = copied.fresh.spki()
		if _, raw := w.callRaw(admin, http.MethodPost, path+"/accept", other); reasonIn(raw) != transport.NotStated {
			t.Errorf("a key that the owner has not stated: %s", raw)
		}
		if status := w.call(admin, http.MethodPost, path+"/accept", body, &v); status != http.StatusOK || v.Cloned.Accepted != gateway.fresh.spki() {
			t.Fatalf("accept: %d, %+v", status, v)
		}
		if got := copied.serve(b, wire.TypeRefuse).Refusal().Reason; got != transport.Revoked {
			t.Errorf("the copy was refused with %q", got)
		}
		a.Close() // the power is cut before the answer has come
		again := gateway.quarantined()
		defer again.Close()
		f := gateway.serve(again, wire.TypeIdentity)
		var id wire.Identity
		if err := json.Unmarshal(f.Payload, &id); err != nil || len(id.Statements) != 2 {
			t.Fatalf("identity: %+v, %v", id, err)
		}
		cured := &twin{w: w, who: gateway.fresh.take(id), instance: "0a"}
		c := cured.settle()
		defer c.Close()
		if got := open(); got != transport.NoRelay { // there is none here: it is looked for last
			t.Errorf("a session of the cured: %q", got)
		}
		late := w.connect(copied.who)
		wire.WriteJSON(late, wire.TypeHello, copied.who.hello(copied.instance))
		if got := refusal(late); got != transport.Revoked {
			t.Errorf("the copy comes with the old key, and is refused with %q", got)
		}
		v = api.Device{}
		if w.call(admin, http.MethodGet, path, nil, &v); v.Cloned != nil || v.SPKI != gateway.fresh.spki() {
			t.Errorf("device: %+v", v)
		}
		if status := w.call(admin, http.MethodPost, path+"/accept", w.acceptance(uid, "press 1", gateway.fresh, gateway.who), &v); status != http.StatusOK {
			t.Errorf("the same again: %d", status)
		}
	})
}

// The hello of a process that is no more, held up on the way, is no second machine: nobody answers the ping.
func TestALateHelloIsNoClone(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		gateway := &twin{w: w, who: w.addDevice(w.login(), "press 1"), instance: "0a"}
		gateway.settle().Close()
		before := *gateway
		gateway.instance = "0b"
		attached := gateway.settle()
		defer attached.Close()
		late := before.come()
		begin := time.Now()
		if got := refusal(late); got != transport.LinkLost || time.Since(begin) < aliveTimeout {
			t.Errorf("refused with %q after %v", got, time.Since(begin))
		}
		if strings.Contains(strings.Join(w.actions(50), " "), "device-cloned") {
			t.Errorf("audit: %q", w.actions(50))
		}
		wire.Write(attached, wire.TypePing, wire.Ping(time.Minute))
		gateway.serve(attached, wire.TypePong) // and the gateway was not disturbed
	})
}

// A server whose store comes from a backup, with another node's key even, takes what the gateway shows.
func TestARestoredServerRaisesNoAlarm(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gateway := &twin{w: w, who: w.addDevice(w.login(), "press 1"), instance: "0a"}
		gateway.settle().Close()
		backup := storeJoin(w, gateway)
		for _, instance := range []string{"0b", "0c", "0d"} {
			gateway.instance = instance
			gateway.settle().Close()
		}
		w.stop()
		w.put(&backup)
		w.start()
		defer w.stop()
		c := gateway.come()
		defer c.Close()
		gateway.serve(c, wire.TypeJoinState)
		synctest.Wait()
		got := w.actions(50)
		if !slices.Contains(got, "join-behind ok") || slices.Contains(got, "device-cloned cloned") {
			t.Errorf("audit: %q", got)
		}
		old := &twin{w: w, who: gateway.who, instance: "0e", state: nil}
		if got := old.refused(); got != transport.Cloned {
			t.Errorf("a copy of before: %q", got)
		}
	})
}

// A link that lives for weeks gets another join-state each day, with its signed time, and a copy that lay for months is found
// when it comes.
func TestAJoinStateIsChangedEachDay(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		gateway := &twin{w: w, who: w.addDevice(w.login(), "press 1"), instance: "0a"}
		c := gateway.settle()
		defer c.Close()
		copied := &twin{w: w, who: gateway.who, instance: "0b", state: gateway.state}
		wire.Write(c, wire.TypePing, wire.Ping(20*time.Minute))
		for day := range 5 {
			for range 24 * 6 {
				time.Sleep(10 * time.Minute)
				c.SetReadDeadline(time.Now().Add(time.Minute))
				wire.Write(c, wire.TypePing, wire.Ping(20*time.Minute))
				gateway.serve(c, wire.TypePong)
			}
			before := storeJoin(w, gateway).Counter
			request := wire.NewTimeRequest([32]byte{byte(day)}, identity.UID{})
			wire.Write(c, wire.TypeTimeAgain, request[:])
			gateway.serve(c, wire.TypeJoinState)
			synctest.Wait()
			if now := storeJoin(w, gateway).Counter; now != before+1 {
				t.Errorf("day %d: counter %d after %d", day, now, before)
			}
			wire.Write(c, wire.TypeTimeAgain, request[:])
			gateway.serve(c, wire.TypeTime)
		}
		if got := copied.refused(); got != transport.Cloned {
			t.Errorf("the copy comes, and is refused with %q", got)
		}
		if got := refusal(c); got != transport.Cloned {
			t.Errorf("the gateway is ended with %q", got)
		}
	})
}

func storeJoin(w *world, m *twin) (j store.Join) {
	j.ID = m.who.id.UID.String()
	w.get(&j)
	return j
}

// The two machines are attached to two Access Servers: both know the same, whoever is asked, and the choice of one reaches the
// machine at the other.
func TestAClonedDeviceIsClonedAtEveryNode(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		gateway := &twin{w: p.world, who: p.device, instance: "0a"}
		first := gateway.settle()
		copied := &twin{w: p.second, who: p.device, instance: "0b", state: gateway.state}
		second := copied.settle()
		if got := refusal(first); got != transport.Replaced {
			t.Errorf("the first connection ended with %q", got)
		}
		if got := gateway.refused(); got != transport.Cloned {
			t.Fatalf("the gateway is refused with %q", got)
		}
		if got := refusal(second); got != transport.Cloned {
			t.Errorf("the copy at the other node was ended with %q", got)
		}
		var list wire.Revoked // relays end what they carry of it
		if p.relay.read(wire.TypeRevoked, &list); !slices.Equal(list.SPKI, []identity.SPKI{p.device.spki()}) {
			t.Errorf("pushed: %v", list)
		}
		for name, w := range map[string]*world{"first": p.world, "second": p.second} {
			if _, raw := w.callRaw(p.admin, http.MethodPost, "/api/v1/sessions", api.SessionRequest{Device: "press 1", SessionVersion: wire.SessionVersion}); reasonIn(raw) != transport.Cloned {
				t.Errorf("a session by the %s: %s", name, raw)
			}
		}
		a, b := gateway.quarantined(), copied.quarantined()
		defer a.Close()
		defer b.Close()
		uid := p.device.id.UID
		body := p.acceptance(uid, "press 1", copied.fresh, p.device) // this time the one at the second is the true one
		if status := p.call(p.admin, http.MethodPost, "/api/v1/devices/"+uid.String()+"/accept", body, nil); status != http.StatusOK {
			t.Fatalf("accept: %d", status)
		}
		var id wire.Identity
		if err := copied.serve(b, wire.TypeIdentity).Decode(&id); err != nil || id.UID != uid {
			t.Errorf("identity: %+v, %v", id, err)
		}
		if got := gateway.serve(a, wire.TypeRefuse).Refusal().Reason; got != transport.Revoked {
			t.Errorf("the other is refused with %q", got)
		}
	})
}

// A new node, or one that was started anew, knows which keys nobody may go on with.
func TestARestartedServerKnowsWhoIsCloned(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		gateway := &twin{w: w, who: w.addDevice(w.login(), "press 1"), instance: "0a"}
		relay := w.enrollRelay()
		gateway.settle().Close()
		old := &twin{w: w, who: gateway.who, instance: "0b"}
		if got := old.refused(); got != transport.Cloned {
			t.Fatalf("refused with %q", got)
		}
		w.stop()
		w.start()
		defer w.stop()
		gateway.quarantined().Close()
		c := w.control(relay, relayHello("01"))
		defer c.Close()
		var list wire.Revoked
		if c.read(wire.TypeRevoked, &list); !slices.Equal(list.SPKI, []identity.SPKI{gateway.who.spki()}) {
			t.Errorf("pushed: %v", list)
		}
	})
}

// New hardware cures it too, and a revocation ends it: of the key before nothing is left.
func TestACodeOrARevocationEndsTheAlarm(t *testing.T) {
	t.Attr("id", "T-clone")
	for name, end := range map[string]func(*world, *someone, *twin){
		"a code": func(w *world, admin *someone, m *twin) {
			code, body := w.newCode(w.owner("plant").Device(m.who.id.UID, "press 1"))
			if status := w.call(admin, http.MethodPost, "/api/v1/devices/press%201/code", api.DeviceRequest{Code: body}, nil); status != http.StatusCreated {
				t.Fatalf("code: %d", status)
			}
			if err := w.enroll(code.String(), newSomeone()); err != nil {
				t.Fatal(err)
			}
		},
		"a revocation": func(w *world, admin *someone, m *twin) {
			if status := w.call(admin, http.MethodPost, "/api/v1/devices/press%201/revoke", nil, nil); status != http.StatusOK {
				t.Fatalf("revoke: %d", status)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				admin := w.login()
				gateway := &twin{w: w, who: w.addDevice(admin, "press 1"), instance: "0a"}
				gateway.settle().Close()
				old := &twin{w: w, who: gateway.who, instance: "0b"}
				if got := old.refused(); got != transport.Cloned {
					t.Fatalf("refused with %q", got)
				}
				c := gateway.quarantined()
				end(w, admin, gateway)
				if got := refusal(c); got != transport.Revoked {
					t.Errorf("the held connection ended with %q", got)
				}
				var v api.Device
				if w.call(admin, http.MethodGet, "/api/v1/devices/"+gateway.who.id.UID.String(), nil, &v); v.Cloned != nil {
					t.Errorf("device: %+v", v)
				}
				late := w.connect(gateway.who)
				wire.WriteJSON(late, wire.TypeHello, gateway.who.hello("0a"))
				if got := refusal(late); got != transport.Revoked {
					t.Errorf("it comes back, and is refused with %q", got)
				}
			})
		})
	}
}
