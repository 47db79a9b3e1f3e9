package agent

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// stated makes the Manager say that its user is this.
func (m *manager) stated(role identity.Role, scope *identity.Scope) {
	m.hello.Statements = m.r.owner.UserChain("ann", role, scope, m.cert.Leaf.PublicKey)
}

// tells gives statements to the gateway in a session.
func tells(t *testing.T, s *session.Session, statements ...string) {
	t.Helper()
	if err := s.Tell(must(json.Marshal(wire.Statements{Statements: statements}))(t)); err != nil {
		t.Fatal(err)
	}
}

// strike is a list that ends everything of a user so far.
func (r *rig) strike(user string) identity.Signed {
	return r.owner.Lists(identity.Entry{Subject: identity.Subject{User: user}, All: r.owner.Serial(), Until: time.Now().Add(300 * day).Unix()})
}

// disk is what a power cut now would leave of the owner.
func (r *rig) disk() *owner.Owner {
	r.t.Helper()
	self := must(readSelf(r.dir))(r.t)
	return must(openOwner(r.dir, self))(r.t)
}

// refused wants a session to be refused for a reason, with words that have these in them.
func (m *manager) refused(l *accesstest.Link, p *process, want transport.Reason, words string) {
	m.r.t.Helper()
	s := m.open(l, p, "refused", "tcp", "ping")
	defer s.Close()
	err := s.Ready(m.r.t.Context())
	if transport.ReasonOf(err) != want || !strings.Contains(err.Error(), words) {
		m.r.t.Errorf("%v, want %s and %q", err, want, words)
	}
	if _, reason := openTCP(m.r, s, "192.168.10.20:502"); reason != want {
		m.r.t.Errorf("and then a stream: %q", reason)
	}
	var end wire.EndSession
	m.r.next(l, wire.TypeEndSession, &end)
	if end != (wire.EndSession{Session: "refused", Reason: want}) {
		m.r.t.Errorf("the server was told %+v", end)
	}
	if n := m.r.notes.values("session up", "session"); slices.Contains(n, "refused") {
		m.r.t.Error("it was up")
	}
	if n := len(m.r.notes.values("session ended", "err")); n != 1 {
		m.r.t.Errorf("it was logged %d times", n)
	}
}

