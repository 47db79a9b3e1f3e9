package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestPreludeBringsSignedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serve(func(c *tls.Conn) { s.access.Prelude(c, nil) })
		s.net.SetLatency(150 * time.Millisecond)
		conn, err := s.client.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if len(s.clock.signed) != 1 || s.clock.rtt != 300*time.Millisecond || time.Since(s.clock.signed[0].Time) != 150*time.Millisecond {
			t.Errorf("the clock got %+v, %v old", s.clock.signed, s.clock.rtt)
		}
		time.Sleep(time.Hour) // no deadline is left behind
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	})
}

// spoiled answers with a signed time of which something is different.
func spoiled(change func(*identity.SignedTime)) func(*site, *tls.Conn) {
	return func(s *site, c *tls.Conn) { s.access.Prelude(c, change) }
}

// raw answers with a frame that is no signed time.
func raw(f func(s *site, request wire.Frame) (wire.Type, []byte)) func(*site, *tls.Conn) {
	return func(s *site, c *tls.Conn) {
		request, _ := wire.Read(c)
		kind, payload := f(s, request)
		wire.Write(c, kind, payload)
	}
}

var preludeFaults = []struct {
	name   string
	script func(*site, *tls.Conn)
	setup  func(*site)
	want   transport.Reason
	took   time.Duration
}{
	{name: "late", script: func(s *site, c *tls.Conn) {
		f, _ := wire.Read(c)
		answer := s.access.Time(f, nil)
		time.Sleep(10*time.Second + 1)
		wire.Write(c, wire.TypeTime, answer)
	}, want: transport.Timeout, took: 10 * time.Second},
	{name: "never", script: func(*site, *tls.Conn) {}, want: transport.Timeout, took: 10 * time.Second},
	{name: "other nonce", script: spoiled(func(t *identity.SignedTime) { t.Nonce[5] ^= 1 }), want: transport.BadTime},
	{name: "other server", script: spoiled(func(t *identity.SignedTime) { t.Server[5] ^= 1 }), want: transport.BadTime},
	{name: "other device", script: spoiled(func(t *identity.SignedTime) { t.UID[5] ^= 1 }), want: transport.BadTime},
	{name: "chain expired at that time", script: spoiled(func(t *identity.SignedTime) { t.Time = t.Time.Add(31 * 24 * time.Hour) }), want: transport.Expired},
	{name: "chain not yet valid at that time", script: spoiled(func(t *identity.SignedTime) { t.Time = t.Time.Add(-2 * time.Hour) }), want: transport.ClockWrong},
	{name: "stolen expired key, in 1970", script: spoiled(nil), setup: func(s *site) {
		s.access.Leaf = s.issue(-2*time.Hour, -time.Hour)
		s.clock.floor, s.clock.authentic = time.Unix(0, 0), false
	}, want: transport.Expired},
	{name: "signature flipped", script: raw(func(s *site, r wire.Frame) (wire.Type, []byte) {
		b := s.access.Time(r, nil)
		b[120] ^= 1
		return wire.TypeTime, b
	}), want: transport.BadTime},
	{name: "truncated", script: raw(func(s *site, r wire.Frame) (wire.Type, []byte) { return wire.TypeTime, s.access.Time(r, nil)[:150] }), want: transport.BadTime},
	{name: "empty", script: raw(func(*site, wire.Frame) (wire.Type, []byte) { return wire.TypeTime, nil }), want: transport.BadTime},
	{name: "time key of other roots", script: spoiled(nil), setup: func(s *site) { s.pki.Time = identitytest.New(time.Now()).Time }, want: transport.WrongRoot},
	{name: "other frame", script: raw(func(*site, wire.Frame) (wire.Type, []byte) { return wire.TypePaired, nil }), want: transport.BadTime},
	{name: "bytes that are no frame", script: func(_ *site, c *tls.Conn) { io.WriteString(c, "HTTP/1.1 200 OK") }, want: transport.BadTime},
	{name: "server without a clock", script: raw(func(*site, wire.Frame) (wire.Type, []byte) {
		return wire.TypeRefuse, []byte(`{"reason":"clock"}`)
	}), want: transport.ClockWrong},
	{name: "busy server", script: raw(func(*site, wire.Frame) (wire.Type, []byte) {
		return wire.TypeRefuse, []byte(`{"reason":"busy","retry_after_s":9}`)
	}), want: transport.Busy},
	{name: "closed instead", script: func(_ *site, c *tls.Conn) { c.Close() }, want: transport.Reset},
	{name: "our clock refuses", script: spoiled(nil), setup: func(s *site) { s.clock.refuse = errors.New("beyond the ceiling") }, want: transport.BadTime},
}

