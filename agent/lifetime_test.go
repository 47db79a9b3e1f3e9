package agent

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/session"
	"hawser/transport/wire"
)

func TestLookSaysWhyASessionEnds(t *testing.T) {
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		idle    time.Duration
		at      time.Duration // by the monotonic clock
		now     time.Duration // by the other one
		lastAt  time.Duration // when bytes were seen last
		carries bool          // more bytes have come since then
		want    transport.Reason
	}{
		"fresh":                        {time.Hour, 0, 0, 0, false, ""},
		"in the middle":                {0, 11 * time.Hour, 11 * time.Hour, 0, false, ""},
		"at its end":                   {0, 12 * time.Hour, 12 * time.Hour, 0, true, transport.SessionMax},
		"a moment before":              {0, 12*time.Hour - 1, 12 * time.Hour, 0, true, ""},
		"its end, with a clock behind": {0, 12 * time.Hour, -time.Hour, 0, true, transport.SessionMax},
		"the certificate's end":        {0, time.Hour, 24 * time.Hour, 0, true, transport.Expired},
		"a clock that jumped ahead":    {0, time.Minute, 1000 * time.Hour, 0, true, transport.Expired},
		"a clock that jumped back":     {0, time.Minute, -1000 * time.Hour, 0, true, ""},
		"idle":                         {time.Hour, 3 * time.Hour, 0, 2 * time.Hour, false, transport.SessionIdle},
		"not idle for long":            {time.Hour, 3*time.Hour - 1, 0, 2 * time.Hour, false, ""},
		"idle till now":                {time.Hour, 3 * time.Hour, 0, 2 * time.Hour, true, ""},
		"idle, and that is off":        {0, 11 * time.Hour, 0, 0, false, ""},
	} {
		l := life{Lifetime: Lifetime{Max: 12 * time.Hour, Idle: tt.idle}, began: begin, certificate: begin.Add(24 * time.Hour),
			bytes: 7, moved: begin.Add(tt.lastAt)}
		bytes := int64(7)
		if tt.carries {
			bytes++
		}
		why := l.look(bytes, begin.Add(tt.now), begin.Add(tt.at), "ann")
		got := transport.Reason("")
		if why != nil {
			got = why.Reason
		}
		if got != tt.want || why != nil && why.Text != wire.Printable(why.Text) {
			t.Errorf("%s: %v, want %q", name, why, tt.want)
		}
		if rest := l.rest(begin.Add(tt.now), begin.Add(tt.at)); rest <= 0 || rest > lookEvery {
			t.Errorf("%s: rests for %v", name, rest)
		}
	}
}

// fitted is a gateway whose sessions have these limits.
func fitted(max, idle time.Duration) func(*rig) {
	return func(r *rig) { r.opts.Config.Session = Lifetime{Max: max, Idle: idle} }
}

// ends waits for the end of a session, and wants it by a reason and in words, told to the server too.
func (r *rig) ends(s *session.Session, l *accesstest.Link, want transport.Reason, words string) {
	r.t.Helper()
	select {
	case <-s.Done():
	case <-time.After(24 * time.Hour):
		r.t.Fatalf("it did not end; log:\n%s", r.notes)
	}
	if err := s.Err(); transport.ReasonOf(err) != want || !strings.Contains(err.Error(), words) {
		r.t.Errorf("the Manager is told %v, want %s: %s", err, want, words)
	}
	var end wire.EndSession
	r.next(l, wire.TypeEndSession, &end)
	if end.Reason != want {
		r.t.Errorf("the server is told %+v, want %s", end, want)
	}
	logged := r.notes.values("session ended", "err")
	if len(logged) == 0 || !strings.Contains(logged[len(logged)-1], words) {
		r.t.Errorf("the log says %q, want %s", logged, words)
	}
}