// The infrastructure says yes to all of them: it has their keys certified, and sends offers.
func TestWhomTheOwnerDoesNotStateGetsNoSession(t *testing.T) {
	t.Attr("id", "A1-refuse")
	all := []string{"*"}
	for name, tt := range map[string]struct {
		say   func(r *rig, m *manager)
		want  transport.Reason
		words string
	}{
		"no statements": {func(_ *rig, m *manager) { m.hello.Statements = nil }, transport.NotStated, byOwner},
		"by another domain key": {func(r *rig, m *manager) {
			m.hello.Statements = identitytest.NewOwner("plant").UserChain("ann", identity.RoleAdmin, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, byOwner},
		"of another domain": {func(r *rig, m *manager) {
			other := *r.owner
			other.Domain = "other"
			m.hello.Statements = other.UserChain("ann", identity.RoleAdmin, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, byOwner},
		"another key": {func(r *rig, m *manager) {
			m.hello.Statements = r.owner.UserChain("ann", identity.RoleAdmin, nil, identitytest.NewKey().Public())
		}, transport.NotStated, byOwner},
		"another user": {func(r *rig, m *manager) {
			m.hello.Statements = r.owner.UserChain("bob", identity.RoleAdmin, nil, m.cert.Leaf.PublicKey)
		}, transport.NotStated, byOwner},
		"a device": {func(r *rig, m *manager) {
			m.hello.Statements = r.owner.DeviceChain(testUID, "ann", m.cert.Leaf.PublicKey)
		}, transport.NotStated, byOwner},
		"a device that comes as one": {func(r *rig, m *manager) {
			m.name = identity.DeviceName("plant", identity.UID{9})
			m.cert = r.access.PKI.Leaf(m.name, -time.Hour, 30*day)
			m.hello.Statements = r.owner.DeviceChain(identity.UID{9}, "press", m.cert.Leaf.PublicKey)
		}, transport.NotStated, "is no user"},
		"a viewer": {func(_ *rig, m *manager) { m.stated(identity.RoleViewer, nil) }, transport.Policy, "viewer"},
		"a scope of other devices": {func(_ *rig, m *manager) {
			m.stated(identity.RoleOperator, &identity.Scope{Devices: []string{identity.UID{9}.String()}, Targets: all})
		}, transport.Policy, "not in the scope of ann"},
		"a scope of nothing": {func(_ *rig, m *manager) {
			m.stated(identity.RoleOperator, &identity.Scope{Devices: []string{}, Targets: all})
		}, transport.Policy, "not in the scope of ann"},
		"a statement that has ended": {func(r *rig, m *manager) {
			at := time.Now().Add(-400 * day)
			user := r.owner.Sign(identity.UserStatement{Domain: "plant", User: "ann", Role: identity.RoleAdmin,
				Exp: at.Add(300 * day).Unix(), Serial: uint64(at.UnixMilli())})
			m.hello.Statements[0] = user.JWS
		}, transport.Expired, byOwner},
		"one who knew a list that nobody brings": {func(r *rig, m *manager) {
			m.hello.List = r.owner.Lists().Statement.(identity.ListStatement).Serial
			m.stated(identity.RoleOperator, nil)
		}, transport.Stale, byOwner},
	} {
		t.Run(name, func(t *testing.T) {
			attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
				tt.say(r, m)
				m.refused(l, p, tt.want, tt.words)
			})
		})
	}
}

// Whoever has seen a code before its user can use it once. Where the user was met first, the thief is not taken for him; the
// gateway remembers that through a power cut.
func TestASecondKeyOfAnInviteIsRefused(t *testing.T) {
	t.Attr("id", "A1-refuse")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		user := r.owner.User("ann", identity.RoleOperator, nil)
		code, said := r.owner.Invite(user)
		invited := func(m *manager) {
			key := identity.KeyStatement{Domain: "plant", Subject: identity.Subject{User: "ann"}, Key: must(identity.NewPublicKey(m.cert.Leaf.PublicKey))(t)}
			m.hello.Statements = []string{user.JWS, must(identity.Sign(key, code.InviteKey(0)))(t).JWS, said.Invite.JWS}
		}
		invited(m)
		s := m.open(l, p, "s1", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Close()
		var end wire.EndSession
		r.next(l, wire.TypeEndSession, &end)
		p.owners.forget() // what is on the disk counts
		thief := r.manager()
		invited(thief)
		s = thief.open(l, p, "s2", "tcp")
		if err := s.Ready(r.t.Context()); transport.ReasonOf(err) != transport.InviteUsedTwice || !strings.Contains(err.Error(), byOwner) {
			t.Errorf("the thief: %v", err)
		}
		if s = m.open(l, p, "s3", "tcp"); s.Ready(r.t.Context()) != nil {
			t.Errorf("and then the user: %v", s.Err())
		}
	})
}

// Who was narrowed shows his statement of before.
func TestAnOldStatementIsRefusedAtAGatewayThatKnowsTheList(t *testing.T) {
	t.Attr("id", "A1-refuse")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		list := r.owner.Lists(identity.Entry{Subject: identity.Subject{User: "ann"}, Statements: r.owner.Serial(), Until: time.Now().Add(300 * day).Unix()})
		wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{"no statement", list.JWS}})
		r.until(time.Second, "list", func() bool { return !p.Status().Owner.List.IsZero() })
		m.refused(l, p, transport.Revoked, byOwner)
		m.stated(identity.RoleOperator, nil) // the new one
		if s := m.open(l, p, "s2", "tcp"); s.Ready(r.t.Context()) != nil {
			t.Errorf("by the new statement: %v", s.Err())
		}
	})
}

// A list that strikes his key or, of what was said of him, all that is older than the list, ends a session at once,
// however it comes here.
func TestARevocationEndsTheSessionThatRuns(t *testing.T) {
	t.Attr("id", "T-revoke")
	t.Attr("cases", "6")
	entries := map[string]func(r *rig, m *manager) identity.Entry{
		"his key": func(_ *rig, m *manager) identity.Entry {
			return identity.Entry{SPKI: identity.CertSPKI(m.cert.Leaf)}
		},
		"his statement": func(r *rig, _ *manager) identity.Entry {
			return identity.Entry{Subject: identity.Subject{User: "ann"}, Statements: r.owner.Serial()}
		},
	}
	for name, bring := range map[string]func(r *rig, p *process, l *accesstest.Link, list string){
		"by the server": func(_ *rig, _ *process, l *accesstest.Link, list string) {
			wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{list}})
		},
		"by another technician, past a server that withholds it": func(r *rig, p *process, l *accesstest.Link, list string) {
			other := r.manager() // the same user on his second PC, who has been stated since
			other.stated(identity.RoleOperator, nil)
			s := other.open(l, p, "s2", "tcp")
			tells(r.t, s, list)
			if err := s.Ready(r.t.Context()); err != nil {
				r.t.Errorf("who brings it: %v", err)
			}
		},
		"by himself": func(r *rig, p *process, _ *accesstest.Link, list string) { tells(r.t, p.r.session, list) },
	} {
		for what, strikes := range entries {
			t.Run(what+" "+name, func(t *testing.T) {
				attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
					r.session = m.open(l, p, "s1", "tcp")
					stream, reason := openTCP(r, r.session, "192.168.10.20:503")
					if reason != "" {
						t.Fatalf("stream: %s; log:\n%s", reason, r.notes)
					}
					stream.Write([]byte("x"))
					entry := strikes(r, m)
					entry.Until = time.Now().Add(300 * day).Unix()
					list := r.owner.Lists(entry)
					begin := time.Now()
					bring(r, p, l, list.JWS)
					<-r.session.Done()
					took, err := time.Since(begin), r.session.Err()
					if transport.ReasonOf(err) != transport.Revoked || !strings.Contains(err.Error(), byOwner) || took > time.Second {
						t.Errorf("%v after %v", err, took)
					}
					if got, _ := r.disk().Serials(); got != r.owner.List {
						t.Errorf("list %d is on the disk, want %d", got, r.owner.List)
					}
				})
			})
		}
	}
}

