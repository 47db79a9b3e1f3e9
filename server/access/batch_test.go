package access

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// newBatch states n devices of plant, NAME-1 and so on, and makes one code for all of them.
func (w *world) newBatch(name string, n int) (identity.OwnerCode, api.BatchRequest) {
	code, o := identity.NewOwnerCode(), w.owner("plant")
	return code, w.pieceOf(code, name, 1, n, time.Unix(0, int64(o.Serial())*1e6).Add(30*24*time.Hour))
}

// pieceOf is a piece of a batch with the slots from first to last.
func (w *world) pieceOf(code identity.OwnerCode, name string, first, last int, end time.Time) api.BatchRequest {
	o := w.owner("plant")
	hash := identity.AuthHash(code.Auth())
	b := api.BatchRequest{Lookup: code.LookupID(), Hash: hash[:], Signers: []string{}}
	for i := first; i <= last; i++ {
		said := must(o.Pinned.Invite(code, o.Device(identity.NewUID(), fmt.Sprintf("%s-%d", name, i)), uint32(i), end, o.Serial(), 0, o.DomainKey))
		mac := must(said.MAC(code, w.pki.Pin()))
		b.Slots = append(b.Slots, api.NewSlot{MAC: mac[:], Statements: []string{said.Subject.JWS, said.Invite.JWS}})
	}
	return b
}

// addBatch makes a batch of n devices.
func (w *world) addBatch(admin *someone, name string, n int) identity.OwnerCode {
	w.t.Helper()
	code, body := w.newBatch(name, n)
	if status := w.call(admin, http.MethodPost, "/api/v1/batches", body, nil); status != http.StatusCreated {
		w.t.Fatalf("add batch %s: %d", name, status)
	}
	return code
}

// awaits is a question of a gateway whether somebody has claimed it.
func (w *world) awaits(code identity.OwnerCode, who *someone) error {
	auth := code.Auth()
	id, err := w.ask(w.connect(nil), wire.TypeEnroll, wire.Enroll{Lookup: code.LookupID(), Auth: auth[:], CSR: who.CSR(), Claim: true,
		Hints: map[string]string{"serial": "b1"}})
	if err == nil {
		who.take(id)
	}
	return err
}

// reasonOf is the code of an answer, empty for success.
func reasonOf(status int, raw []byte) transport.Reason {
	var problem api.Problem
	if status >= 300 {
		json.Unmarshal(raw, &problem)
	}
	return problem.Code
}

func claimPath(code identity.OwnerCode) string {
	hash := identity.AuthHash(code.Auth())
	return "/api/v1/claims/" + code.LookupID() + "?hash=" + hex.EncodeToString(hash[:])
}

// Each gateway of a batch gets a slot of its own, also when all come at once, and keeps it for as long as the code lasts.
func TestEachGatewayOfABatchGetsItsOwnSlot(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		const n = 20
		code := w.addBatch(admin, "press", n)
		gateways := make([]*someone, n)
		var all sync.WaitGroup
		for i := range gateways {
			gateways[i] = newSomeone()
			all.Go(func() {
				if err := w.enroll(code.String(), gateways[i]); err != nil {
					t.Errorf("gateway %d: %v", i, err)
				}
			})
		}
		all.Wait()
		uids := make(map[identity.UID]bool)
		for _, g := range gateways {
			uids[g.id.UID] = true
		}
		if len(uids) != n {
			t.Errorf("%d gateways have %d identities", n, len(uids))
		}
		late := newSomeone()
		for range 30 { // more than are limited: it is no guess
			err := w.enroll(code.String(), late)
			wantReason(t, "one too many", err, transport.BadCode)
			if !strings.Contains(err.Error(), "every place of this batch is taken") {
				t.Fatal(err)
			}
		}
		if got := w.actions(200); !slices.Contains(got, "enroll-refused bad-code") || len(got) > 2*n+12 {
			t.Errorf("%d records: %v", len(got), got)
		}
		time.Sleep(29 * 24 * time.Hour)
		was := gateways[3].id.UID
		if err := w.enroll(code.String(), gateways[3]); err != nil || gateways[3].id.UID != was {
			t.Errorf("after weeks: %v, %v, was %v", err, gateways[3].id.UID, was)
		}
		time.Sleep(2 * 24 * time.Hour)
		wantReason(t, "after the end of the code", w.enroll(code.String(), gateways[3]), transport.BadCode)
	})
}

