package manager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
)

// batches takes batches as a server does, and keeps the pieces. cut, unless it is negative, is how many more it takes before it
// loses an answer.
func (f *fake) batches(kept *[]string) (pieces *[]api.BatchRequest, cut *int) {
	pieces, cut = new([]api.BatchRequest), new(int)
	*cut = -1
	f.answer("GET /devices", jsonAnswer(api.Devices{}))
	f.answer("POST /batches", func(w http.ResponseWriter, r *http.Request) {
		var in api.BatchRequest
		decode(r, &in)
		if *cut == 0 {
			problemAnswer(429, "busy", "later")(w, r)
			return
		}
		*cut--
		*pieces = append(*pieces, in)
		for _, s := range in.Slots {
			*kept = append(*kept, s.Statements...)
		}
		jsonAnswer(api.Batch{Lookup: in.Lookup})(w, r)
	})
	return pieces, cut
}

// opens wants a batch in these pieces to be what its code says, and returns the UIDs by slot.
func (a *Account) opens(t *testing.T, b NewBatch, pieces []api.BatchRequest) []identity.UID {
	t.Helper()
	code, uids := must(identity.ParseOwnerCode(b.Code)), []identity.UID{{}}
	names := batchNames(b.Name, b.Devices)
	for _, p := range pieces {
		if raw := must(json.Marshal(p)); len(raw) > api.MaxBodyBytes {
			t.Errorf("a piece of %d bytes", len(raw))
		}
		for _, s := range p.Slots {
			subject, invite := must(identity.ParseStatement(s.Statements[0])), must(identity.ParseStatement(s.Statements[1]))
			i := identity.Invitation{Domain: "default", Key: a.state.owner.Pinned().Key, Subject: subject, Invite: invite, List: p.List}
			d := subject.Statement.(identity.DeviceStatement)
			if _, err := i.Open(code, s.MAC, a.rootPin(), identity.DeviceName("default", d.UID)); err != nil {
				t.Fatalf("slot %d: %v", len(uids), err)
			}
			said := invite.Statement.(identity.InviteStatement)
			if int(said.Slot) != len(uids) || said.Exp != b.Expires.Unix() || slices.Contains(uids, d.UID) || d.Name != names[len(uids)-1] || d.Folder != b.Folder {
				t.Fatalf("slot %d: %+v, %+v", len(uids), said, d)
			}
			uids = append(uids, d.UID)
		}
	}
	return uids[1:]
}