// What an honest technician knows goes on the disk before he gets in.
func TestAGatewayThatIsBehindWaitsForTheList(t *testing.T) {
	t.Attr("id", "T-revoke")
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		list := r.strike("eve")
		m.hello.List = r.owner.List
		m.stated(identity.RoleOperator, nil)
		s := m.open(l, p, "s1", "tcp")
		if said, err := s.Peer(r.t.Context()); err != nil || said.List != 0 || said.Device == 0 || len(said.Statements) != 2 {
			t.Errorf("the gateway said %+v, %v", said, err)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if slices.Contains(r.notes.values("session up", "session"), "s1") {
			t.Error("it did not wait")
		}
		tells(t, s, list.JWS)
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatalf("stream: %s; log:\n%s", reason, r.notes)
		}
		echoes(t, stream)
		if got, _ := r.disk().Serials(); got != r.owner.List {
			t.Errorf("list %d is on the disk, want %d", got, r.owner.List)
		}
		s.Close()
	})
}

func TestAManagerThatIsBehindIsToldInTheSession(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		list := r.strike("eve")
		must(r.disk().Take([]string{list.JWS}, time.Now()))(t)
		p.owners.forget()
		s := m.open(l, p, "s1", "tcp")
		var news wire.Statements
		if err := json.Unmarshal(must(s.Told(r.t.Context()))(t), &news); err != nil || len(news.Statements) != 3 || news.Statements[0] != list.JWS {
			t.Errorf("told %q, %v; want the list and the gateway's chain", news.Statements, err)
		}
		s.Close()
	})
}

func TestASessionEndsWithTheStatementOfItsUser(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		end := time.Now().Add(5 * time.Hour).Truncate(time.Second)
		user := identity.UserStatement{Domain: "plant", User: "ann", Role: identity.RoleAdmin, Exp: end.Unix(), Serial: r.owner.Serial()}
		m.hello.Statements[0] = r.owner.Sign(user).JWS
		s := m.open(l, p, "s1", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if late := time.Since(end); transport.ReasonOf(s.Err()) != transport.Expired || late < 0 || late > time.Second {
			t.Errorf("%v, %v after the end", s.Err(), late)
		}
	})
}

// Each of the three can refuse, and the technician reads which one it was.
func TestAStreamThatIsRefusedSaysByWhom(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		m.stated(identity.RoleOperator, &identity.Scope{Devices: []string{testUID.String()}, Targets: []string{"192.168.10.20:502", "192.168.10.20:80"}})
		s := m.open(l, p, "s1", "tcp")
		if _, reason := openTCP(r, s, "192.168.10.20:502"); reason != "" {
			t.Errorf("what all three allow: %q", reason)
		}
		for target, words := range map[string]string{"192.168.10.20:503": byOwner, "[::ffff:192.168.10.20]:503": byOwner, "192.168.10.20:80": byRules} {
			if _, err := s.Open(r.t.Context(), openOf(wire.ServiceTCP, target)); transport.ReasonOf(err) != transport.Policy || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v, want %q", target, err, words)
			}
		}
		if _, err := s.Open(r.t.Context(), openOf(wire.ServicePing, "")); transport.ReasonOf(err) != transport.Policy || !strings.Contains(err.Error(), byInfra) {
			t.Errorf("a service that the offer does not permit: %v", err)
		}
		s.Close()
	})
}

