package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/wire"
)

// The server has the code's lookup id and auth, and every key but the root's and the owner's.
func TestAnInvitationOfAnybodyElseIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	for name, forge := range map[string]func(r *rig, code identity.OwnerCode, i *wire.Invitation){
		"none":          func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { *i = wire.Invitation{} },
		"no MAC":        func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { i.MAC = nil },
		"another MAC":   func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { i.MAC[31]++ },
		"another list":  func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { i.List++ },
		"one statement": func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { i.Statements = i.Statements[:1] },
		"no statement":  func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) { i.Statements[0] = "a.b.c" },
		"another key": func(_ *rig, _ identity.OwnerCode, i *wire.Invitation) {
			i.DomainKey = identitytest.NewOwner("plant").Key
		},
		"another owner": func(r *rig, _ identity.OwnerCode, _ *wire.Invitation) {
			r.owner = identitytest.NewOwner("plant")
			r.invite()
		},
		"another code": func(r *rig, _ identity.OwnerCode, _ *wire.Invitation) { r.invite() },
		"another name": func(r *rig, _ identity.OwnerCode, i *wire.Invitation) {
			i.Statements[0] = r.owner.Device(testUID, "press").JWS
		},
		"for another root": func(r *rig, code identity.OwnerCode, i *wire.Invitation) { i.MAC = r.mac(code, identity.SPKI{1}, i) },
		"of another device": func(r *rig, _ identity.OwnerCode, _ *wire.Invitation) {
			r.access.Certify(identity.DeviceName("plant", identity.UID{9}), 30*day)
		},
		"signed by nobody": func(r *rig, code identity.OwnerCode, i *wire.Invitation) { // the maker of the code is no admin
			stranger := identitytest.NewOwner("plant")
			said := must(stranger.Pinned.Invite(code, stranger.Device(testUID, "gateway 7"), 0, time.Now().Add(day), stranger.Serial(), 0, stranger.DomainKey))(r.t)
			said.Key = r.owner.Key
			mac := must(said.MAC(code, r.access.PKI.Pin()))(r.t)
			*i = wire.Invitation{DomainKey: said.Key, MAC: mac[:], Statements: []string{said.Subject.JWS, said.Invite.JWS}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.access.Certify(testName, 30*day)
				code := r.invite()
				forge(r, code, &r.access.Invitation)
				r.access.Code = code // it lets the gateway in, whatever it says then
				_, err := r.enrollBy(code)
				if transport.ReasonOf(err) != transport.NotStated || ExitCode(err) != answer.ExitRefused || strings.Contains(err.Error(), "\n") ||
					!strings.Contains(err.Error(), "nothing was stored") || !strings.Contains(Advice(err), "make a new code") {
					t.Errorf("%v; %s", err, Advice(err))
				}
				if got := names(t, r.dir); !slices.Equal(got, []string{keyFile}) {
					t.Errorf("left %q", got)
				}
			})
		})
	}
}

// mac is that of the invitation i for a root.
func (r *rig) mac(code identity.OwnerCode, root identity.SPKI, i *wire.Invitation) []byte {
	said := identity.Invitation{Domain: "plant", Key: i.DomainKey, Subject: must(identity.ParseStatement(i.Statements[0]))(r.t),
		Invite: must(identity.ParseStatement(i.Statements[1]))(r.t), List: i.List}
	mac := must(said.MAC(code, root))(r.t)
	return mac[:]
}

// Its maker knew a list that the server does not pass on. A list that it does pass on counts at once.
func TestAnInvitationFromWhoKnewMoreIsTaken(t *testing.T) {
	for name, passed := range map[string]bool{"with the list": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.access.Certify(testName, 30*day)
				list := r.strike("eve")
				code := r.invite()
				want := uint64(0)
				if passed {
					r.access.Invitation.Lists, want = []string{"no list", list.JWS}, r.owner.List
				}
				self := must(r.enrollBy(code))(t)
				if self.DomainKey != r.owner.Key.SPKI() {
					t.Errorf("domain key %v", self.DomainKey)
				}
				known := r.disk()
				if got, _ := known.Serials(); got != want || known.Pinned() != r.owner.Pinned {
					t.Errorf("list %d, want %d; pinned %+v", got, want, known.Pinned())
				}
				// The key is stated by the invite, and not confirmed yet.
				if o := must(ShowIdentity(r.dir))(t).Owner; o.Until.IsZero() == passed || (o.Fault == "stale") == passed {
					t.Errorf("shown %+v", o)
				}
			})
		})
	}
}