func TestABatchIsOneCodeForMany(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		pieces, _ := f.batches(kept)
		b, err := a.AddBatch(t.Context(), "press", "north/hall", 150, 14)
		if err != nil {
			t.Fatal(err)
		}
		if uids := a.opens(t, b, *pieces); len(uids) != 150 || len(*pieces) < 2 {
			t.Errorf("%d gateways in %d pieces", len(uids), len(*pieces))
		}
		if life := time.Until(b.Expires); life > 14*24*time.Hour || life < 14*24*time.Hour-time.Minute {
			t.Errorf("it lasts %v", life)
		}
		file := filepath.Join(t.TempDir(), "press.txt")
		code := b.Code
		if err := a.WriteBatch(&b, file); err != nil || b.Code != "" || b.File != file || !strings.Contains(string(must(os.ReadFile(file))), code) {
			t.Errorf("%v: %+v", err, b)
		}
		if err := a.CloseBatch(b); err != nil {
			t.Error(err)
		}
		if _, err := a.home.readBatch(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the code stays here: %v", err)
		}
		for what, n := range map[string][2]int{"none": {0, 30}, "too many": {1001, 30}, "too long": {5, 31}, "no time": {5, 0}} {
			if _, err := a.AddBatch(t.Context(), "press", "", n[0], n[1]); ExitCode(err) != 2 {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// Whatever is cut off, the server's answer or this program, the next run goes on with the same code, and until it is done
// nobody is told of one.
func TestABatchThatWasCutOffIsFinished(t *testing.T) {
	t.Attr("id", "T-batch")
	t.Attr("cases", "4")
	synctest.Test(t, func(t *testing.T) {
		for after := range 4 {
			f := newFake(t)
			m := f.manager()
			a := f.loggedIn(m)
			kept, _ := f.mailbox()
			pieces, cut := f.batches(kept)
			*cut = after
			b, err := a.AddBatch(t.Context(), "press", "", 160, 30)
			if (err == nil) != (after == 3) || after == 3 && len(*pieces) != 3 {
				t.Fatalf("after %d pieces: %v", after, err)
			}
			sent := slices.Clone(*pieces)
			a.Close()
			a = must(m.Open()) // as after a power cut
			if _, err := a.AddBatch(t.Context(), "other", "", 5, 30); ExitCode(err) != 2 || !strings.Contains(err.Error(), "add press --batch 160 --days 30") {
				t.Errorf("another one: %v", err)
			}
			*cut, *pieces = -1, nil
			again, err := a.AddBatch(t.Context(), "press", "", 160, 30)
			if err != nil || after == 3 && again != b {
				t.Fatalf("after %d pieces: %v", after, err)
			}
			a.opens(t, again, *pieces)
			for i, p := range sent {
				if fmt.Sprint(p) != fmt.Sprint((*pieces)[i]) {
					t.Errorf("piece %d is another one", i)
				}
			}
			if err := a.CloseBatch(again); err != nil {
				t.Error(err)
			}
			a.Close()
		}
	})
}

// A name that somebody takes meanwhile ends the batch as a whole.
func TestABatchIsTakenAsAWholeOrNotAtAll(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.mailbox()
		lookup := ""
		f.answer("GET /devices", jsonAnswer(api.Devices{Devices: []api.Device{{Name: "pump-07", State: api.StatePending}, {Name: "mill-07", State: api.StateRevoked}}}))
		if _, err := a.AddBatch(t.Context(), "pump", "", 50, 30); transport.ReasonOf(err) != api.NameTaken {
			t.Errorf("a name that is there: %v", err)
		}
		f.answer("POST /batches", func(w http.ResponseWriter, r *http.Request) {
			var in api.BatchRequest
			decode(r, &in)
			if lookup == "" {
				lookup = in.Lookup
				f.answer("POST /batches/"+lookup+"/end", jsonAnswer(api.BatchEnded{Devices: 60}))
				jsonAnswer(api.Batch{})(w, r)
				return
			}
			problemAnswer(409, "name-taken", "another device has this name")(w, r)
		})
		if _, err := a.AddBatch(t.Context(), "mill", "", 150, 30); transport.ReasonOf(err) != api.NameTaken {
			t.Errorf("a name that is taken meanwhile: %v", err)
		}
		if _, err := a.home.readBatch(); !errors.Is(err, fs.ErrNotExist) || f.called("POST /batches/"+lookup+"/end") != 1 {
			t.Errorf("what was sent is not ended: %v", err)
		}
		n := f.called("POST /batches")
		f.answer("POST /batches", problemAnswer(409, "code-taken", "the code is used already"))
		if _, err := a.AddBatch(t.Context(), "mill", "", 2, 30); transport.ReasonOf(err) != transport.CodeTaken || f.called("POST /batches") != n+maxTries {
			t.Errorf("%d tries, %v", f.called("POST /batches")-n, err)
		}
		if _, err := a.home.readBatch(); !errors.Is(err, fs.ErrNotExist) {
			t.Error("a code that is somebody else's stays here")
		}
	})
}

// Keys of a batch wait for a person: no other command confirms them. Of two that came with one slot none is confirmed.
func TestKeysOfABatchAreConfirmedByAPerson(t *testing.T) {
	t.Attr("id", "T-batch")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		pieces, _ := f.batches(kept)
		*kept = append(*kept, a.state.owner.Chain()...)
		f.answer("GET /users", jsonAnswer(api.Users{}))
		b := must(a.AddBatch(t.Context(), "press", "", 3, 30))
		uids, code := a.opens(t, b, *pieces), must(identity.ParseOwnerCode(b.Code))
		var devices []api.Device
		state := func(slot int) identity.SPKI {
			key := identity.KeyStatement{Domain: "default", Subject: identity.Subject{UID: uids[slot-1]}, Key: must(identity.NewPublicKey(identitytest.NewKey().Public()))}
			*kept = append(*kept, must(identity.Sign(key, code.InviteKey(uint32(slot)))).JWS)
			return key.Key.SPKI()
		}
		for i := range 3 {
			d := api.Device{UID: uids[i], Name: "swapped", State: api.StateEnrolled, SPKI: state(i + 1), Online: true, Lookup: b.Lookup}
			devices = append(devices, d)
			f.answer("GET /devices/"+d.UID.String(), jsonAnswer(d))
		}
		state(3) // somebody has copied slot 3
		f.answer("GET /devices", jsonAnswer(api.Devices{Devices: devices}))
		n := f.called("POST /statements")
		if _, err := a.Users(t.Context()); err != nil || f.called("POST /statements") != n {
			t.Fatalf("another command confirms them: %v", err)
		}
		waiting, err := a.BatchKeys(t.Context(), nil, b.Lookup, false)
		if err != nil || len(waiting) != 2 || waiting[0].Name != "press-1" || waiting[1].UID != uids[1] {
			t.Fatalf("%+v, %v", waiting, err)
		}
		if one, err := a.BatchKeys(t.Context(), []string{"press-2"}, "", false); err != nil || len(one) != 1 || one[0].UID != uids[1] {
			t.Errorf("%+v, %v", one, err)
		}
		if other, err := a.BatchKeys(t.Context(), nil, "ABCDEF", false); err != nil || len(other) != 0 {
			t.Errorf("%+v, %v", other, err)
		}
		if got, err := a.ConfirmDevices(t.Context(), []string{"press-1"}, waiting[:1]); err != nil || got[0].Key != KeyConfirmed {
			t.Errorf("%+v, %v", got, err)
		}
		got, err := a.ConfirmDevices(t.Context(), []string{"press-2", "press-3"}, nil)
		if transport.ReasonOf(err) != transport.NotStated || got[0].Key != KeyUnconfirmed || got[1].Key != KeyUnconfirmed {
			t.Errorf("what nobody has seen: %+v, %v", got, err)
		}
		if all, err := a.BatchKeys(t.Context(), nil, "", true); err != nil || len(all) != 1 || all[0].UID != uids[1] {
			t.Errorf("left: %+v, %v", all, err)
		}
	})
}
