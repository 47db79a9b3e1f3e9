package agent

import (
	"crypto/tls"
	"errors"
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

// invite makes a code for this gateway.
func (r *rig) invite() identity.OwnerCode {
	return r.access.Invite(r.owner, r.owner.Device(testUID, "gateway 7"))
}

func (r *rig) enrollBy(code identity.OwnerCode) (*Self, error) {
	r.opts.Config.Roots = r.access.PKI.Roots
	return Enroll(r.t.Context(), r.opts, EnrollOptions{Code: code})
}

func TestEnrollStoresTheIdentity(t *testing.T) {
	for name, byPin := range map[string]bool{"root file": false, "pin": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.access.Certify(testName, 30*day)
				r.notes.debug = true
				code := r.invite()
				e := EnrollOptions{Code: code}
				if r.opts.Config.Roots = r.access.PKI.Roots; byPin {
					r.opts.Config.Roots, e.Pin = nil, r.access.PKI.Pin()
				}
				self, err := Enroll(r.t.Context(), r.opts, e)
				if err != nil {
					t.Fatal(err)
				}
				if self.Name != testName || self.UID != testUID || self.Label != "gateway 7" || string(self.Roots.PEM()) != string(r.access.PKI.Roots.PEM()) {
					t.Errorf("self %+v", self)
				}
				if info := must(ShowIdentity(r.dir))(t); !info.Enrolled || info.SPKI != self.SPKI.String() {
					t.Errorf("stored %+v", info)
				}
				if got := must(openStore(r.dir, nil))(t).saved.Anchor; time.Since(got).Abs() > time.Second {
					t.Errorf("anchor %v", got)
				}
				if _, err := r.enrollBy(code); !errors.Is(err, ErrEnrolled) || !strings.Contains(err.Error(), r.dir) {
					t.Errorf("again: %v", err)
				}
				if strings.Contains(r.notes.String(), code.String()[:9]) {
					t.Error("the code was logged")
				}
				if r.access.Saw([]byte(code.String())) || !r.access.Saw([]byte("0123456789abcdef")) {
					t.Error("the code was sent, or the hints were not")
				}
			})
		})
	}
}

// The server has enrolled the key, and its answer is lost.
func TestTheSameCodeAfterALostAnswerUsesTheSameKey(t *testing.T) {
	bubble(t, func(r *rig) {
		var keys []identity.SPKI
		r.access.Identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) {
			keys = append(keys, must(identity.SPKIOf(must(identity.ParseCSR(csr))(t)))(t))
			if len(keys) == 1 {
				r.net.Stall(agentAddr, accessAddr)
				time.Sleep(25 * time.Second)
				r.net.Cut(agentAddr, accessAddr)
			}
			return r.access.Identity(testName, csr, 30*day), nil
		}
		code := r.invite()
		if _, err := r.enrollBy(code); err == nil {
			t.Fatal("enrolled without an answer")
		}
		time.Sleep(time.Minute)
		r.net.Heal(agentAddr, accessAddr)
		self, err := r.enrollBy(code)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) != 2 || keys[0] != keys[1] || keys[1] != self.SPKI {
			t.Errorf("keys %v, own %v", keys, self.SPKI)
		}
	})
}

func TestAnAnswerForSomebodyElseIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	for name, forge := range map[string]func(r *rig, csr []byte) wire.Identity{
		"another key": func(r *rig, _ []byte) wire.Identity {
			return r.access.Identity(testName, must(identity.NewCSR(identitytest.NewKey()))(r.t), day)
		},
		"another uid": func(r *rig, csr []byte) wire.Identity {
			id := r.access.Identity(testName, csr, day)
			id.UID = identity.UID{9}
			return id
		},
		"another domain": func(r *rig, csr []byte) wire.Identity {
			id := r.access.Identity(testName, csr, day)
			id.Domain = "other"
			return id
		},
		"another root": func(r *rig, csr []byte) wire.Identity {
			return r.access.IdentityBy(identitytest.New(time.Now()), testName, csr, day)
		},
		"no chain": func(*rig, []byte) wire.Identity { return wire.Identity{Domain: "plant", UID: testUID} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.access.Identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) { return forge(r, csr), nil }
				_, err := r.enrollBy(r.invite())
				if transport.ReasonOf(err) != transport.BadCertificate || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q: %v", transport.ReasonOf(err), err)
				}
				if got := names(t, r.dir); !slices.Equal(got, []string{keyFile}) {
					t.Errorf("left %q", got)
				}
			})
		})
	}
}