func TestASessionEndsAfterItsTimeWhateverHappens(t *testing.T) {
	attachedRigWith(t, fitted(2*time.Hour, 0), func(r *rig, p *process, l *accesstest.Link, m *manager) {
		begin := time.Now()
		s := m.open(l, p, "s1", "tcp")
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatal(reason)
		}
		go func() { // never idle
			for {
				if _, err := stream.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		r.ends(s, l, transport.SessionMax, "by the gateway's own rules: a session lasts 2h0m0s at most")
		if took := time.Since(begin); took < 2*time.Hour || took > 2*time.Hour+time.Second {
			t.Errorf("after %v", took)
		}
		again := m.open(l, p, "s2", "tcp") // a fresh offer
		again.Close()
	})
}

func TestTheTimeOfASessionGoesOnThroughItsMoves(t *testing.T) {
	attachedRigWith(t, fitted(time.Hour, 0), func(r *rig, p *process, l *accesstest.Link, m *manager) {
		begin := time.Now()
		m.open(l, p, "s1", "tcp")
		var last *session.Session
		for epoch := 2; epoch <= 4; epoch++ {
			time.Sleep(15 * time.Minute)
			if epoch == 4 { // its line is lost first, so that it does not run when it is moved
				last.Close()
				var end wire.EndSession
				r.next(l, wire.TypeEndSession, &end)
			}
			runtime, own := m.offers("s1", p.self.Load().SPKI, "tcp")
			runtime.Epoch, own.Epoch = epoch, epoch
			runtime.Grant, own.Grant = fmt.Sprint("grant ", epoch), fmt.Sprint("grant ", epoch)
			if reason := r.offer(l, runtime); reason != "" {
				t.Fatalf("epoch %d: %s", epoch, reason)
			}
			last = must(m.join(own))(t)
			defer last.Close()
		}
		r.ends(last, l, transport.SessionMax, "a session lasts 1h0m0s at most")
		if took := time.Since(begin); took < time.Hour || took > time.Hour+time.Second {
			t.Errorf("after %v", took)
		}
		runtime, _ := m.offers("s1", p.self.Load().SPKI, "tcp")
		if runtime.Epoch = 5; r.offer(l, runtime) != transport.SessionMax {
			t.Error("it is moved after its end")
		}
	})
}

func TestAnIdleSessionEnds(t *testing.T) {
	attachedRigWith(t, fitted(12*time.Hour, 10*time.Minute), func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatal(reason)
		}
		for range 4 { // whoever works is left alone
			time.Sleep(9 * time.Minute)
			stream.Write([]byte("x"))
			stream.Read(make([]byte, 1))
		}
		begin := time.Now() // the stream stays open
		r.ends(s, l, transport.SessionIdle, "nothing went through the session for 10m0s")
		if took := time.Since(begin); took < 10*time.Minute-lookEvery || took > 10*time.Minute+2*lookEvery {
			t.Errorf("after %v", took)
		}
	})
}

// short makes a Manager whose certificate lasts for so long.
func (m *manager) short(until time.Duration) *manager {
	m.cert = m.r.access.PKI.Certify(m.key(), identity.UserName("plant", "ann"), -time.Hour, until)
	return m
}

func (m *manager) key() crypto.Signer { return m.cert.PrivateKey.(crypto.Signer) }

// chainOf is a certificate in the form in which it is shown anew.
func chainOf(c tls.Certificate) (chain []*x509.Certificate) {
	for _, der := range c.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		chain = append(chain, cert)
	}
	return chain
}

