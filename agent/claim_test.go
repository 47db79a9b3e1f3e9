package agent

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/wire"
)

// unclaimed starts a gateway without an identity that knows its server, and returns the code that it shows.
func (r *rig) unclaimed() (*process, identity.OwnerCode) {
	r.t.Helper()
	r.opts.Config.Roots = r.access.PKI.Roots
	r.access.Certify(testName, 30*day)
	p := r.start()
	return p, r.shown(p)
}

// shown is the code that a gateway shows, which is the same everywhere.
func (r *rig) shown(p *process) identity.OwnerCode {
	r.t.Helper()
	r.until(time.Minute, "a code is shown", func() bool { return p.Status().Claim != "" })
	code := must(identity.ParseOwnerCode(p.Status().Claim))(r.t)
	if info := must(ShowIdentity(r.dir))(r.t); info.Enrolled || info.ClaimCode != code.String() {
		r.t.Errorf("identity show: %+v, status: %s", info, code)
	}
	return code
}

func TestAGatewayIsClaimed(t *testing.T) {
	t.Attr("id", "T-claim")
	bubble(t, func(r *rig) {
		var console bytes.Buffer
		r.notes.debug, r.opts.Console = true, &console
		p, code := r.unclaimed()
		time.Sleep(day)
		var gaps []time.Duration
		asked := r.access.Heard(wire.TypeEnroll)
		for i := range asked[1:] {
			gaps = append(gaps, asked[i+1].At.Sub(asked[i].At))
		}
		if len(gaps) < 1200 || slices.Min(gaps) < 30*time.Second || slices.Max(gaps) > 91*time.Second {
			t.Errorf("%d questions a day, %v to %v apart", len(asked), slices.Min(gaps), slices.Max(gaps))
		}
		r.access.Forget()
		time.Sleep(day)
		if n := len(r.access.Heard(wire.TypeEnroll)); n < 18 || n > 35 {
			t.Errorf("%d questions on the second day", n)
		}
		p.stop(time.Second)
		p = r.start() // the code may be on paper by now
		if again := r.shown(p); again != code {
			t.Fatal("another code after a restart")
		}
		r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
		p.await(StateAttached, 2*time.Minute)
		if st := p.Status(); st.Claim != "" || st.Owner == nil || st.Owner.Name != "gateway 7" {
			t.Errorf("status %+v", st)
		}
		if left := names(t, r.dir); slices.Contains(left, claimFile) {
			t.Errorf("left %q", left)
		}
		if !strings.Contains(console.String(), code.String()) {
			t.Error("the console does not show the code")
		}
		r.keepsSecret(code)
		p.stop(time.Second)
	})
}

// keepsSecret wants no part of a code's secret in the log, and nothing that leads to it at the server.
func (r *rig) keepsSecret(code identity.OwnerCode) {
	r.t.Helper()
	chars := strings.ReplaceAll(strings.TrimPrefix(code.String(), "U"), "-", "")
	secret := chars[len(code.LookupID()) : len(chars)-1]
	auth, log := code.Auth(), strings.ReplaceAll(r.notes.String(), "-", "")
	for i := 0; i+8 <= len(secret); i++ {
		if part := secret[i : i+8]; r.access.Saw([]byte(part)) || strings.Contains(log, part) {
			r.t.Fatal("a part of the secret was sent or logged")
		}
	}
	if !r.access.Saw([]byte(base64.StdEncoding.EncodeToString(auth[:]))) || strings.Contains(log, code.LookupID()) {
		r.t.Error("auth was not sent, or the code is in the log")
	}
}

