package access

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

func TestWelcomeTellsHeartbeatPoolAndRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		relay := w.control(w.enrollRelay(), relayHello("ab"))
		defer relay.Close()
		c := w.control(device, hello("01"))
		defer c.Close()
		if c.welcome.HeartbeatS != 120 || len(c.welcome.Pool.Relays) != 1 || c.welcome.Pool.Relays[0].Name != "r1" {
			t.Errorf("%+v", c.welcome)
		}
		leaf := device.Chain[0]
		if want := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2); !c.welcome.RenewAfter.Equal(want) {
			t.Errorf("renew after %v, want %v", c.welcome.RenewAfter, want)
		}
		if got := w.actions(2); !slices.Equal(got, []string{"online ok", "online ok"}) {
			t.Errorf("audit: %v", got)
		}
	})
}

func TestNewestControlConnectionWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		device := w.addDevice(admin, "press 1")
		old := w.control(device, hello("01"))
		defer old.Close()
		c := w.control(device, hello("02"))
		defer c.Close()
		if got := refusal(old); got != transport.Replaced {
			t.Errorf("old: %q", got)
		}
		synctest.Wait()
		var v api.Device
		w.call(admin, "GET", "/api/v1/devices/press%201", nil, &v)
		if !v.Online || v.Address != c.LocalAddr().String() {
			t.Errorf("%+v, want address %v", v, c.LocalAddr())
		}
	})
}

// The server notices a silent peer exactly when it has broken its word.
func TestSilentPeerIsDeadAfterItsWordAndGrace(t *testing.T) {
	cases := []struct {
		name string
		ping time.Duration // 0: none was sent
		want time.Duration
	}{
		{"before the first ping: the heartbeat", 0, 135 * time.Second},
		{"a session runs", 5 * time.Second, 10 * time.Second},
		{"a long word", 10 * time.Minute, 10*time.Minute + 15*time.Second},
		{"too long a word", time.Hour, 20*time.Minute + 15*time.Second},
		{"too short a word", time.Millisecond, 2 * time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				device := w.addDevice(w.login(), "press 1")
				conn := w.control(device, hello("01"))
				defer conn.Close()
				if c.ping != 0 {
					wire.Write(conn, wire.TypePing, wire.Ping(c.ping))
					conn.read(wire.TypePong, nil)
				}
				start := time.Now()
				// The peer vanishes without a word.
				w.net.Stall(serverAddr, clientAddr)
				name := identity.DeviceName("plant", device.id.UID)
				for w.server.presence.find(name) != nil {
					time.Sleep(100 * time.Millisecond)
				}
				// Last words to a stalled peer take no time: the buffer holds them.
				if took := time.Since(start); took < c.want || took > c.want+500*time.Millisecond {
					t.Errorf("noticed after %v, want %v", took, c.want)
				}
				synctest.Wait()
				if got := w.actions(1); got[0] != "offline link-lost" {
					t.Errorf("audit: %v", got)
				}
			})
		})
	}
}

func TestPingsKeepALinkAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		c := w.control(w.addDevice(w.login(), "press 1"), hello("01"))
		defer c.Close()
		for range 100 {
			wire.Write(c, wire.TypePing, wire.Ping(10*time.Second))
			c.read(wire.TypePong, nil)
			time.Sleep(19 * time.Second)
		}
	})
}

func TestHelloRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		device, relay := w.addDevice(admin, "press 1"), w.enrollRelay()
		name := identity.DeviceName("plant", device.id.UID)
		edit := func(change func(*wire.Hello)) wire.Hello { h := relayHello("ab"); change(&h); return h }
		cases := []struct {
			name  string
			who   *someone
			hello wire.Hello
			want  transport.Reason
		}{
			{"no certificate", nil, hello("01"), transport.NotEnrolled},
			{"expired", w.certified(name, -2*time.Hour, -time.Hour), hello("01"), transport.Expired},
			{"not yet valid", w.certified(name, time.Hour, 2*time.Hour), hello("01"), transport.ClockWrong},
			{"wrong kind: a user", admin, hello("01"), transport.WrongKind},
			{"wrong kind: an access server", w.certified(identity.AccessName("a1"), 0, time.Hour), hello("01"), transport.WrongKind},
			{"another key", w.certified(name, 0, time.Hour), hello("01"), transport.WrongKey},
			{"unknown relay", w.certified(identity.RelayName("r9"), 0, time.Hour), relayHello("ab"), transport.NotEnrolled},
			{"relay without hosts", relay, hello("ab"), transport.Protocol},
			{"relay without instance", relay, relayHello(""), transport.Protocol},
			{"instance is no hex", relay, relayHello("r1/x"), transport.Protocol},
			{"instance too long", relay, relayHello(strings.Repeat("ab", 33)), transport.Protocol},
			{"host with a space", relay, edit(func(h *wire.Hello) { h.Hosts = []string{"a b"} }), transport.Protocol},
			{"host with a zone", relay, edit(func(h *wire.Hello) { h.Hosts = []string{"fe80::1%\x1b"} }), transport.Protocol},
			{"port 0", relay, edit(func(h *wire.Hello) { h.Ports = []transport.Port{0} }), transport.Protocol},
			{"many hosts", relay, edit(func(h *wire.Hello) { h.Hosts = make([]string, 9) }), transport.Protocol},
			{"version with a control character", device, wire.Hello{Version: "1\n"}, transport.Protocol},
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)))
		for _, c := range cases {
			conn := w.connect(c.who)
			wire.WriteJSON(conn, wire.TypeHello, c.hello)
			if got := refusal(conn); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
			conn.Close()
		}
		w.control(device, hello("01")).Close()
		w.control(relay, relayHello("ab")).Close()
		w.control(relay, edit(func(h *wire.Hello) { h.Hosts = []string{"2001:db8::1"} })).Close()
	})
}