func TestASessionEndsWithTheCertificateOfItsUser(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		begin := time.Now()
		s := m.short(2*time.Hour).open(l, p, "s1", "tcp")
		r.ends(s, l, transport.Expired, "refused by the infrastructure, not by the owner: the certificate of ann has ended")
		if took := time.Since(begin); took > 2*time.Hour+time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestARenewedCertificateMovesTheEndOfASession(t *testing.T) {
	attachedRigWith(t, fitted(48*time.Hour, 0), func(r *rig, p *process, l *accesstest.Link, m *manager) {
		begin := time.Now()
		s := m.short(2*time.Hour).open(l, p, "s1", "tcp")
		for range 10 {
			time.Sleep(time.Hour)
			if err := s.Renew(chainOf(m.short(2*time.Hour).cert), m.hello.Statements); err != nil {
				t.Fatal(err)
			}
		}
		r.ends(s, l, transport.Expired, "the certificate of ann has ended")
		if took := time.Since(begin); took < 12*time.Hour-time.Second || took > 12*time.Hour+time.Second {
			t.Errorf("after %v", took)
		}
	})
}

// Statements that come in the middle count at once, in either direction, also those that need a list which comes later.
func TestRenewedStatementsMoveTheRightsOfASession(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		reach := func(want transport.Reason) {
			t.Helper()
			stream, got := openTCP(r, s, "192.168.10.20:502")
			if got != want {
				t.Errorf("a stream: %q, want %q", got, want)
			}
			if stream != nil {
				stream.Close()
			}
		}
		show := func(role identity.Role, targets ...string) {
			t.Helper()
			scope := &identity.Scope{Devices: []string{"*"}, Targets: append([]string{}, targets...)}
			if err := s.Renew(chainOf(m.cert), r.owner.UserChain("ann", role, scope, m.cert.Leaf.PublicKey)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		reach("")
		show(identity.RoleOperator)
		reach(transport.Policy)
		list := r.owner.Lists()
		show(identity.RoleOperator, "*") // needs the list
		reach(transport.Policy)
		s.Tell([]byte(`{"statements":["` + list.JWS + `"]}`))
		time.Sleep(2 * lookEvery)
		reach("")
		show(identity.RoleViewer, "*")
		r.ends(s, l, transport.Policy, "refused by the owner's statements, not by the infrastructure: ann is a viewer")
	})
}

// Whoever shows something else than himself in the middle of a session has none any more.
func TestAChainThatDoesNotStandEndsTheSession(t *testing.T) {
	cases := map[string]struct {
		chain func(r *rig, m *manager) ([]*x509.Certificate, []string)
		want  transport.Reason
		words string
	}{
		"another key": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(r.access.PKI.Leaf(identity.UserName("plant", "ann"), 0, time.Hour)), m.hello.Statements
		}, transport.WrongPeer, "does not prove ann"},
		"another user": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(r.access.PKI.Certify(m.key(), identity.UserName("plant", "bob"), 0, time.Hour)), m.hello.Statements
		}, transport.WrongPeer, "does not prove ann"},
		"another domain": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(r.access.PKI.Certify(m.key(), identity.UserName("other", "ann"), 0, time.Hour)), m.hello.Statements
		}, transport.WrongPeer, "does not prove ann"},
		"another root": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(identitytest.New(time.Now()).Certify(m.key(), identity.UserName("plant", "ann"), 0, time.Hour)), m.hello.Statements
		}, transport.WrongPeer, "does not prove ann"},
		"one that is over": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(r.access.PKI.Certify(m.key(), identity.UserName("plant", "ann"), -2*time.Hour, -time.Hour)), m.hello.Statements
		}, transport.Expired, "does not prove ann"},
		"no statements": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(m.cert), nil
		}, transport.NotStated, "refused by the owner's statements"},
		"statements of another domain": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(m.cert), identitytest.NewOwner("other").UserChain("ann", identity.RoleOperator, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, "refused by the owner's statements"},
		"statements of another domain key": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(m.cert), identitytest.NewOwner("plant").UserChain("ann", identity.RoleOperator, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, "refused by the owner's statements"},
		"statements of another user": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(m.cert), r.owner.UserChain("bob", identity.RoleOperator, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, "refused by the owner's statements"},
		"statements of another key": {func(r *rig, m *manager) ([]*x509.Certificate, []string) {
			return chainOf(m.cert), r.owner.UserChain("ann", identity.RoleOperator, nil, identitytest.NewKey().Public())
		}, transport.NotStated, "refused by the owner's statements"},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
				s := m.open(l, p, "s1", "tcp")
				chain, statements := tt.chain(r, m)
				if err := s.Renew(chain, statements); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				r.ends(s, l, tt.want, tt.words)
				if took := time.Since(begin); took > time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

