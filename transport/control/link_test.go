package control

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestHeartbeatIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		wait := run(ctx, s.link(ctx), Handler{})
		time.Sleep(10*time.Minute + 1)
		pings := s.got(wire.TypePing)
		if len(pings) != 10 {
			t.Errorf("%d pings in ten minutes, want 10", len(pings))
		}
		for i, p := range pings {
			if next, err := p.PingInterval(); p.At.Sub(begin) != time.Duration(i+1)*time.Minute || next != time.Minute || err != nil {
				t.Errorf("ping %d after %v promises %v, %v", i, p.At.Sub(begin), next, err)
			}
		}
		cancel()
		if at, err := wait(); err != nil || time.Since(at) != 0 {
			t.Errorf("cancelled: %v at %v", err, at)
		}
	})
}

// The loop shows that it turns when nothing happens, and not when a handler is
// stuck; neither is heard on the wire.
func TestTheLoopBeatsUnlessAHandlerIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 1200
		hang, stuck := make(chan struct{}), make(chan struct{})
		var last, longest, beats atomic.Int64
		last.Store(time.Now().UnixNano())
		ctx, cancel := context.WithCancel(t.Context())
		wait := run(ctx, s.link(ctx), Handler{
			Beat: func() {
				beats.Add(1)
				now := time.Now().UnixNano()
				longest.Store(max(longest.Load(), now-last.Swap(now)))
			},
			Measure: func() { close(stuck); <-hang },
		})
		time.Sleep(19 * time.Minute)
		if got := time.Duration(longest.Load()); got != beatEvery || len(s.got(wire.TypePing)) != 0 {
			t.Errorf("the longest time between two beats is %v, with %d pings", got, len(s.got(wire.TypePing)))
		}
		wire.Write(s.access.Newest(), wire.TypeMeasure, nil)
		<-stuck
		before := beats.Load()
		time.Sleep(time.Minute)
		if n := beats.Load() - before; n != 0 {
			t.Errorf("%d beats while the handler was stuck", n)
		}
		close(hang)
		cancel()
		wait()
	})
}

func TestDeadPeerIsNoticedAfterIntervalAndPatience(t *testing.T) {
	for heartbeat, want := range map[int]time.Duration{60: 70 * time.Second, 10: 20 * time.Second, 1: 8 * time.Second, 100000: 20*time.Minute + 10*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.access.Welcome.HeartbeatS = heartbeat
			l := s.link(t.Context())
			s.net.Stall(clientAddr, serverAddr)
			begin := time.Now()
			at, err := run(t.Context(), l, Handler{})()
			if transport.ReasonOf(err) != transport.LinkLost || at.Sub(begin) != want {
				t.Errorf("heartbeat %d: %v after %v, want %v", heartbeat, err, at.Sub(begin), want)
			}
			s.net.Heal(clientAddr, serverAddr)
		})
	}
}

func TestMuteServerIsADeadPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		l := s.link(t.Context())
		s.access.Set(func() { s.access.Mute = true })
		begin := time.Now()
		if at, err := run(t.Context(), l, Handler{})(); transport.ReasonOf(err) != transport.LinkLost || at.Sub(begin) != 70*time.Second {
			t.Errorf("%v after %v", err, at.Sub(begin))
		}
	})
}

func TestBusyLinkNoticesWithin10s(t *testing.T) {
	for _, dies := range []time.Duration{0, time.Second, 4999 * time.Millisecond, 5 * time.Second, 7 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.access.Welcome.HeartbeatS = 600
			l := s.link(t.Context())
			wait := run(t.Context(), l, Handler{})
			time.Sleep(100 * time.Second)
			l.Busy(true)
			time.Sleep(dies)
			s.net.Stall(clientAddr, serverAddr)
			died := time.Now()
			if at, err := wait(); transport.ReasonOf(err) != transport.LinkLost || at.Sub(died) > 10*time.Second {
				t.Errorf("died %v after it became busy: %v after %v", dies, err, at.Sub(died))
			}
			s.net.Heal(clientAddr, serverAddr)
		})
	}
}

func TestBusyChangesThePaceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 600
		ctx, cancel := context.WithCancel(t.Context())
		l := s.link(ctx)
		begin := time.Now()
		wait := run(ctx, l, Handler{})
		for _, busy := range []bool{true, true, false} {
			time.Sleep(11 * time.Second)
			l.Busy(busy)
		}
		time.Sleep(time.Minute)
		var at, promised []time.Duration
		for _, p := range s.got(wire.TypePing) {
			next, _ := p.PingInterval()
			at, promised = append(at, p.At.Sub(begin)), append(promised, next)
		}
		sec := time.Second
		if want := []time.Duration{11 * sec, 15 * sec, 19 * sec, 23 * sec, 27 * sec, 31 * sec, 33 * sec}; !reflect.DeepEqual(at, want) {
			t.Errorf("pings after %v, want %v", at, want)
		}
		if want := []time.Duration{4 * sec, 4 * sec, 4 * sec, 4 * sec, 4 * sec, 4 * sec, 600 * sec}; !reflect.DeepEqual(promised, want) {
			t.Errorf("pings promise %v, want %v", promised, want)
		}
		cancel()
		wait()
	})
}

func TestServersFramesReachTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		keep := func(v any) {
			b, _ := json.Marshal(v)
			got = append(got, string(b))
		}
		l := s.link(ctx)
		wait := run(ctx, l, Handler{
			Pool:       func(m wire.Pool) { keep(m) },
			EndSession: func(m wire.EndSession) { keep(m) },
			Revoked:    func(m wire.Revoked) { keep(m) },
			Measure:    func() { keep("measure") },
			Offer: func(m wire.Offer) *wire.Refusal {
				keep(m.User)
				if m.User == "eve" {
					return &wire.Refusal{Reason: transport.Policy, Text: "not \x1b eve"}
				}
				return nil
			},
		})
		wire.WriteJSON(s.access.Newest(), wire.TypePool, wire.Pool{})
		wire.WriteJSON(s.access.Newest(), wire.TypeEndSession, wire.EndSession{Session: "s"})
		wire.WriteJSON(s.access.Newest(), wire.TypeRevoked, wire.Revoked{SPKI: []identity.SPKI{{1}}})
		wire.WriteJSON(s.access.Newest(), wire.TypeOffer, wire.Offer{Session: "s1", User: "ann"})
		wire.WriteJSON(s.access.Newest(), wire.TypeOffer, wire.Offer{Session: "s2", User: "eve"})
		wire.Write(s.access.Newest(), wire.TypePing, wire.Ping(time.Minute))
		wire.Write(s.access.Newest(), wire.TypeMeasure, nil)
		synctest.Wait()
		want := []string{`{"relays":null}`, `{"session":"s","reason":""}`, `{"spki":["` + identity.SPKI{1}.String() + `"]}`, `"ann"`, `"eve"`, `"measure"`}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, err := range []error{
			l.EndSession(wire.EndSession{Session: "s1", Reason: transport.Closed}),
			l.Measurements(wire.Measurements{Relays: []wire.Measurement{{Name: "r1", RTTUS: 900, Port: 443}, {Name: "r2", Reason: transport.Timeout}}}),
			l.Load(wire.Load{Pipes: 1, Max: 2}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		var back []string
		for _, f := range s.access.Heard()[2:] { // after time-request and hello
			back = append(back, fmt.Sprintf("%#x %s", byte(f.Type), f.Payload))
		}
		want = []string{`0x24 {"session":"s1"}`, `0x24 {"session":"s2","reason":"policy","text":"not ? eve"}`, `0x27 `, `0x25 {"session":"s1","reason":"closed"}`,
			`0x2a {"relays":[{"name":"r1","rtt_us":900,"port":443},{"name":"r2","reason":"timeout"}]}`, `0x2b {"pipes":1,"max":2}`}
		if !reflect.DeepEqual(back, want) {
			t.Errorf("the server got %q, want %q", back, want)
		}
		cancel()
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestHandlerWithoutInterestRefusesOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		wait := run(ctx, s.link(ctx), Handler{})
		wire.WriteJSON(s.access.Newest(), wire.TypePool, wire.Pool{})
		wire.Write(s.access.Newest(), wire.TypeMeasure, nil)
		wire.WriteJSON(s.access.Newest(), wire.TypeOffer, wire.Offer{Session: "s1"})
		synctest.Wait()
		if acks := s.got(wire.TypeOfferAck); len(acks) != 1 || string(acks[0].Payload) != `{"session":"s1","reason":"unsupported"}` {
			t.Errorf("got %v", acks)
		}
		cancel()
		wait()
	})
}