func TestControlFramesWithFaults(t *testing.T) {
	cases := map[string][]byte{
		"hello again":       whole(wire.TypeHello, "{}"),
		"offer to a server": whole(wire.TypeOffer, "{}"),
		"ack not JSON":      whole(wire.TypeOfferAck, "x"),
		"end not JSON":      whole(wire.TypeEndSession, "["),
		"ping too short":    whole(wire.TypePing, "\x00"),
		"pong with payload": whole(wire.TypePong, "x"),
		"unknown type":      whole(0x6e, ""),
		"short time-again":  whole(wire.TypeTimeAgain, "x"),
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		for name, bytes := range cases {
			c := w.control(device, hello("01"))
			c.Write(bytes)
			if got := refusal(c); got != transport.Protocol {
				t.Errorf("%s: %q", name, got)
			}
			c.Close()
			synctest.Wait()
		}
	})
}

func TestTimeAgainOnControlConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		c := w.control(device, hello("01"))
		defer c.Close()
		c.read(wire.TypeJoinState, nil)
		nonce := [32]byte{1, 2, 3}
		request := wire.NewTimeRequest(nonce, device.id.UID)
		wire.Write(c, wire.TypeTimeAgain, request[:])
		f := must(wire.Expect(c, wire.TypeTime))
		if _, err := identity.VerifySignedTime(f.Payload, w.pki.Roots, nonce, w.shown(c.Conn), device.id.UID); err != nil {
			t.Error(err)
		}
	})
}

// A peer that does not read cannot hold up anybody: its queue overflows, and
// it is gone.
func TestPeerThatDoesNotReadIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		device := w.addDevice(w.login(), "press 1")
		conn := w.control(device, hello("01"))
		defer conn.Close()
		name := identity.DeviceName("plant", device.id.UID)
		l := w.server.presence.find(name)
		start := time.Now()
		big := message{wire.TypePool, []byte(strings.Repeat("x", 60<<10))}
		for range queueFrames * 3 {
			l.send(big)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("sending took %v", took)
		}
		<-l.done
		if took := time.Since(start); took > endTimeout+time.Second {
			t.Errorf("dropped after %v", took)
		}
		synctest.Wait()
		if w.server.presence.find(name) != nil {
			t.Error("still there")
		}
	})
}

func TestRevokedListIsBoundedAndNewestFirst(t *testing.T) {
	var p presence
	now := time.Now()
	for i := range 2000 {
		p.forbidLocked(identity.SPKI{1, byte(i >> 8), byte(i)}, now.Add(time.Duration(i)*time.Second))
	}
	p.forbidLocked(identity.SPKI{2}, now.Add(-60*24*time.Hour))
	list := p.revokedLocked(now.Add(2000 * time.Second))
	if len(list.SPKI) != maxRevoked || list.SPKI[0] != (identity.SPKI{1, 1999 >> 8, 1999 & 255}) {
		t.Errorf("%d keys, first %v", len(list.SPKI), list.SPKI[0])
	}
	if m := encode(wire.TypeRevoked, list); len(m.payload) > 64<<10 {
		t.Errorf("%d bytes", len(m.payload))
	}
	if slices.Contains(p.revokedLocked(now).SPKI, identity.SPKI{2}) {
		t.Error("a key without any valid certificate is pushed")
	}
	if !p.isRevoked(identity.SPKI{2}) {
		t.Error("an old key is forgotten")
	}
}