// A gateway whose clock is set beyond a certificate or a statement ends the session soon, and not when a timer of before ends.
func TestAClockThatJumpsEndsWhatIsOver(t *testing.T) {
	for name, tt := range map[string]struct {
		ahead time.Duration
		want  transport.Reason
	}{
		"beyond the certificate": {31 * day, transport.Expired},
		"a little":               {day, ""},
	} {
		t.Run(name, func(t *testing.T) {
			attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
				s := m.open(l, p, "s1", "tcp")
				time.Sleep(time.Minute)
				if err := p.clock.Signed(identity.SignedTime{Time: time.Now().Add(tt.ahead)}, 0); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				if tt.want == "" {
					time.Sleep(time.Minute)
					if s.Err() != nil || len(p.Status().Sessions) != 1 {
						t.Errorf("it ended: %v", s.Err())
					}
					return
				}
				r.ends(s, l, tt.want, "the certificate of ann has ended")
				if took := time.Since(begin); took > lookEvery+time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

// Who has ended a session on purpose is told to its user.
func TestTheWordsOfWhoEndedASessionArrive(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		time.Sleep(time.Second)
		wire.WriteJSON(l, wire.TypeEndSession, wire.EndSession{Session: "s1", Reason: transport.Ended, Text: "bob\x1b has ended it"})
		r.ends(s, l, transport.Ended, "the Access Server says: bob? has ended it")
	})
}

func TestBeginsAreRememberedOfAFewSessions(t *testing.T) {
	s := &sessions{life: Lifetime{Max: time.Hour}, begun: map[string]time.Time{}}
	first := s.beganLocked(wire.Offer{Session: "s0", Epoch: 1}, nil)
	if got := s.beganLocked(wire.Offer{Session: "s0", Epoch: 2}, nil); got != first {
		t.Errorf("moved: began %v, not %v", got, first)
	}
	for i := range 3 * maxBegun {
		s.beganLocked(wire.Offer{Session: fmt.Sprint("n", i), Epoch: 1}, nil)
	}
	if len(s.begun) > maxBegun {
		t.Errorf("%d are remembered", len(s.begun))
	}
	if _, ok := s.begun["s0"]; ok {
		t.Error("the oldest is")
	}
	running := &running{began: first}
	if got := s.beganLocked(wire.Offer{Session: "s0", Epoch: 2}, running); got != first {
		t.Errorf("one that runs: began %v", got)
	}
}

func TestTheSectionSession(t *testing.T) {
	for text, want := range map[string]Lifetime{
		"":                                       DefaultLifetime(),
		"session: {}\n":                          DefaultLifetime(),
		"session: {max: 1m}\n":                   {Max: time.Minute},
		"session: {max: 168h, idle: off}\n":      {Max: 7 * day},
		"session: {idle: 1h30m}\n":               {Max: 12 * time.Hour, Idle: 90 * time.Minute},
		"session:\n  max: 8h\n  idle: \"20m\"\n": {Max: 8 * time.Hour, Idle: 20 * time.Minute},
	} {
		c, err := LoadConfig(configFile(t, text))
		if err != nil || c.Session != want {
			t.Errorf("%q: %+v, %v", text, c.Session, err)
		}
	}
	bad := map[string]string{
		"session: {max: 59s}\n":       `1: session.max: "59s": want a time such as 12h or 30m, 1m to 168h`,
		"session: {max: off}\n":       `1: session.max: "off": want a time`,
		"session: {max: 0}\n":         `1: session.max: "0": want a time`,
		"session: {max: -1h}\n":       `1: session.max: "-1h": want a time`,
		"session: {max: 169h}\n":      `1: session.max: "169h": want a time`,
		"session: {max: 12}\n":        `1: session.max: "12": want a time`,
		"session: {max: 1d}\n":        `1: session.max: "1d": want a time`,
		"session: {max: [1h]}\n":      `1: session.max: want one value`,
		"session:\n  idle: 30s\n":     `2: session.idle: "30s": want a time such as 12h or 30m, 1m to 168h, or off`,
		"session: {idle: never}\n":    `1: session.idle: "never": want a time`,
		"session: 12h\n":              `1: session: want KEY: VALUE lines`,
		"session: {most: 12h}\n":      `1: unknown key "session.most"`,
		"session: {max: 1h, max: 2h}": `1: key "session.max" stands twice`,
	}
	for text, want := range bad {
		file := configFile(t, text)
		if _, err := LoadConfig(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(bad)))
}
