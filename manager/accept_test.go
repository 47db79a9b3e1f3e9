package manager

import (
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

// A server shows what it likes as machines of a device: keys of its own, an admin's, another gateway's, and says of which device
// they are. What is stated is the key whose words the person has given, of the device that he has named, and nobody's key is
// listed but those that the owner had stated of that device.
func TestOnlyTheKeyThatWasComparedIsStated(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		public := func(key any) identity.PublicKey { return must(identity.NewPublicKey(key)) }
		other := identity.NewUID()
		others := f.owner.DeviceChain(other, "press 2", identitytest.NewKey().Public())
		pool := slices.Concat(f.chain, others, a.state.owner.Chain())
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: pool}))
		gateway, thief := public(identitytest.NewKey().Public()), public(identitytest.NewKey().Public())
		admin, neighbour := public(a.state.Key.Public()), must(identity.ParseStatement(others[1])).Statement.(identity.KeyStatement).Key
		shown := []api.FreshKey{{Key: thief}, {Key: admin}, {Key: neighbour}, {Key: gateway, Address: "192.0.2.1:1", Since: time.Now()}}
		path := "/devices/" + f.uid.String()
		device := api.Device{UID: other, Name: "press", Cloned: &api.Clone{Since: time.Now(), Keys: shown}}
		f.answer("GET "+path, jsonAnswer(device))
		var sent api.AcceptRequest
		stale := 1
		f.answer("POST "+path+"/accept", func(w http.ResponseWriter, r *http.Request) {
			decode(r, &sent)
			if stale--; stale >= 0 {
				problemAnswer(409, "stale", "there is a newer list")(w, r)
				return
			}
			jsonAnswer(api.Device{UID: f.uid})(w, r)
		})
		say := func(words string) func([]Machine) (string, error) {
			return func(all []Machine) (string, error) {
				if len(all) != len(shown) || all[3].Address != "192.0.2.1:1" {
					t.Errorf("shown: %+v", all)
				}
				return words, nil
			}
		}
		// Of this key, but of the device that the server says it is.
		swapped := must(identity.Words(other, gateway.SPKI()))
		for _, words := range []string{"", "babab babab babab babab", swapped} {
			if _, err := a.AcceptDevice(t.Context(), "press", say(words)); transport.ReasonOf(err) != transport.Policy || sent.Statements != nil {
				t.Errorf("%q: %v", words, err)
			}
		}
		if d, err := a.AcceptDevice(t.Context(), "press", say(must(identity.Words(f.uid, gateway.SPKI())))); err != nil || d.UID != f.uid || d.Cloned != nil {
			t.Fatalf("%+v, %v", d, err)
		}
		var keys []identity.KeyStatement
		for _, jws := range sent.Statements {
			if key, ok := must(identity.ParseStatement(jws)).Statement.(identity.KeyStatement); ok && !key.UID.IsZero() {
				keys = append(keys, key)
			}
		}
		if sent.SPKI != gateway.SPKI() || len(keys) != 1 || keys[0].Key != gateway || keys[0].UID != f.uid || keys[0].Serial == 0 {
			t.Errorf("stated: %+v", keys)
		}
		old := must(identity.SPKIOf(f.gatewayTLS.Leaf.PublicKey))
		got := entries(t, sent.Statements)
		if len(got) != 2 || !slices.Contains(got, identity.Entry{SPKI: old}) || !slices.ContainsFunc(got, func(e identity.Entry) bool { return e.UID == f.uid && e.All > 0 }) {
			t.Errorf("listed: %+v", got)
		}
		// The new key stands, the old one does not, and the neighbour and this admin are who they were.
		now := a.m.now()
		judge := func(chain []string, uid identity.UID, spki identity.SPKI) identity.Fault {
			_, err := a.state.owner.Judge(chain, identity.Peer{Name: identity.DeviceName("default", uid), SPKI: spki}, 0, now)
			return identity.FaultOf(err)
		}
		chain := must(identity.Verifier{Pinned: a.state.owner.Pinned(), Lists: a.state.owner.Lists()}.Assemble(
			parsed(append(sent.Statements, a.state.owner.Chain()...)), identity.Peer{Name: identity.DeviceName("default", f.uid), SPKI: gateway.SPKI()}, now))
		if fault := judge(chain, f.uid, gateway.SPKI()); fault != "" {
			t.Errorf("the new key: %s", fault)
		}
		if fault := judge(f.chain, f.uid, old); fault != identity.FaultRevoked {
			t.Errorf("the old key: %s", fault)
		}
		if fault := judge(others, other, neighbour.SPKI()); fault != "" {
			t.Errorf("the neighbour: %s", fault)
		}
		// The answer was lost: the same again lists neither the new key nor anybody else's.
		f.answer("GET /statements", jsonAnswer(api.Statements{Statements: append(pool, sent.Statements...)}))
		if _, err := a.AcceptDevice(t.Context(), "press", say(must(identity.Words(f.uid, gateway.SPKI())))); err != nil {
			t.Fatal(err)
		}
		if got := entries(t, sent.Statements); slices.Contains(got, identity.Entry{SPKI: gateway.SPKI()}) {
			t.Errorf("listed: %+v", got)
		}
		for what, d := range map[string]api.Device{"once": {UID: f.uid}, "without a key": {UID: f.uid, Cloned: &api.Clone{}}} {
			f.answer("GET "+path, jsonAnswer(d))
			if _, err := a.AcceptDevice(t.Context(), "press", say("")); transport.ReasonOf(err) != api.NotFound {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