// Most devices are stated by an admin, whose own two statements lead to the domain key.
func TestAnInvitationOfAnAdminIsTaken(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		key, code := identitytest.NewKey(), identity.NewOwnerCode()
		admin := r.owner.UserChain("ada", identity.RoleAdmin, nil, key.Public())
		device := must(identity.Sign(identity.DeviceStatement{Domain: "plant", UID: testUID, Name: "press", Serial: r.owner.Serial()}, key))(t)
		said := must(r.owner.Pinned.Invite(code, device, 0, time.Now().Add(day), r.owner.Serial(), 0, key))(t)
		mac := must(said.MAC(code, r.access.PKI.Pin()))(t)
		r.access.Code = code
		r.access.Invitation = wire.Invitation{DomainKey: said.Key, MAC: mac[:], Statements: []string{device.JWS, said.Invite.JWS}}
		if _, err := r.enrollBy(code); transport.ReasonOf(err) != transport.NotStated {
			t.Errorf("without the admin's statements: %v", err)
		}
		r.access.Invitation.Statements = append(r.access.Invitation.Statements, admin...)
		must(r.enrollBy(code))(t)
		if chain := r.disk().Chain(); len(chain) != 5 {
			t.Errorf("a chain of %d", len(chain))
		}
	})
}

// Of the code the server gets what opens its answer, and nothing from which it could make one.
func TestTheServerGetsNoSecretOfACode(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		code := r.invite()
		must(r.enrollBy(code))(t)
		plain := strings.ReplaceAll(code.String(), "-", "")
		for _, secret := range []string{code.String(), plain, plain[7:], code.String()[9:]} {
			if r.access.Saw([]byte(secret)) {
				t.Errorf("the server saw %q of the code", secret)
			}
		}
		if !r.access.Saw([]byte(code.LookupID())) {
			t.Error("it did not see the lookup id")
		}
	})
}

func TestAServersCodeIsRefusedBeforeAnythingIsDialled(t *testing.T) {
	t.Attr("id", "A1-input")
	bubble(t, func(r *rig) {
		_, err := FirstContact{Code: identity.NewCode().String(), Pin: r.access.PKI.Pin().String()}.Prepare(&r.opts.Config)
		if identity.FaultOf(err) != identity.FaultBadCode || !strings.Contains(err.Error(), "code of a server") || !strings.Contains(Advice(err), "begins with U") {
			t.Errorf("%v; %s", err, Advice(err))
		}
		if n := r.access.Dials(); n != 0 {
			t.Errorf("dialled %d times", n)
		}
	})
}

// A power cut leaves any prefix of the writes. What is there then is no identity, and the same code gives the same one.
func TestAPowerCutAtAnyStepOfEnrolmentCostsNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		code := r.invite()
		r.access.Invitation.Lists = []string{r.strike("eve").JWS}
		first := must(r.enrollBy(code))(t)
		whole := r.dir
		order := []string{keyFile, "owner.0", "owner.1", rootFile, identityFile}
		for n := range order {
			r.dir = stateDir(t)
			r.opts.Config.Data = r.dir
			must(openStore(r.dir, nil))(t)
			for _, f := range order[:n] {
				write(t, filepath.Join(r.dir, f), string(must(os.ReadFile(filepath.Join(whole, f)))(t)), 0o600)
			}
			if info, err := ShowIdentity(r.dir); err != nil || info.Enrolled {
				t.Errorf("after %q: %+v, %v", order[:n], info, err)
			}
			self, err := r.enrollBy(code)
			if err != nil || self.UID != first.UID || n > 0 && self.SPKI != first.SPKI {
				t.Errorf("after %q: %+v, %v", order[:n], self, err)
				continue
			}
			if known := r.disk(); known.Pinned() != r.owner.Pinned || known.Lists().Newest(r.owner.Key) != r.owner.List || len(known.Chain()) != 3 {
				t.Errorf("after %q: %+v, chain of %d", order[:n], known.Pinned(), len(known.Chain()))
			}
		}
	})
}

// The owner is stored before the identity: what cannot be written stops the enrolment there.
func TestAnOwnerThatCannotBeStoredMakesNoIdentity(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		code := r.invite()
		must(openStore(r.dir, nil))(t)
		block(r)
		if _, err := r.enrollBy(code); err == nil {
			t.Error("enrolled")
		}
		if left := names(t, r.dir); slices.Contains(left, identityFile) || slices.Contains(left, rootFile) {
			t.Errorf("left %q", left)
		}
	})
}

// Who enrolls again after a reset may be of another owner.
func TestAResetForgetsTheOwner(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		must(r.enrollBy(r.invite()))(t)
		if err := Reset(r.dir); err != nil {
			t.Fatal(err)
		}
		if left := names(t, r.dir); len(left) != 0 {
			t.Errorf("left %q", left)
		}
		r.owner = identitytest.NewOwner("plant")
		must(r.enrollBy(r.invite()))(t)
		if r.disk().Pinned() != r.owner.Pinned {
			t.Error("the owner of before is still pinned")
		}
	})
}