// The server has the lookup id and auth of the code, and every key but the owner's.
func TestAServerClaimsNoGateway(t *testing.T) {
	t.Attr("id", "T-claim")
	for name, lie := range map[string]func(r *rig, code identity.OwnerCode){
		"no MAC": func(r *rig, code identity.OwnerCode) {
			r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
			r.access.Set(func() { r.access.Invitation.MAC = nil })
		},
		"a MAC of another code": func(r *rig, code identity.OwnerCode) {
			r.access.InviteBy(r.owner, identity.NewOwnerCode(), r.owner.Device(testUID, "gateway 7"))
			r.access.Set(func() { r.access.Code = code })
		},
		"another domain's key": func(r *rig, code identity.OwnerCode) {
			r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
			r.access.Set(func() { r.access.Invitation.DomainKey = identitytest.NewOwner("plant").Key })
		},
		"another name": func(r *rig, code identity.OwnerCode) {
			r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
			other := r.owner.Device(testUID, "gateway 8").JWS
			r.access.Set(func() { r.access.Invitation.Statements[0] = other })
		},
		"another device's certificate": func(r *rig, code identity.OwnerCode) {
			r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
			r.access.Certify(identity.DeviceName("plant", identity.UID{9}), 30*day)
		},
		"nothing at all": func(r *rig, code identity.OwnerCode) {
			r.access.Set(func() { r.access.Code = code })
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				p, code := r.unclaimed()
				lie(r, code)
				time.Sleep(time.Hour)
				if got := names(t, r.dir); p.Status().State != StateEnroll || slices.ContainsFunc(got, func(f string) bool { return f == identityFile || f == rootFile || strings.HasPrefix(f, "owner") }) {
					t.Errorf("state %s, left %q", p.Status().State, got)
				}
				if tr := p.Status().Troubles; !slices.ContainsFunc(tr, func(s string) bool { return strings.HasPrefix(s, "claim: ") }) {
					t.Errorf("troubles %q", tr)
				}
				if again := r.shown(p); again != code {
					t.Error("another code is shown")
				}
				r.access.Certify(testName, 30*day)
				r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
				p.await(StateAttached, 2*time.Minute)
				p.stop(time.Second)
			})
		})
	}
}

// Somebody has typed the code into another gateway, or nobody has used it in time.
func TestACodeThatIsWorthNothingIsReplaced(t *testing.T) {
	t.Attr("id", "T-claim")
	bubble(t, func(r *rig) {
		p, code := r.unclaimed()
		r.access.InviteBy(r.owner, identity.NewOwnerCode(), r.owner.Device(testUID, "gateway 7"))
		r.until(2*time.Minute, "another code", func() bool { return p.Status().Claim != code.String() })
		next := r.shown(p)
		r.access.InviteBy(r.owner, next, r.owner.Device(testUID, "gateway 7"))
		p.await(StateAttached, 2*time.Minute)
		p.stop(time.Second)
	})
}

// With a pin in place of a root, and after a release by the root that the gateway had. Without either nobody is asked.
func TestAGatewayKnowsWhomToAsk(t *testing.T) {
	t.Attr("id", "T-claim")
	for name, know := range map[string]func(r *rig){
		"pin":     func(r *rig) { r.opts.Config.Pin = r.access.PKI.Pin() },
		"nothing": func(*rig) {},
		"another pin": func(r *rig) {
			r.opts.Config.Pin = identitytest.New(time.Now()).Pin()
		},
		"root of before": func(r *rig) {
			must(openStore(r.dir, nil))(r.t)
			write(r.t, filepath.Join(r.dir, rootFile), string(r.access.PKI.Roots.PEM()), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				know(r)
				r.access.Certify(testName, 30*day)
				p := r.start()
				time.Sleep(10 * time.Minute)
				asked := len(r.access.Heard(wire.TypeEnroll)) > 0
				if want := name == "pin" || name == "root of before"; asked != want {
					t.Errorf("asked: %v", asked)
				}
				if name == "nothing" && (p.Status().Claim != "" || r.access.Dials() > 0) {
					t.Errorf("shows %q, dialled %d times", p.Status().Claim, r.access.Dials())
				}
				p.stop(time.Second)
			})
		})
	}
}

// A released gateway is in nobody's hands, and shows another code.
func TestAReleasedGatewayCanBeClaimedAgain(t *testing.T) {
	t.Attr("id", "T-claim")
	bubble(t, func(r *rig) {
		p, code := r.unclaimed()
		r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
		p.await(StateAttached, 2*time.Minute)
		key := p.self.Load().SPKI
		released := r.owner.Sign(identity.DeviceStatement{Domain: "plant", UID: testUID, Name: "gateway 7", Serial: r.owner.Serial(), Released: true})
		wire.WriteJSON(r.access.Newest(), wire.TypeStatements, wire.Statements{Statements: []string{released.JWS}})
		p.await(StateEnroll, time.Minute)
		next := r.shown(p)
		if next == code {
			t.Error("it shows the code that is known")
		}
		other := identitytest.NewOwner("mill")
		r.access.Certify(identity.DeviceName("mill", testUID), 30*day)
		r.access.InviteBy(other, next, other.Device(testUID, "gateway 7"))
		p.await(StateAttached, 2*time.Minute)
		if now := p.self.Load(); now.SPKI == key || now.Name.Domain != "mill" {
			t.Errorf("%v with the key %v, before %v", now.Name, now.SPKI, key)
		}
		p.stop(time.Second)
	})
}