// What enrolls as a relay must register: the host is the one that server.yaml and the command line take.
func TestHelloTakesTheHostsOfAConfiguration(t *testing.T) {
	for host, ok := range map[string]bool{
		"relay_1.example.com": true, "r1.example.": true, "192.0.2.1": true, "2001:db8::1": true,
		"a..b": false, "-": false, "": false, "r1.example:443": false, "[2001:db8::1]:443": false, "fe80::1%a\n": false,
	} {
		h := wire.Hello{Version: "1", Instance: "ab", Hosts: []string{host}, Ports: []transport.Port{443}}
		if err := checkHello(h, identity.KindRelay); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"version":"1","instance":"ab","hosts":["r1"],"ports":[443]}`))
	f.Add([]byte(`{"hosts":["::1"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h wire.Hello
		if (wire.Frame{Type: wire.TypeHello, Payload: b}).Decode(&h) != nil || checkHello(h, identity.KindRelay) != nil {
			return
		}
		for _, s := range append(h.Hosts, h.Version, h.Instance) {
			if store.Printable(s) != s {
				t.Errorf("let through: %q", s)
			}
		}
		if _, err := netip.ParseAddr(h.Hosts[0]); err != nil && strings.ContainsAny(h.Hosts[0], " /:%\"\n") {
			t.Errorf("host %q", h.Hosts[0])
		}
	})
}

// So does a user who asks again and again for a session that he does not get.
func TestRefusedSessionsDoNotFillTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		w.addDevice(admin, "press 1") // and is offline
		refused := func() (list []store.Record) {
			for _, r := range w.records(1000) {
				if r.Action == actionSessionRefused {
					list = append(list, r)
				}
			}
			return list
		}
		for range 200 {
			if got := (<-w.open(admin, "press 1")).code; got != transport.Offline {
				t.Fatalf("refused for %q", got)
			}
		}
		if n := len(refused()); n != refusedRecords {
			t.Errorf("%d records at once", n)
		}
		time.Sleep(flapTime)
		synctest.Wait()
		list := refused()
		if last := list[len(list)-1]; len(list) != refusedRecords+1 || !strings.HasPrefix(last.Detail, "refused 180 times more in a minute") {
			t.Errorf("%d records, the last %+v", len(list), last)
		}
	})
}

// A link that flaps has two records in a minute, and one that counts the rest and tells the last state.
func TestAFlappingLinkDoesNotFillTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		time.Sleep(flapTime) // what the stage did is past
		synctest.Wait()
		mine := func() (list []store.Record) {
			for _, r := range s.records(1000) {
				if r.Object == identity.DeviceName("plant", s.device.id.UID).String() {
					list = append(list, r)
				}
			}
			return list
		}
		before := len(mine())
		for range 50 {
			s.control(s.device, hello("07")).Close()
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := len(mine()) - before; n != flapRecords {
			t.Errorf("%d records at once", n)
		}
		time.Sleep(flapTime)
		synctest.Wait()
		list := mine()[before:]
		last := list[len(list)-1]
		if len(list) != flapRecords+1 || last.Action != actionOffline || !strings.Contains(last.Detail, "99 times more") {
			t.Errorf("%d records, the last %+v", len(list), last)
		}
	})
}

// A client that floods its control connection is read slowly, and others go on. One that is busy does not notice.
func TestFramesOfOneLinkAreTakenSlowly(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame wire.Type
		body  any
		n     int
		want  time.Duration // until the pong to a ping behind them
	}{
		{"a busy client", wire.TypeOfferAck, wire.OfferAck{Session: "s"}, 99, 0},
		{"a flood", wire.TypeOfferAck, wire.OfferAck{Session: "s"}, 599, 50 * time.Second},
		{"a burst of measurements", wire.TypeMeasurements, wire.Measurements{}, 9, 0},
		{"a flood of them", wire.TypeMeasurements, wire.Measurements{}, 60, 50*time.Second + frameCost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				c := w.control(w.addDevice(w.login(), "press 1"), hello("01"))
				defer c.Close()
				c.read(wire.TypeJoinState, nil)
				time.Sleep(time.Minute) // what was sent before counts no more
				began := time.Now()
				for range tt.n {
					c.write(tt.frame, tt.body)
				}
				if err := wire.Write(c, wire.TypePing, wire.Ping(time.Minute)); err != nil {
					t.Fatal(err)
				}
				if f, err := wire.Expect(c, wire.TypePong); err != nil || time.Since(began) != tt.want {
					t.Errorf("%v after %v: %v, want %v", f.Type, time.Since(began), err, tt.want)
				}
			})
		})
	}
}

func TestAFloodedLinkStillEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.control(w.addDevice(w.login(), "press 1"), hello("01"))
		for range 200 {
			c.write(wire.TypeMeasurements, wire.Measurements{})
		}
		synctest.Wait()
		began := time.Now()
		w.stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("the end took %v", took)
		}
	})
}
