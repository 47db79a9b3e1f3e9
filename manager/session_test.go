package manager

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport/api"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// strikes is a list that ends everything of a user so far.
func (f *fake) strikes(user string) identity.Signed {
	until := time.Now().Add(300 * 24 * time.Hour).Unix()
	return f.owner.Lists(identity.Entry{Subject: identity.Subject{User: user}, All: f.owner.Serial(), Until: until})
}

// What a gateway missed, because it was offline or because its server withholds it, it gets of the next technician
// before it lets him in, and nothing that it has.
func TestTheNextTechnicianBringsWhatTheGatewayLacks(t *testing.T) {
	t.Attr("id", "T-revoke")
	t.Attr("cases", "7")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		kept, _ := f.mailbox()
		f.answer("GET /users", jsonAnswer(api.Users{}))
		before := f.strikes("bob").Statement.(identity.ListStatement).Serial
		list := f.strikes("eve")
		*kept = append(*kept, list.JWS)
		if _, err := a.Users(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.answer("GET /statements", jsonAnswer(api.Statements{})) // from now on the server withholds it
		device := must(identity.ParseStatement(f.chain[0])).Statement.(identity.DeviceStatement).Serial
		for name, tt := range map[string]struct {
			list, device uint64
			want         []string
		}{
			"no list":                                {0, device, []string{list.JWS}},
			"the list of before":                     {before, device, []string{list.JWS}},
			"a greater one, which may be a thief's":  {identity.MaxSerial, device, []string{list.JWS}},
			"this list, and an old statement of it":  {f.owner.List, device - 1, f.chain},
			"neither this list nor a statement":      {0, 0, append([]string{list.JWS}, f.chain...)},
			"all that the technician knows":          {f.owner.List, device, nil},
			"a greater statement, of another's word": {f.owner.List, identity.MaxSerial, nil},
		} {
			var told wire.Statements
			f.mu.Lock()
			f.hello = mux.Hello{DomainKey: f.owner.Key.SPKI(), List: tt.list, Device: tt.device}
			f.admit = func(s *session.Session) {
				ctx, cancel := context.WithTimeout(f.ctx, time.Second)
				defer cancel()
				if b, err := s.Told(ctx); err == nil {
					json.Unmarshal(b, &told)
				}
				s.Admit()
			}
			f.mu.Unlock()
			if _, err := a.Ping(t.Context(), "press", 1, nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !slices.Equal(told.Statements, tt.want) {
				t.Errorf("%s: the gateway was told %q, want %q", name, told.Statements, tt.want)
			}
		}
	})
}

// A gateway tells the technician the list that his server withholds, and he keeps it: the next gateway hears it of him.
func TestATechnicianKeepsTheListThatAGatewayTellsHim(t *testing.T) {
	t.Attr("id", "T-revoke")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		f.answer("GET /statements", jsonAnswer(api.Statements{}))
		list := f.strikes("eve")
		f.mu.Lock()
		f.hello = mux.Hello{DomainKey: f.owner.Key.SPKI(), List: f.owner.List}
		f.admit = func(s *session.Session) {
			s.Tell(must(json.Marshal(wire.Statements{Statements: []string{"no statement", list.JWS}})))
			s.Admit()
		}
		f.mu.Unlock()
		s, err := a.open(t.Context(), "press")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.Close()
		for who, now := range map[string]*Account{"the command": a, "the next command": must(m.Open())} {
			if serial, _ := now.state.owner.Serials(); serial != f.owner.List {
				t.Errorf("%s knows list %d, want %d", who, serial, f.owner.List)
			}
			if !slices.Equal(now.state.owner.News(f.owner.Key.SPKI(), 0, identity.MaxSerial), []string{list.JWS}) {
				t.Errorf("%s does not tell it on", who)
			}
		}
	})
}
