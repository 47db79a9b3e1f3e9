package access

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// A user signs invites of himself as he likes. There is still room for what an admin says of him.
func TestInvitesOfAUserLeaveRoomForAnAdmin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		o, opera := s.owner("plant"), s.newUserAs("opera", identity.RoleOperator, nil)
		var got transport.Reason
		for range 2 * maxStated {
			invite := identity.InviteStatement{Domain: "plant", Subject: identity.Subject{User: "opera"},
				Key: must(identity.NewPublicKey(identitytest.NewKey().Public())), Exp: time.Now().Unix() + 3600, Serial: o.Serial()}
			jws := must(identity.Sign(invite, opera.Key)).JWS
			if got = s.code(opera, "POST", "/api/v1/statements", api.Statements{Statements: []string{jws}}); got != "" {
				break
			}
		}
		if got != transport.Policy {
			t.Errorf("one invite too many: %q", got)
		}
		viewer := o.User("opera", identity.RoleViewer, nil).JWS
		if got := s.code(s.admin, "POST", "/api/v1/statements", api.Statements{Statements: []string{viewer}}); got != "" {
			t.Errorf("an admin states him anew: %q", got)
		}
	})
}

// Whoever has an admin's key can use up the serials of lists. Another admin can still shut him out.
func TestAnAdminWhoUsedUpTheSerialsIsShutOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		thief := s.newUserAs("ada", identity.RoleAdmin, nil)
		post := func(by *someone, serial uint64, entries ...identity.Entry) transport.Reason {
			list := identity.ListStatement{Domain: "plant", Serial: serial, Iat: time.Now().Unix(), Entries: append([]identity.Entry{}, entries...)}
			return s.code(by, "POST", "/api/v1/statements", api.Statements{Statements: []string{must(identity.Sign(list, by.Key)).JWS}})
		}
		if got := post(thief, identity.MaxSerial); got != "" {
			t.Fatal(got)
		}
		now := s.owner("plant").Serial()
		if got := post(s.admin, now); got != transport.Stale {
			t.Errorf("a list that does not shut him out: %q", got)
		}
		ada := identity.Entry{Subject: identity.Subject{User: "ada"}, All: now, Until: time.Now().Add(identity.EntryLifetime - time.Hour).Unix()}
		if got := post(s.admin, now, ada); got != "" {
			t.Errorf("he keeps himself in: %q", got)
		}
		if got := post(s.admin, now+1, ada); got != "" {
			t.Errorf("the next list: %q", got)
		}
	})
}

// Nor does a list of his keep that from a device, by its serial or by its size.
func TestADeviceHearsOfAnAdminsEndWhateverHisLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		thief := s.newUserAs("ada", identity.RoleAdmin, nil)
		now, until := s.owner("plant").Serial(), time.Now().Add(identity.EntryLifetime-time.Hour).Unix()
		var many []identity.Entry
		for i := range 600 {
			many = append(many, identity.Entry{Subject: identity.Subject{User: fmt.Sprintf("nobody-%03d", i)}, All: 1, Until: until})
		}
		for _, list := range []struct {
			by      *someone
			serial  uint64
			entries []identity.Entry
		}{{thief, identity.MaxSerial, many}, {s.admin, now, []identity.Entry{{Subject: identity.Subject{User: "ada"}, All: now, Until: until}}}} {
			st := identity.ListStatement{Domain: "plant", Serial: list.serial, Iat: time.Now().Unix(), Entries: identity.SortEntries(list.entries)}
			jws := must(identity.Sign(st, list.by.Key)).JWS
			if got := s.code(list.by, "POST", "/api/v1/statements", api.Statements{Statements: []string{jws}}); got != "" {
				t.Fatal(got)
			}
			if list.by == thief {
				continue
			}
			for _, knows := range []uint64{0, identity.MaxSerial} {
				time.Sleep(time.Minute)
				s.runtime.Close()
				h := s.device.hello("01")
				h.List = knows
				s.runtime = s.control(s.device, h)
				var told wire.Statements
				if s.runtime.read(wire.TypeStatements, &told); !slices.Contains(told.Statements, jws) {
					t.Errorf("a device that knows the list %d is told of %d statements, and not of that", knows, len(told.Statements))
				}
			}
		}
	})
}

// A list from the future would end what everybody was stated for. The server goes by its own clock, so that the way back is
// open, and keeps no such list.
func TestAListFromTheFutureShutsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		thief := s.newUserAs("ada", identity.RoleAdmin, nil)
		later := time.Now().Add(20 * 365 * 24 * time.Hour)
		list := identity.ListStatement{Domain: "plant", Serial: uint64(later.UnixMilli()), Iat: later.Unix(), Entries: []identity.Entry{}}
		jws := must(identity.Sign(list, thief.Key)).JWS
		if got := s.code(thief, "POST", "/api/v1/statements", api.Statements{Statements: []string{jws}}); got != transport.ClockWrong {
			t.Errorf("it is taken: %q", got)
		}
		if got := s.code(s.admin, "GET", "/api/v1/statements", nil); got != "" {
			t.Errorf("the owner is shut out: %q", got)
		}
	})
}