func TestARefusedCodeIsTheServersDecision(t *testing.T) {
	bubble(t, func(r *rig) {
		r.access.Identify = func(wire.Type, []byte) (wire.Identity, *wire.Refusal) {
			return wire.Identity{}, &wire.Refusal{Reason: transport.BadCode, Text: "no such code"}
		}
		_, err := r.enrollBy(r.invite())
		if transport.ReasonOf(err) != transport.BadCode || ExitCode(err) != answer.ExitRefused || Advice(err) == "" {
			t.Errorf("%v", err)
		}
	})
}

func TestACodeWithATypingErrorNeverTouchesNetworkOrDisk(t *testing.T) {
	t.Attr("id", "A1-input")
	bubble(t, func(r *rig) {
		good := r.invite().String()
		wrong := byte('0')
		if good[3] == wrong {
			wrong = '1'
		}
		for _, code := range []string{"", "hello", good[:len(good)-1], good[:3] + string(wrong) + good[4:], good + "0", strings.Repeat("A", 1<<16)} {
			_, err := FirstContact{Code: code, Pin: r.access.PKI.Pin().String()}.Prepare(&r.opts.Config)
			if identity.FaultOf(err) != identity.FaultBadCode || strings.Contains(err.Error(), "\n") || !strings.Contains(Advice(err), "typing error") {
				t.Errorf("%.40q: %v", code, err)
			}
			if code != "" && strings.Contains(err.Error(), code) {
				t.Errorf("the error repeats the code: %v", err)
			}
		}
		if n := r.access.Dials(); n != 0 {
			t.Errorf("dialled %d times", n)
		}
		if info, err := ShowIdentity(r.dir); err != nil || info.Enrolled {
			t.Errorf("identity %+v, %v", info, err)
		}
	})
}

// The thief has an Access Server's TLS key whose certificate has expired. He can
// pass the handshake of a gateway that does not know the time, and he must learn
// nothing from it.
func TestAThiefLearnsNeitherCodeNorCSR(t *testing.T) {
	t.Attr("id", "A1-refuse")
	expired := func(r *rig) tls.Certificate {
		return r.access.PKI.Leaf(r.access.PKI.Access, -300*day, -10*day)
	}
	for name, tt := range map[string]struct {
		setUp func(r *rig)
		want  transport.Reason
	}{
		"without a time key": {func(r *rig) {
			r.access.Leaf = expired(r)
			r.access.PKI.Time = identitytest.New(time.Now().Add(-4 * 365 * day)).Time
		}, transport.WrongRoot},
		"with a true time": {func(r *rig) { r.access.Leaf = expired(r) }, transport.Expired},
		"with a time of last month": {func(r *rig) {
			r.access.Leaf = expired(r)
			r.access.Now = func() time.Time { return time.Now().Add(-200 * day) }
		}, transport.BadTime},
		"who refuses": {func(r *rig) {
			r.access.Leaf = expired(r)
			r.access.RefuseTime = &wire.Refusal{Reason: transport.BadCode}
		}, transport.BadCode},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				tt.setUp(r)
				code := r.invite()
				_, err := r.enrollBy(code)
				if err == nil {
					t.Fatal("enrolled")
				}
				if got := transport.ReasonOf(err); got != tt.want {
					t.Errorf("reason %q (%v), want %q", got, err, tt.want)
				}
				for _, frame := range r.access.Types() {
					if frame != wire.TypeTimeRequest {
						t.Errorf("the thief got frame %#x", frame)
					}
				}
				if len(r.access.Types()) == 0 || r.access.Saw([]byte(code.String())) {
					t.Error("the thief was not met, or he saw the code")
				}
				if floor := must(openStore(r.dir, nil))(t).saved.Anchor; !floor.IsZero() {
					t.Errorf("he moved the anchor to %v", floor)
				}
			})
		})
	}
}

func TestWithoutAnyTrustNothingIsDialled(t *testing.T) {
	bubble(t, func(r *rig) {
		if _, err := Enroll(r.t.Context(), r.opts, EnrollOptions{Code: r.invite()}); err == nil {
			t.Error("enrolled without a root")
		}
		if got := r.access.Types(); len(got) > 0 {
			t.Errorf("the server got %#x", got)
		}
	})
}