func TestServerThatCannotProveItselfLearnsNothing(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(preludeFaults)))
	for _, f := range preludeFaults {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				if f.setup != nil {
					f.setup(s)
				}
				s.serve(func(c *tls.Conn) {
					// What is not a time-request would show here as well.
					f.script(s, c)
				})
				begin := time.Now()
				conn, err := s.client.Connect(t.Context())
				if conn != nil || transport.ReasonOf(err) != f.want || time.Since(begin) != f.took {
					t.Errorf("got %v, %v after %v, want %s after %v", conn, err, time.Since(begin), f.want, f.took)
				}
				if len(s.clock.signed) != 0 {
					t.Error("the clock believed it")
				}
				synctest.Wait()
				// A server that never read its request still has it, and nothing else.
				if rest := len(s.access.Rest()); rest != 0 && rest != 4+wire.TimeRequestBytes {
					t.Errorf("the server learned %q", s.access.Rest())
				}
			})
		})
	}
}

func TestRetryAfterReachesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serve(func(c *tls.Conn) {
			wire.Read(c)
			wire.Refuse(c, &wire.Refusal{Reason: transport.Busy, RetryAfter: 9 * time.Second})
		})
		_, err := s.client.Connect(t.Context())
		if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.RetryAfter != 9*time.Second {
			t.Errorf("got %v", err)
		}
	})
}

// A stolen server key has expired, and the time of the true server is forwarded
// with the nonce or not (K7); an answer is a replay, another device's or late (K8).
func TestStolenKeysAndReplaysAreRefused(t *testing.T) {
	const hour, honest = time.Hour, "without a fault"
	stolen := func(s *site) {
		s.access.Leaf = s.issue(-2*hour, -hour)
		s.clock.floor, s.clock.authentic = time.Unix(0, 0), false
	}
	var early [][]byte // of an exchange before
	for _, c := range []struct {
		id, name string
		setup    func(*site)
		answer   func(*site, wire.Frame) []byte
	}{
		{"K7", honest, func(s *site) { s.clock.floor, s.clock.authentic = time.Unix(0, 0), false }, func(s *site, f wire.Frame) []byte { return s.access.Time(f, nil) }},
		{"K8", honest, nil, func(s *site, f wire.Frame) []byte { return s.access.Time(f, nil) }},
		{"K7", "nonce forwarded to the true server", stolen, func(s *site, f wire.Frame) []byte {
			// The true server signs for the leaf that it shows itself.
			mine := s.access.Leaf
			s.access.Leaf = s.issue(-hour, hour)
			defer func() { s.access.Leaf = mine }()
			return s.access.Time(f, nil)
		}},
		{"K7", "nonce forwarded, signed for the stolen leaf", stolen, func(s *site, f wire.Frame) []byte { return s.access.Time(f, nil) }},
		{"K7", "nonce not forwarded, an old time replayed", stolen, func(s *site, f wire.Frame) []byte {
			return s.access.Time(f, func(t *identity.SignedTime) { t.Nonce, t.Time = [32]byte{1}, time.Now().Add(-90*time.Minute) })
		}},
		{"K8", "replayed on a second connection", nil, func(s *site, f wire.Frame) []byte {
			if early = append(early, s.access.Time(f, nil)); len(early) == 1 {
				return s.access.Time(f, func(t *identity.SignedTime) { t.Nonce[0] ^= 1 })
			}
			return early[0]
		}},
		{"K8", "of another device", nil, func(s *site, f wire.Frame) []byte {
			return s.access.Time(f, func(t *identity.SignedTime) { t.UID = identity.NewUID() })
		}},
		{"K8", "11 s on the way", nil, func(s *site, f wire.Frame) []byte {
			defer time.Sleep(11 * time.Second)
			return s.access.Time(f, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Attr("id", c.id)
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				if c.setup != nil {
					c.setup(s)
				}
				s.serve(func(conn *tls.Conn) {
					if f, err := wire.Read(conn); err == nil {
						wire.Write(conn, wire.TypeTime, c.answer(s, f))
					}
				})
				for range 2 {
					conn, err := s.client.Connect(t.Context())
					if good := c.name == honest; (conn != nil) != good || (err == nil) != good || (len(s.clock.signed) > 0) != good {
						t.Errorf("got %v, %v; the clock believed %v", conn, err, s.clock.signed)
					}
					if conn != nil {
						conn.Close()
					}
				}
			})
		})
	}
}

