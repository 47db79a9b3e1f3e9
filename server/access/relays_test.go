package access

import (
	"encoding/json"
	"reflect"
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

// relayRequest adds a relay that is where relayHello says.
func relayRequest(name string) api.RelayRequest {
	return api.RelayRequest{Name: name, Hosts: []string{"r1.example"}, Ports: []transport.Port{443}}
}

// addRelay makes a relay, enrolls it and connects it; the Runtime reads the pool.
func (s *stage) addRelay(name string) *control {
	s.t.Helper()
	var added api.NewRelay
	if status := s.call(s.admin, "POST", "/api/v1/relays", relayRequest(name), &added); status != 201 {
		s.t.Fatalf("add relay: %d", status)
	}
	who := newSomeone()
	if err := s.enroll(added.Code, who); err != nil {
		s.t.Fatal(err)
	}
	c := s.control(who, relayHello("cd"))
	s.runtime.read(wire.TypePool, nil)
	return c
}

// measured tells the server the round trips of both ends to r1, r2, … in ms.
func (s *stage) measured(manager, runtime []float64) {
	s.t.Helper()
	list := func(all []float64) (m wire.Measurements) {
		for i, v := range all {
			m.Relays = append(m.Relays, wire.Measurement{Name: "r" + string(rune('1'+i)), RTTUS: int64(v * 1000), Port: 443, Way: "direct"})
		}
		return m
	}
	if status := s.call(s.admin, "POST", "/api/v1/measurements", list(manager), nil); status != 204 {
		s.t.Fatalf("measurements: %d", status)
	}
	s.runtime.write(wire.TypeMeasurements, list(runtime))
	synctest.Wait()
}

func TestRelayIsAddedOnceAndEnrollsByItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		for _, name := range []string{"", "R2", "r2.x", "-r", "r 2", strings.Repeat("r", 64)} {
			if status := s.call(s.admin, "POST", "/api/v1/relays", relayRequest(name), nil); status != 400 {
				t.Errorf("%q: %d", name, status)
			}
		}
		var added api.NewRelay
		if status := s.call(s.admin, "POST", "/api/v1/relays", relayRequest("r2"), &added); status != 201 || added.Name != "r2" || time.Until(added.Expires) != codeLife {
			t.Errorf("%d %+v", status, added)
		}
		if got := s.actions(1); got[0] != "relay-add ok" {
			t.Errorf("audit: %v", got)
		}
		for _, name := range []string{"r1", "r2"} {
			if status := s.call(s.admin, "POST", "/api/v1/relays", relayRequest(name), nil); status != 409 {
				t.Errorf("%s again: %d", name, status)
			}
		}
		who := newSomeone()
		if err := s.enroll(added.Code, who); err != nil {
			t.Fatal(err)
		}
		peer, err := identity.Verify(who.Chain, s.pki.Roots, time.Now(), identity.KindRelay)
		if err != nil || peer.Name != identity.RelayName("r2") {
			t.Errorf("%v, %v", peer, err)
		}
		wantReason(t, "the code with another key", s.enroll(added.Code, newSomeone()), transport.BadCode)
	})
}

// A relay that was stolen is where it was added for, whatever it says; its name and its ports too.
func TestARelayIsWhereItWasAddedFor(t *testing.T) {
	t.Attr("id", "T-address")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		for what, at := range map[string]api.RelayRequest{
			"nowhere": {}, "no hosts": {Ports: []transport.Port{443}}, "a port in the host": {Hosts: []string{"r2.example:443"}},
			"no host": {Hosts: []string{"r2 example"}}, "port 0": {Hosts: []string{"r2.example"}, Ports: []transport.Port{0}},
			"too many": {Hosts: slices.Repeat([]string{"r2.example"}, maxHosts+1)},
		} {
			at.Name = "r2"
			if code := s.code(s.admin, "POST", "/api/v1/relays", at); code != api.BadRequest {
				t.Errorf("%s: %q", what, code)
			}
		}
		var added api.NewRelay
		s.call(s.admin, "POST", "/api/v1/relays", relayRequest("r2"), &added)
		who := newSomeone()
		if err := s.enroll(added.Code, who); err != nil {
			t.Fatal(err)
		}
		evil := relayHello("cd")
		evil.Hosts, evil.Ports = []string{"192.168.50.1", "169.254.169.254", "plc.factory.internal"}, []transport.Port{502, 22, 8080}
		c := s.control(who, evil)
		defer c.Close()
		var pool wire.Pool
		s.runtime.read(wire.TypePool, &pool)
		want := wire.Relay{Name: "r2", Hosts: []string{"r1.example"}, Ports: []transport.Port{443}}
		if got := pool.Relays[len(pool.Relays)-1]; !reflect.DeepEqual(got, want) {
			t.Errorf("the pool has %+v", got)
		}
	})
}

// Relays are everybody's: only the domain that came with the infrastructure adds them.
func TestOnlyTheInfrastructuresDomainAddsRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		s.put(&store.Domain{Name: "other", Created: time.Now()})
		for _, domain := range []string{"other", "nowhere"} {
			if code := s.code(s.newUser(domain, "eve"), "POST", "/api/v1/relays", relayRequest("r2")); code != transport.Policy {
				t.Errorf("%s: %q", domain, code)
			}
		}
		if status := s.call(s.newUser("plant", "anna"), "POST", "/api/v1/relays", relayRequest("r2"), nil); status != 201 {
			t.Errorf("a colleague: %d", status)
		}
	})
}