// The pieces of a batch come in any order, twice, and again after a lost answer. What does not fit them is refused as a whole.
func TestABatchIsTakenInPieces(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		code, end := identity.NewOwnerCode(), time.Now().Add(29*24*time.Hour)
		first, second := w.pieceOf(code, "press", 1, 3, end), w.pieceOf(code, "press", 4, 6, end)
		post := func(b api.BatchRequest) transport.Reason {
			response, raw := w.callRaw(admin, http.MethodPost, "/api/v1/batches", b)
			return reasonOf(response.StatusCode, raw)
		}
		for i, b := range []api.BatchRequest{second, first, second, first} {
			if got := post(b); got != "" {
				t.Errorf("piece %d: %s", i, got)
			}
		}
		if got := w.pendingOf(code.LookupID()); got != 6 {
			t.Errorf("%d devices wait", got)
		}
		other := w.pieceOf(code, "press", 7, 7, end)
		for what, change := range map[string]func(*api.BatchRequest){
			"code-taken: a slot twice":            func(b *api.BatchRequest) { *b = w.pieceOf(code, "other", 2, 2, end) },
			"code-taken: another code":            func(b *api.BatchRequest) { b.Hash = make([]byte, 32) },
			"bad-request: another end":            func(b *api.BatchRequest) { *b = w.pieceOf(code, "press", 7, 7, end.Add(time.Hour)) },
			"bad-request: no slots":               func(b *api.BatchRequest) { b.Slots = nil },
			"bad-request: no mac":                 func(b *api.BatchRequest) { b.Slots[0].MAC = make([]byte, 32) },
			"bad-request: one statement":          func(b *api.BatchRequest) { b.Slots[0].Statements = b.Slots[0].Statements[:1] },
			"bad-request: the slot of no batch":   func(b *api.BatchRequest) { *b = w.pieceOf(code, "press", 0, 0, end) },
			"bad-request: a slot that is too big": func(b *api.BatchRequest) { *b = w.pieceOf(code, "press", 1001, 1001, end) },
			"name-taken: a name of the batch":     func(b *api.BatchRequest) { *b = w.pieceOf(identity.NewOwnerCode(), "press", 1, 1, end) },
		} {
			b := other
			b.Slots = slices.Clone(b.Slots)
			change(&b)
			want, _, _ := strings.Cut(what, ":")
			if got := post(b); got != transport.Reason(want) {
				t.Errorf("%s: %q", what, got)
			}
		}
		single, body := w.newCode(w.owner("plant").Device(identity.NewUID(), "single"))
		_ = single
		body.Lookup, body.Hash = code.LookupID(), first.Hash
		if response, raw := w.callRaw(admin, http.MethodPost, "/api/v1/devices", api.DeviceRequest{Code: body}); reasonOf(response.StatusCode, raw) != transport.CodeTaken {
			t.Errorf("a device with the code of a batch: %s", raw)
		}
		if got := w.pendingOf(code.LookupID()); got != 6 {
			t.Errorf("%d devices wait", got)
		}
	})
}

