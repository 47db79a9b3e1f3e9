package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/wire"
)

// What the server gives is on the medium before it is answered, in both slots, and is what the next hello shows.
func TestAJoinStateIsStoredTwiceBeforeItIsAnswered(t *testing.T) {
	t.Attr("id", "T-clone")
	bubble(t, func(r *rig) {
		r.enrollNow()
		p := r.start()
		link := <-r.access.Links
		if link.Hello.JoinState != nil {
			t.Errorf("the first hello shows %x", link.Hello.JoinState)
		}
		give := func(state string, counter uint64) uint64 {
			t.Helper()
			wire.WriteJSON(link, wire.TypeJoinState, wire.JoinState{Counter: counter, State: []byte(state)})
			f := <-link.Frames
			for f.Type != wire.TypeJoinStateAck {
				f = <-link.Frames
			}
			var ack wire.JoinStateAck
			if err := f.Decode(&ack); err != nil {
				t.Fatal(err)
			}
			return ack.Counter
		}
		if got := give("state 7", 7); got != 7 {
			t.Errorf("answered %d", got)
		}
		for _, slot := range []string{".0", ".1"} {
			b := must(os.ReadFile(filepath.Join(r.dir, stateSlots+slot)))(t)
			if !bytes.Contains(b, must(json.Marshal([]byte("state 7")))(t)) {
				t.Errorf("slot %s does not have it", slot)
			}
		}
		if got := give(string(make([]byte, identity.MaxJoinStateBytes+1)), 8); got != 0 {
			t.Errorf("one that is too long is answered with %d", got)
		}
		stored := 0
		for i := range uint64(20) {
			if give(fmt.Sprint("state ", i), 100+i) != 0 {
				stored++
			}
		}
		if stored == 0 || stored > 6 {
			t.Errorf("%d of a flood were stored", stored)
		}
		before := p.store.joinState(p.self.Load().SPKI)
		p.stop(time.Second)
		p = r.start()
		if got := (<-r.access.Links).Hello.JoinState; len(got) == 0 || !bytes.Equal(got, before) {
			t.Errorf("the next hello shows %q, want %q", got, before)
		}
		p.stop(time.Second)
	})
}