// The pool is pushed when it changes, at once, and only then.
func TestPoolIsPushedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		var added api.NewRelay
		s.call(s.admin, "POST", "/api/v1/relays", relayRequest("r2"), &added)
		// As one that came with the infrastructure: that one goes where the configuration says.
		if err := s.cfg.Store.Update(t.Context(), func(tx *store.Tx) error { return tx.Delete(&store.RelayAddresses{Relay: "r2"}) }); err != nil {
			t.Fatal(err)
		}
		who := newSomeone()
		s.enroll(added.Code, who)
		frames := make(chan wire.Frame, 16)
		go func() {
			defer close(frames)
			for {
				f, err := wire.Read(s.runtime)
				if err != nil {
					return
				}
				frames <- f
			}
		}()
		pushed := func(what string, want string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(frames) > 0 {
				f := <-frames
				if f.Type == wire.TypeJoinState {
					continue
				}
				var pool wire.Pool
				if err := f.Decode(&pool); err != nil || f.Type != wire.TypePool {
					t.Fatalf("%s: frame %#02x, %v", what, byte(f.Type), err)
				}
				var names []string
				for _, r := range pool.Relays {
					names = append(names, r.Name+"@"+r.Hosts[0])
				}
				got = append(got, strings.Join(names, " "))
			}
			if !slices.Equal(got, strings.Split(want, "|")) && !(want == "" && got == nil) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		start := time.Now()
		r2 := s.control(who, relayHello("01"))
		pushed("it came", "r1@r1.example r2@r1.example")
		again := s.control(who, relayHello("02"))
		pushed("another process, as it was", "")
		h := relayHello("03")
		h.Hosts = []string{"r2.example"}
		moved := s.control(who, h)
		pushed("another host", "r1@r1.example r2@r2.example")
		h.Ports = []transport.Port{80}
		ported := s.control(who, h)
		pushed("another port", "r1@r1.example r2@r2.example")
		other := s.control(s.addDevice(s.admin, "press 2"), hello("05"))
		other.Close()
		pushed("a device came and went", "")
		ported.CloseWrite() // it still reads, perhaps
		pushed("it went", "r1@r1.example")
		var pool wire.Pool
		if s.call(s.admin, "GET", "/api/v1/relays", nil, &pool); len(pool.Relays) != 1 || pool.Relays[0].Name != "r1" {
			t.Errorf("%+v", pool)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		for _, c := range []*control{r2, again, moved, ported} {
			c.Close()
		}
	})
}

// The session goes where both ends together are nearest, says why in the audit
// log, and stays there while the numbers wobble.
func TestSessionGoesToTheBestRelayForBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		r2, r3 := s.addRelay("r2"), s.addRelay("r3")
		defer r2.Close()
		defer r3.Close()
		rounds := []struct {
			manager, runtime []float64
			want, score      string
		}{
			{[]float64{5, 40, 90}, []float64{90, 40, 5}, "r2", "80.0"},  // r1 and r3 are good for one end
			{[]float64{5, 40, 50}, []float64{90, 40, 10}, "r2", "80.0"}, // r3: 20 better, not two thirds
			{[]float64{5, 40, 43}, []float64{90, 40, 10}, "r3", "53.0"},
			{[]float64{5, 40, 43}, []float64{40, 10, 10}, "r3", "53.0"},
		}
		for i, r := range rounds {
			s.measured(r.manager, r.runtime)
			o, _ := s.session()
			if o.Relay.Name != r.want {
				t.Errorf("round %d: %s", i, o.Relay.Name)
			}
			last := s.records(1)[0]
			if want := "relay " + r.want + " score " + r.score + " ms"; last.Action != actionSessionOpen || !strings.Contains(last.Detail, want) {
				t.Errorf("round %d: audit %q, want %q", i, last.Detail, want)
			}
			row := store.Decision{Device: s.device.id.UID, User: "admin"}
			s.get(&row)
			var d api.Decision
			if err := json.Unmarshal(row.Choice, &d); err != nil || d.Chosen != r.want || len(d.Relays) != 3 || d.Relays[0].Manager == nil {
				t.Errorf("round %d: stored %+v, %v", i, d, err)
			}
		}
		// What r3 says of itself can only count against it.
		r3.write(wire.TypeLoad, wire.Load{Pipes: 100, Max: 100})
		synctest.Wait()
		var d api.Decision
		s.call(s.admin, "GET", "/api/v1/devices/press%201/relays", nil, &d)
		if d.Incumbent != "r3" || d.Chosen != "r1" {
			t.Errorf("r3 is full: %+v", d)
		}
		if o, _ := s.session(); o.Relay.Name != "r1" {
			t.Errorf("a full relay: %s", o.Relay.Name)
		}
	})
}

func TestNoSessionWhenAllRelaysAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		s.relay.write(wire.TypeLoad, wire.Load{Pipes: 3, Max: 3})
		synctest.Wait()
		if got := <-s.open(s.admin, "press 1"); got.code != transport.NoRelay || got.status != 503 {
			t.Errorf("%+v", got)
		}
	})
}