// What ends takes no gateway with it: a device that was revoked, or has a code of its own, leaves its slot to nobody; a batch
// that ends leaves what has enrolled.
func TestSlotsAndBatchesEnd(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		code := w.addBatch(admin, "press", 4)
		for _, name := range []string{"press-1", "press-2"} {
			if name == "press-1" {
				w.call(admin, http.MethodPost, "/api/v1/devices/"+name+"/revoke", nil, nil)
				continue
			}
			var d api.Device
			w.call(admin, http.MethodGet, "/api/v1/devices/"+name, nil, &d)
			if d.Lookup != code.LookupID() {
				t.Errorf("%s says %q", name, d.Lookup)
			}
			_, body := w.newCode(w.owner("plant").Device(d.UID, name))
			if status := w.call(admin, http.MethodPost, "/api/v1/devices/"+name+"/code", api.DeviceRequest{Code: body}, nil); status != http.StatusCreated {
				t.Fatal(status)
			}
		}
		first := newSomeone()
		if err := w.enroll(code.String(), first); err != nil || first.id.Name != "press-3" {
			t.Fatalf("%v, %s", err, first.id.Name)
		}
		var ended api.BatchEnded
		path := "/api/v1/batches/" + code.LookupID() + "/end"
		if status := w.call(admin, http.MethodPost, path, nil, &ended); status != http.StatusOK || ended.Devices != 1 {
			t.Errorf("%d, %+v", status, ended)
		}
		wantReason(t, "after the end", w.enroll(code.String(), newSomeone()), transport.BadCode)
		if err := w.enroll(code.String(), first); transport.ReasonOf(err) != "" {
			t.Errorf("the one that has it asks again within a day: %v", err)
		}
		var d api.Device
		w.call(admin, http.MethodGet, "/api/v1/devices/press-3", nil, &d)
		if d.State != api.StateEnrolled {
			t.Errorf("press-3 is %s", d.State)
		}
		w.addBatch(admin, "press", 1) // the names of what was revoked are free
	})
}

// pendingOf counts the devices that wait with a code.
func (w *world) pendingOf(lookup string) (n int) {
	w.view(func(tx *store.Tx) error {
		list, err := tx.PendingOf("plant", lookup, 2000)
		n = len(list)
		return err
	})
	return n
}

// Two nodes on one database give no slot twice, and neither does one that is told the same twice.
func TestTwoNodesGiveNoSlotTwice(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.end()
		const n = 12
		code := p.addBatch(p.admin, "bench", n)
		gateways := make([]*someone, n)
		var all sync.WaitGroup
		for i := range gateways {
			gateways[i] = newSomeone()
			for _, node := range []*world{p.world, p.second} { // the same gateway asks both
				all.Go(func() {
					twin := *gateways[i]
					client := *twin.Client
					twin.Client = &client
					if err := node.enroll(code.String(), &twin); err != nil {
						t.Errorf("gateway %d: %v", i, err)
					}
				})
			}
		}
		all.Wait()
		used := make(map[string]identity.SPKI)
		p.view(func(tx *store.Tx) error {
			for _, g := range gateways {
				slot, err := tx.SlotOf(code.LookupID(), g.spki())
				if err != nil {
					return err
				}
				if other, ok := used[slot.Subject]; ok {
					t.Errorf("%s is that of %v and %v", slot.Subject, other, g.spki())
				}
				used[slot.Subject] = g.spki()
			}
			return nil
		})
		if len(used) != n {
			t.Errorf("%d gateways have %d devices", n, len(used))
		}
	})
}