func TestServerEndsTheLink(t *testing.T) {
	refuse := func(r transport.Reason) func(*site) {
		return func(s *site) { wire.Refuse(s.access.Newest(), &wire.Refusal{Reason: r}) }
	}
	write := func(t wire.Type, payload string) func(*site) {
		return func(s *site) { wire.Write(s.access.Newest(), t, []byte(payload)) }
	}
	cases := []struct {
		name string
		end  func(*site)
		want transport.Reason
	}{
		{"replaced", refuse(transport.Replaced), transport.Replaced},
		{"revoked", refuse(transport.Revoked), transport.Revoked},
		{"unreadable refusal", write(wire.TypeRefuse, "x"), transport.Protocol},
		{"closed", func(s *site) { s.access.Newest().Close() }, transport.LinkLost},
		{"broken", func(s *site) { s.net.Cut(clientAddr, serverAddr) }, transport.LinkLost},
		{"unknown frame", func(s *site) { s.access.Newest().Write([]byte{0x99, 0, 0, 0}) }, transport.Protocol},
		{"frame over its limit", func(s *site) { s.access.Newest().Write([]byte{0x22, 0xff, 0xff, 0xff}) }, transport.Protocol},
		{"frame out of place", write(wire.TypeIdentity, "{}"), transport.Protocol},
		{"measure that says something", func(s *site) { s.access.Newest().Write([]byte{0x2c, 0, 0, 1, 'x'}) }, transport.Protocol},
		{"load, which is a relay's to tell", write(wire.TypeLoad, "{}"), transport.Protocol},
		{"pool that is none", write(wire.TypePool, "[]"), transport.Protocol},
		{"offer that is none", write(wire.TypeOffer, "null"), transport.Protocol},
		{"ping too short", write(wire.TypePing, "abc"), transport.Protocol},
		{"time that nobody asked for", write(wire.TypeTime, "abc"), transport.BadTime},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.access.Welcome.HeartbeatS = 60
				wait := run(t.Context(), s.link(t.Context()), Handler{})
				time.Sleep(time.Second)
				c.end(s)
				if at, err := wait(); transport.ReasonOf(err) != c.want || time.Since(at) != 0 {
					t.Errorf("got %v, want %s", err, c.want)
				}
			})
		})
	}
}

func TestTimeIsSignedAgainEachDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		wait := run(ctx, s.link(ctx), Handler{})
		time.Sleep(49 * time.Hour)
		if n := len(s.got(wire.TypeTimeAgain)); n != 2 || len(s.clock.signed) != 3 {
			t.Errorf("asked %d times, the clock heard %d, want 2 and 3", n, len(s.clock.signed))
		}
		cancel()
		wait()
	})
}

func TestChainThatExpiresEndsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Leaf = s.issue(-time.Hour, 25*time.Hour)
		s.access.Welcome.HeartbeatS = 60
		begin := time.Now()
		at, err := run(t.Context(), s.link(t.Context()), Handler{})()
		if transport.ReasonOf(err) != transport.Expired || at.Sub(begin) != 48*time.Hour {
			t.Errorf("got %v after %v", err, at.Sub(begin))
		}
	})
}

func TestCancelDoesNotWaitForABlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.access.Welcome.HeartbeatS = 60
		ctx, cancel := context.WithCancel(t.Context())
		l := s.link(ctx)
		s.net.Stall(clientAddr, serverAddr)
		wait := run(ctx, l, Handler{})
		var err error
		for err == nil { // fill all buffers
			err = l.EndSession(wire.EndSession{Session: string(make([]byte, 600))})
		}
		cancel()
		if at, err := wait(); err != nil || time.Since(at) > writeTimeout {
			t.Errorf("got %v %v ago", err, time.Since(at))
		}
		s.net.Heal(clientAddr, serverAddr)
	})
}

// TestCancelledLinkIsClosedInOrder: the last that the server hears is TLS's
// close_notify (RFC 8446 §6.1), and nothing when the link was only cut.
func TestCancelledLinkIsClosedInOrder(t *testing.T) {
	const alertRecord = 5 + 2 + 1 + 16 // header, alert, type, tag
	for name, want := range map[string]int{"cancelled": alertRecord, "ended by the server": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				rest := make(chan []byte, 1)
				s.serve(func(conn *tls.Conn) {
					s.access.Prelude(conn, nil)
					wire.Read(conn)
					wire.WriteJSON(conn, wire.TypeWelcome, wire.Welcome{HeartbeatS: 60})
					if want == 0 {
						wire.Refuse(conn, &wire.Refusal{Reason: transport.Replaced})
					}
					b, _ := io.ReadAll(conn.NetConn())
					rest <- b
				})
				ctx, cancel := context.WithCancel(t.Context())
				wait := run(ctx, s.link(ctx), Handler{})
				time.Sleep(time.Second)
				cancel()
				if b := <-rest; len(b) != want {
					t.Errorf("the server heard % x, want %d bytes", b, want)
				}
				wait()
			})
		})
	}
}

func TestWallClockIsAlwaysSure(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	c := WallClock{Now: func() time.Time { return now }}
	if at, sure := c.Floor(); at != now || !sure || c.Signed(identity.SignedTime{}, 0) != nil {
		t.Errorf("got %v %v", at, sure)
	}
}