// The owner moves the gateway to a folder that is not in the scope: the next stream is refused, and the session ends.
func TestAGatewayThatWasMovedLeavesTheScope(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		state := func(folder string) string {
			return r.owner.Sign(identity.DeviceStatement{Domain: "plant", UID: testUID, Name: "gateway 7", Folder: folder, Serial: r.owner.Serial()}).JWS
		}
		give := func(folder string) {
			wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{state(folder)}})
			r.until(time.Second, "folder", func() bool { return p.Status().Owner.Folder == folder })
		}
		give("north/hall")
		m.stated(identity.RoleOperator, &identity.Scope{Devices: []string{"north"}, Targets: []string{"*"}})
		s := m.open(l, p, "s1", "tcp")
		if _, reason := openTCP(r, s, "192.168.10.20:502"); reason != "" {
			t.Errorf("within the scope: %q; log:\n%s", reason, r.notes)
		}
		give("south")
		<-s.Done()
		if transport.ReasonOf(s.Err()) != transport.Policy {
			t.Errorf("moved out of the scope: %v", s.Err())
		}
	})
}

func TestWithoutAnOwnerNobodyGetsIn(t *testing.T) {
	t.Attr("id", "A1-refuse")
	files := []string{"owner.0", "owner.1"}
	for name, tt := range map[string]struct {
		spoil func(r *rig)
		words string
	}{
		"none":    {func(r *rig) { removeAll(r, files) }, "enroll again"},
		"damaged": {func(r *rig) { writeAll(r, files) }, "cannot be read"},
		"of another identity": {func(r *rig) {
			other := identity.Peer{Name: testName, SPKI: identity.SPKI{9}}
			must(owner.Create(r.dir, other, r.owner.Key))(r.t)
		}, "enroll again"},
	} {
		t.Run(name, func(t *testing.T) {
			attachedRigWith(t, tt.spoil, func(r *rig, p *process, l *accesstest.Link, m *manager) {
				before := contents(r, files)
				m.refused(l, p, transport.NotStated, tt.words)
				st := p.Status()
				if st.Owner != nil || !slices.ContainsFunc(st.Troubles, func(s string) bool { return strings.Contains(s, tt.words) }) || r.notes.count("owner is not known") != 1 {
					t.Errorf("status %+v; log:\n%s", st, r.notes)
				}
				if info := must(ShowIdentity(r.dir))(t); info.Owner != nil || !strings.Contains(info.OwnerError, tt.words) {
					t.Errorf("shown %+v", info)
				}
				// What is lost is not begun anew, whatever the server sends.
				wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{r.strike("eve").JWS}})
				time.Sleep(time.Second)
				if after := contents(r, files); after != before || l.Hello.Key != "" {
					t.Errorf("the files were changed, or the hello has a key: %+v", l.Hello)
				}
			})
		})
	}
}

func TestTheHelloSaysWhatTheGatewayKnowsOfItsOwner(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, _ *manager) {
		known := r.disk()
		if list, device := known.Serials(); l.Hello.List != list || l.Hello.Device != device || l.Hello.Key != known.Chain()[1] {
			t.Errorf("hello %+v", l.Hello)
		}
		list := r.owner.Lists()
		wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{list.JWS}})
		r.until(time.Second, "list", func() bool { return !p.Status().Owner.List.IsZero() })
		r.access.Drop()
		if l = <-r.access.Links; l.Hello.List != r.owner.List {
			t.Errorf("then list %d, want %d", l.Hello.List, r.owner.List)
		}
	})
}

// A medium that takes nothing: what is known still counts, and what is new is not believed by half.
func TestStatementsThatCannotBeStoredAreSaid(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		block(r)
		wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{r.strike("ann").JWS}})
		r.until(time.Second, "trouble", func() bool {
			return slices.ContainsFunc(p.Status().Troubles, func(s string) bool { return strings.HasPrefix(s, "store the owner's statements: ") })
		})
		if got, _ := p.owners.known.Serials(); got != 0 {
			t.Errorf("list %d counts and is not stored", got)
		}
		s.Close()
	})
}

func paths(r *rig, files []string) (list []string) {
	for _, f := range files {
		list = append(list, filepath.Join(r.dir, f))
	}
	return list
}

// A session outlives the identity that it began with. What it still learns goes nowhere, least of all into the files of the
// next owner.
func TestTheOwnerOfBeforeIsNotStoredOverTheNextOne(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		if err := s.Ready(r.t.Context()); err != nil {
			t.Fatal(err)
		}
		before := r.owner.Lists()
		next := identity.Peer{Name: testName, SPKI: identity.SPKI{9}}
		must(owner.Create(r.dir, next, identitytest.NewOwner("plant").Key))(t)
		files := []string{"owner.0", "owner.1"}
		want := contents(r, files)
		tells(t, s, before.JWS)
		time.Sleep(time.Second)
		if contents(r, files) != want {
			t.Error("the files of the next owner were changed")
		}
		if _, err := p.boot(r.t.Context()); err != nil { // which finds the identity that was replaced
			t.Fatal(err)
		}
		<-s.Done()
	})
}