// A gateway that waits is shown to whoever has its code, and enrolls when somebody has claimed it.
func TestAGatewayWaitsToBeClaimed(t *testing.T) {
	t.Attr("id", "T-claim")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin, code, gateway := w.login(), identity.NewOwnerCode(), newSomeone()
		for range 3 {
			err := w.awaits(code, gateway)
			wantReason(t, "unclaimed", err, transport.Pending)
			if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.RetryAfter <= 0 {
				t.Errorf("%+v", r)
			}
			time.Sleep(time.Minute)
		}
		var c api.Claim
		if status := w.call(admin, http.MethodGet, claimPath(code), nil, &c); status != http.StatusOK || c.Hints["serial"] != "b1" ||
			c.Address != clientAddr.String() || c.Seen.Sub(c.Since) != 2*time.Minute {
			t.Errorf("%d, %+v", status, c)
		}
		stranger := identity.NewOwnerCode() // who has seen the lookup id alone
		hash := identity.AuthHash(stranger.Auth())
		for _, path := range []string{claimPath(stranger), "/api/v1/claims/" + code.LookupID(), "/api/v1/claims/" + code.LookupID() + "?hash=" + hex.EncodeToString(hash[:])} {
			if status := w.call(admin, http.MethodGet, path, nil, nil); status != http.StatusNotFound {
				t.Errorf("%s: %d", path, status)
			}
		}
		wantReason(t, "as a code that somebody gave it", w.enroll(code.String(), gateway), transport.BadCode)
		o := w.owner("plant")
		said := must(o.Pinned.Invite(code, o.Device(identity.NewUID(), "press"), 0, time.Now().Add(71*time.Hour), o.Serial(), 0, o.DomainKey))
		body := api.DeviceRequest{Code: must(api.CodeOf(code, said, w.pki.Pin(), nil))}
		for range 2 { // the answer may be lost
			if status := w.call(admin, http.MethodPost, "/api/v1/devices", body, nil); status != http.StatusCreated {
				t.Fatal(status)
			}
		}
		second := must(o.Pinned.Invite(code, o.Device(identity.NewUID(), "mine"), 0, time.Now().Add(71*time.Hour), o.Serial(), 0, o.DomainKey))
		response, raw := w.callRaw(admin, http.MethodPost, "/api/v1/devices", api.DeviceRequest{Code: must(api.CodeOf(code, second, w.pki.Pin(), nil))})
		if got := reasonOf(response.StatusCode, raw); got != transport.CodeTaken {
			t.Errorf("two who claim the same: %s", raw)
		}
		if err := w.awaits(code, gateway); err != nil || gateway.id.Name != "press" {
			t.Errorf("%v, %s", err, gateway.id.Name)
		}
		wantReason(t, "another key", w.awaits(code, newSomeone()), transport.BadCode)
		if status := w.call(admin, http.MethodGet, claimPath(code), nil, nil); status != http.StatusNotFound {
			t.Errorf("it is shown when it has enrolled: %d", status)
		}
		code = identity.NewOwnerCode()
		wantReason(t, "another one", w.awaits(code, newSomeone()), transport.Pending)
		time.Sleep(claimForgotten)
		if status := w.call(admin, http.MethodGet, claimPath(code), nil, nil); status != http.StatusNotFound {
			t.Errorf("it is shown for ever: %d", status)
		}
	})
}

// Who asks again and again is made to wait, and nobody else with him.
func TestQuestionsOfThoseWhoWaitAreLimited(t *testing.T) {
	t.Attr("id", "T-claim")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		code := identity.NewOwnerCode()
		for i := range 12 {
			want := transport.Pending
			if i >= limitFailures {
				want = transport.Busy
			}
			wantReason(t, fmt.Sprint("question ", i), w.awaits(code, newSomeone()), want)
		}
		wantReason(t, "a neighbour", w.awaits(identity.NewOwnerCode(), newSomeone()), transport.Pending)
		time.Sleep(limitWindow)
		wantReason(t, "a minute later", w.awaits(code, newSomeone()), transport.Pending)
	})
}

// Whoever wants to fill the memory with gateways that wait pushes out his own, and at most those of others who ask again.
func TestWaitingGatewaysAreBounded(t *testing.T) {
	t.Attr("id", "T-claim")
	var c claims
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	of := func(i, source int) waiting {
		return waiting{claimed: claimed{fmt.Sprintf("%06d", i), store.Hash{byte(source)}}, from: netip.AddrFrom4([4]byte{10, byte(source >> 8), byte(source), 1}), seen: now}
	}
	honest := of(0, 0)
	c.note(honest)
	for i := range 3 * mostClaimsOfOne {
		c.note(of(i, 1))
	}
	if len(c.list) != mostClaimsOfOne+1 || c.find(honest.claimed, now) == nil || c.find(of(0, 1).claimed, now) != nil {
		t.Errorf("%d wait", len(c.list))
	}
	for i := range 3 * mostClaims {
		c.note(of(i, i))
	}
	if len(c.list) != mostClaims || c.find(honest.claimed, now) != nil {
		t.Errorf("%d wait", len(c.list))
	}
	c.note(honest)
	if c.find(honest.claimed, now) == nil || c.find(honest.claimed, now.Add(claimForgotten)) != nil {
		t.Error("who asks again is not there, or for ever")
	}
}