// A power cut leaves any prefix of the writes, and at the last but one an identity with a code beside it. What was shown is
// what counts then, and there is one identity.
func TestAPowerCutAtAnyStepOfAClaimCostsNothing(t *testing.T) {
	t.Attr("id", "T-claim")
	order := []string{claimFile, keyFile, "owner.0", "owner.1", rootFile, identityFile}
	t.Attr("cases", fmt.Sprint(len(order)+1))
	bubble(t, func(r *rig) {
		r.access.Certify(testName, 30*day)
		r.access.Invitation.Lists = []string{r.strike("eve").JWS}
		p, code := r.unclaimed()
		r.access.InviteBy(r.owner, code, r.owner.Device(testUID, "gateway 7"))
		r.access.Set(func() { r.access.Invitation.Lists = []string{r.strike("eve").JWS} })
		p.await(StateAttached, 2*time.Minute)
		spki := p.self.Load().SPKI
		p.stop(time.Second)
		whole := r.dir
		for n := range len(order) + 1 {
			r.dir = stateDir(t)
			r.opts.Config.Data = r.dir
			must(openStore(r.dir, nil))(t)
			for _, f := range order[:n] {
				text := code.String() + "\n"
				if f != claimFile {
					text = string(must(os.ReadFile(filepath.Join(whole, f)))(t))
				}
				write(t, filepath.Join(r.dir, f), text, 0o600)
			}
			if n == 0 { // nobody has seen a code
				r.access.Set(func() { r.access.Code = identity.OwnerCode{} })
			} else {
				r.access.Set(func() { r.access.Code = code })
			}
			p := r.start()
			if n == 0 {
				if r.shown(p) == code {
					t.Error("a code came back that was never written")
				}
				p.stop(time.Second)
				continue
			}
			p.await(StateAttached, 3*time.Minute)
			if self := p.self.Load(); self.UID != testUID || n > 1 && self.SPKI != spki {
				t.Errorf("after %q: %v, key %v", order[:n], self.UID, self.SPKI)
			}
			if left := names(t, r.dir); slices.Contains(left, claimFile) {
				t.Errorf("after %q: left %q", order[:n], left)
			}
			p.stop(time.Second)
		}
	})
}

// What is half written, or was damaged, is replaced: nobody has used it. A code that others can read is not: somebody may.
func TestADamagedCodeIsReplaced(t *testing.T) {
	s := must(openStore(stateDir(t), nil))(t)
	code := must(s.claimCode())(t)
	file := filepath.Join(s.dir, claimFile)
	if info := must(os.Stat(file))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if again := must(s.claimCode())(t); again != code {
		t.Error("another code")
	}
	for _, text := range []string{"", code.String()[:20], strings.Replace(code.String(), "-", "-*", 1) + "x"} {
		write(t, file, text, 0o600)
		next := must(s.claimCode())(t)
		if next == code || must(readClaim(s.dir))(t) != next {
			t.Errorf("%q is the code %s", text, next)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.claimCode(); transport.ReasonOf(err) == transport.BadCode || err == nil {
		t.Errorf("a code that others can read: %v", err)
	}
}

func TestClaimPause(t *testing.T) {
	for range 100 {
		for _, c := range []struct{ asking, atLeast, min, max time.Duration }{
			{0, 0, 30 * time.Second, 90 * time.Second},
			{day - 1, 30 * time.Second, 30 * time.Second, 90 * time.Second},
			{day, 0, 30 * time.Minute, 90 * time.Minute},
			{0, time.Hour, time.Hour, time.Hour},
		} {
			if got := claimPause(c.asking, c.atLeast); got < c.min || got > c.max {
				t.Errorf("after %v, at least %v: %v", c.asking, c.atLeast, got)
			}
		}
	}
}