func TestAJoinStateIsOfOneKey(t *testing.T) {
	s := must(openStore(filepath.Join(t.TempDir(), "state"), nil))(t)
	if err := s.saveJoin(identity.SPKI{1}, []byte("x")); err != nil || s.joinState(identity.SPKI{2}) != nil || string(s.joinState(identity.SPKI{1})) != "x" {
		t.Errorf("%v, %q", err, s.joinState(identity.SPKI{1}))
	}
	for _, slot := range []string{".0", ".1"} { // either of them may go bad
		dir := s.dir
		b := must(os.ReadFile(filepath.Join(dir, stateSlots+slot)))(t)
		if err := os.WriteFile(filepath.Join(dir, stateSlots+slot), []byte("rot"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := must(openStore(dir, nil))(t).joinState(identity.SPKI{1}); string(got) != "x" {
			t.Errorf("without slot %s: %q", slot, got)
		}
		if err := os.WriteFile(filepath.Join(dir, stateSlots+slot), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJoinStatesAreWrittenAFewTimesADay(t *testing.T) {
	var rate joinRate
	now, n := time.Now(), 0
	for range 10 * 24 * 60 {
		now = now.Add(time.Minute)
		if rate.take(now) {
			n++
		}
	}
	if n < 60 || n > 66 {
		t.Errorf("%d in ten days", n)
	}
}

// chosen is what a server sends when the owner has chosen this gateway: the certificate, and his word.
func (r *rig) chosen(csr []byte, change func(*wire.Identity)) wire.Identity {
	id := r.access.Identity(testName, csr, 30*day)
	pub := must(identity.ParseCSR(csr))(r.t)
	id.Statements = r.owner.DeviceChain(testUID, "gateway 7", pub)
	if change != nil {
		change(&id)
	}
	return id
}

// A gateway that is told of another machine makes one fresh key, says so at its status, lets nobody in, and takes that key's
// certificate by its owner's word and by nobody else's.
func TestAClonedGatewayWaitsForItsOwnersWord(t *testing.T) {
	t.Attr("id", "T-clone")
	bubble(t, func(r *rig) {
		r.enrollNow()
		r.access.Set(func() { r.access.Welcome.Cloned = true })
		p := r.start()
		link := <-r.access.Links
		fresh := func() (m wire.FreshKey) {
			t.Helper()
			f := <-link.Frames
			if f.Type != wire.TypeFreshKey || f.Decode(&m) != nil {
				t.Fatalf("frame %#02x", byte(f.Type))
			}
			return m
		}
		csr := fresh().CSR
		shown := must(ShowIdentity(r.dir))(t)
		spki := must(identity.SPKIOf(must(identity.ParseCSR(csr))(t)))(t)
		if st := p.Status(); st.Fresh == nil || st.Fresh.SPKI != spki.String() || shown.Fresh == nil || *shown.Fresh != *st.Fresh || st.Signal != SignalRefused {
			t.Errorf("status %+v, identity show %+v", st, shown)
		}
		stranger := identitytest.NewOwner("plant")
		for what, change := range map[string]func(*wire.Identity){
			"no statements": func(id *wire.Identity) { id.Statements = nil },
			"of another owner": func(id *wire.Identity) {
				id.Statements = stranger.DeviceChain(testUID, "gateway 7", must(identity.ParseCSR(csr))(t))
			},
			"about another key": func(id *wire.Identity) {
				id.Statements = r.owner.DeviceChain(testUID, "gateway 7", identitytest.NewKey().Public())
			},
			"another device": func(id *wire.Identity) {
				*id = r.access.Identity(identity.DeviceName("plant", identity.UID{9}), csr, 30*day)
			},
			"another root": func(id *wire.Identity) {
				id.Chain = r.access.IdentityBy(identitytest.New(time.Now()), testName, csr, 30*day).Chain
			},
			"nothing whatsoever": func(id *wire.Identity) { *id = wire.Identity{} },
		} {
			wire.WriteJSON(link, wire.TypeIdentity, r.chosen(csr, change))
			time.Sleep(time.Second)
			if p.store.isAccepted() || p.self.Load().SPKI == spki || p.Status().State != StateAttached {
				t.Fatalf("%s: taken", what)
			}
		}
		// The power is cut, and it comes back with the same key.
		p.stop(time.Second)
		p = r.start()
		link = <-r.access.Links
		if again := fresh().CSR; !bytes.Equal(must(publicOf(again))(t), must(publicOf(csr))(t)) {
			t.Error("another fresh key after a power cut")
		}
		r.access.Set(func() { r.access.Welcome.Cloned = false })
		wire.WriteJSON(link, wire.TypeIdentity, r.chosen(csr, nil))
		link = <-r.access.Links
		p.await(StateAttached, time.Minute)
		if st := p.Status(); p.self.Load().SPKI != spki || st.Fresh != nil || st.Owner == nil || st.Owner.Fault != "" || link.Hello.Key == "" {
			t.Errorf("afterwards: %+v", st)
		}
		if _, err := os.Stat(filepath.Join(r.dir, freshFile)); !os.IsNotExist(err) {
			t.Errorf("the fresh key is still there: %v", err)
		}
		p.stop(time.Second)
	})
}

func publicOf(csr []byte) ([]byte, error) {
	pub, err := identity.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	spki, err := identity.SPKIOf(pub)
	return spki[:], err
}

// Wherever the power is cut while the new key is put in its place, the gateway is the old one or the new one, whole.
func TestAPowerCutLeavesTheOldOrTheNewKey(t *testing.T) {
	t.Attr("id", "T-clone")
	cases := 0
	for cut := range 6 {
		bubble(t, func(r *rig) {
			r.enrollNow()
			a := must(New(r.opts))(t)
			self := must(a.store.self())(t)
			key := identitytest.NewKey()
			csr := must(identity.NewCSR(key))(t)
			spki := must(identity.SPKIOf(key.Public()))(t)
			a.self.Store(self)
			files := func() map[string][]byte {
				all := map[string][]byte{}
				for _, e := range must(os.ReadDir(r.dir))(t) {
					all[e.Name()] = must(os.ReadFile(filepath.Join(r.dir, e.Name())))(t)
				}
				return all
			}
			before := files()
			if err := a.accepted(self, key, r.chosen(csr, nil)); err != nil {
				t.Fatal(err)
			}
			committed := files()
			if err := a.store.finishAccepted(); err != nil {
				t.Fatal(err)
			}
			after := files()
			// A prefix of what was written is on the medium: the commit, then these in order, of which the slots of the owner are one.
			before[acceptedFile] = committed[acceptedFile]
			for i, name := range []string{"owner.0", "owner.1", keyFile, identityFile, freshFile} {
				if i < cut {
					before[name] = after[name]
				}
			}
			for name, b := range before {
				path := filepath.Join(r.dir, name)
				if b == nil {
					os.Remove(path)
				} else if err := durable.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cases++
			b := must(New(r.opts))(t)
			if state, err := b.boot(t.Context()); state != StateDial || err != nil {
				t.Fatalf("cut %d: %s, %v", cut, state, err)
			}
			if got := b.self.Load(); got.SPKI != spki || b.store.isAccepted() {
				t.Errorf("cut %d: it has %s", cut, got.SPKI)
			}
			if known, err := b.ownerOf(b.self.Load()); err != nil || len(known.Chain()) != 2 {
				t.Errorf("cut %d: owner %v", cut, err)
			}
		})
	}
	t.Attr("cases", fmt.Sprint(cases))
}

// Only a refusal because of clones ends the sessions; the state machine dials again, to hear what is wanted.
func TestAClonedRefusalIsDialledAgain(t *testing.T) {
	if got := next(StateAttached, transport.Cloned); got != StateDial {
		t.Errorf("it goes to %s", got)
	}
}