func TestUnsureClockGetsPastTheDatesButNeverBelowItsFloor(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name  string
		floor time.Duration // from now
		sure  bool
		want  transport.Reason
	}{
		{"1970, unsure", -time.Since(time.Unix(0, 0)) / 2, false, ""},
		{"floor within the leaf's dates", -hour / 2, false, ""},
		{"floor after the leaf", 31 * 24 * hour, false, transport.ClockWrong},
		{"after the leaf, sure", 31 * 24 * hour, true, transport.Expired},
		{"before the leaf, sure", -2 * hour, true, transport.ClockWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.serve(func(c *tls.Conn) { s.access.Prelude(c, nil) })
				s.clock.floor, s.clock.authentic = time.Now().Add(c.floor), c.sure
				s.client.Dialer.Now = func() time.Time { return time.Unix(0, 0) }
				conn, err := s.client.Connect(t.Context())
				if transport.ReasonOf(err) != c.want {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
}

func TestConnectHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serve(func(*tls.Conn) {})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := s.client.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

func TestEnrollAndRenewAsk(t *testing.T) {
	want := wire.Identity{Chain: "PEM", Domain: "plant", UID: identity.NewUID(), Name: "pump 1"}
	asks := map[wire.Type]func(*Conn, context.Context) (wire.Identity, error){
		wire.TypeEnroll: func(c *Conn, ctx context.Context) (wire.Identity, error) {
			return c.Enroll(ctx, wire.Enroll{Code: identity.NewCode().String(), CSR: []byte{1}})
		},
		wire.TypeRenew: func(c *Conn, ctx context.Context) (wire.Identity, error) {
			return c.Renew(ctx, wire.Renew{CSR: []byte{1}})
		},
	}
	for kind, ask := range asks {
		for _, c := range []struct {
			name   string
			answer func(*tls.Conn)
			want   transport.Reason
			took   time.Duration
		}{
			{"answered", func(c *tls.Conn) { wire.WriteJSON(c, wire.TypeIdentity, want) }, "", 0},
			{"refused", func(c *tls.Conn) { wire.Refuse(c, &wire.Refusal{Reason: transport.BadCode}) }, transport.BadCode, 0},
			{"not JSON", func(c *tls.Conn) { wire.Write(c, wire.TypeIdentity, []byte("[]")) }, transport.Protocol, 0},
			{"other frame", func(c *tls.Conn) { wire.Write(c, wire.TypePong, nil) }, transport.Protocol, 0},
			{"silent", func(*tls.Conn) {}, transport.Timeout, answerTimeout},
		} {
			t.Run(fmt.Sprintf("%#x %s", byte(kind), c.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					s.serve(func(conn *tls.Conn) {
						s.access.Prelude(conn, nil)
						if f, err := wire.Expect(conn, kind); err != nil || !bytes.Contains(f.Payload, []byte(`"csr":"AQ=="`)) {
							t.Errorf("got %s, %v", f.Payload, err)
						}
						c.answer(conn)
					})
					conn, err := s.client.Connect(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					begin := time.Now()
					got, err := ask(conn, t.Context())
					if transport.ReasonOf(err) != c.want || time.Since(begin) != c.took || err == nil && !reflect.DeepEqual(got, want) {
						t.Errorf("got %+v, %v after %v", got, err, time.Since(begin))
					}
				})
			})
		}
	}
}

func TestAskHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serve(func(conn *tls.Conn) { s.access.Prelude(conn, nil) })
		conn, err := s.client.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.Enroll(ctx, wire.Enroll{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("enroll: %v", err)
		}
		if _, err := conn.Control(ctx, wire.Hello{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hello: %v", err)
		}
	})
}

func TestRetryAfterIsHonouredAndAHintIsBounded(t *testing.T) {
	refusal := fmt.Errorf("hello: %w", &wire.Refusal{Reason: transport.Busy, RetryAfter: time.Hour})
	for _, tt := range []struct {
		err  error
		want time.Duration
	}{
		{refusal, time.Hour},
		{unproven{refusal}, time.Minute},
		{fmt.Errorf("renew: %w", unproven{&wire.Refusal{RetryAfter: 5 * time.Second}}), 5 * time.Second},
		{errors.New("no server said anything"), 0},
		{nil, 0},
	} {
		if got := RetryAfter(tt.err); got != tt.want {
			t.Errorf("RetryAfter(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
	if reason := transport.ReasonOf(unproven{refusal}); reason != transport.Busy {
		t.Errorf("reason of a hint = %q", reason)
	}
}
