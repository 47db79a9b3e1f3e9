package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// frame is the bytes of one frame, whatever it claims.
func frame(t wire.Type, length int, payload string) []byte {
	return append([]byte{byte(t), byte(length >> 16), byte(length >> 8), byte(length)}, payload...)
}

func whole(t wire.Type, payload string) []byte { return frame(t, len(payload), payload) }

func TestPreludeSignsTimeInSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		var last uint64
		for range 3 {
			conn := w.dial(transport.ALPNAccess, nil)
			signed := w.askTime(conn)
			if signed.Sequence <= last || time.Since(signed.Time).Abs() > time.Second {
				t.Errorf("sequence %d after %d, time %v", signed.Sequence, last, signed.Time)
			}
			last = signed.Sequence
			conn.Close() // wanted only the time
		}
	})
}

// Anything but a time-request comes first: refused, and nothing is given away.
func TestPreludeRefusesEverythingElse(t *testing.T) {
	request := strings.Repeat("n", wire.TimeRequestBytes)
	cases := map[string][]byte{
		"enroll":                  whole(wire.TypeEnroll, "{}"),
		"renew":                   whole(wire.TypeRenew, "{}"),
		"hello":                   whole(wire.TypeHello, "{}"),
		"ping":                    whole(wire.TypePing, "\x00\x00\x00\x00"),
		"time-again":              whole(wire.TypeTimeAgain, request),
		"join":                    whole(wire.TypeJoin, "{}"),
		"unknown type":            whole(0x77, ""),
		"short time-request":      whole(wire.TypeTimeRequest, request[1:]),
		"empty time-request":      whole(wire.TypeTimeRequest, ""),
		"time-request lies: long": frame(wire.TypeTimeRequest, 1<<24-1, request),
		"time-request lies: 49":   frame(wire.TypeTimeRequest, 49, request),
		"HTTP":                    []byte("GET / HTTP/1.1\r\n\r\n"),
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for name, bytes := range cases {
			conn := w.dial(transport.ALPNAccess, nil)
			conn.Write(bytes)
			if got := refusal(conn); got != transport.Protocol {
				t.Errorf("%s: %q", name, got)
			}
			conn.Close()
		}
	})
}

// After the prelude, each purpose frame with each fault is refused.
func TestPurposeFramesWithFaults(t *testing.T) {
	big := strings.Repeat(" ", 16<<10)
	cases := map[string][]byte{
		"second time-request": whole(wire.TypeTimeRequest, strings.Repeat("n", 48)),
		"offer-ack":           whole(wire.TypeOfferAck, "{}"),
		"not JSON":            whole(wire.TypeEnroll, "code"),
		"empty":               whole(wire.TypeEnroll, ""),
		"JSON list":           whole(wire.TypeRenew, "[]"),
		"wrong member type":   whole(wire.TypeEnroll, `{"code":1}`),
		"CSR not base64":      whole(wire.TypeEnroll, `{"csr":"!"}`),
		"deep nesting":        whole(wire.TypeHello, strings.Repeat("[", 16000)),
		"length over limit":   frame(wire.TypeEnroll, len(big)+1, big),
		"largest length":      frame(wire.TypeHello, 1<<24-1, ""),
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for name, bytes := range cases {
			conn := w.connect(nil)
			conn.Write(bytes)
			if got := refusal(conn); got != transport.Protocol {
				t.Errorf("%s: %q", name, got)
			}
			conn.Close()
		}
	})
}

// A frame that is cut off at any byte does nothing.
func TestFramesCutShortDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		who := newSomeone()
		full := whole(wire.TypeEnroll, string(must(json.Marshal(wire.Enroll{Code: w.relay.String(), CSR: who.CSR()}))))
		for n := range len(full) {
			conn := w.connect(nil)
			conn.Write(full[:n])
			conn.CloseWrite()
			if f, err := wire.Read(conn); err == nil {
				t.Errorf("cut at %d: answer %#02x", n, f.Type)
			}
			conn.Close()
		}
		t.Attr("id", "A1-input")
		t.Attr("cases", fmt.Sprint(len(full)))
		wantReason(t, "uncut", w.enroll(w.relay.String(), who), "")
	})
}

// A client that does not name its purpose is gone after exactly 10 s.
func TestSilentClientsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for _, prelude := range []bool{false, true} {
			start := time.Now()
			conn := w.dial(transport.ALPNAccess, nil)
			if prelude {
				w.askTime(conn)
			}
			conn.Write([]byte{byte(wire.TypeEnroll), 0}) // dribbles
			if _, err := wire.Read(conn); !errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
			if took := time.Since(start); took != preludeTimeout {
				t.Errorf("cut after %v, want %v", took, preludeTimeout)
			}
			conn.Close()
		}
	})
}

// A clock that fell back behind the records vouches for nothing, over a
// restart too.
func TestServerWithAWrongClockRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var behind time.Duration
		w := newWorld(t, func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(-behind) }
		})
		admin := w.login()
		firstFrame := func() transport.Reason {
			conn := w.dial(transport.ALPNAccess, nil)
			defer conn.Close()
			wire.Write(conn, wire.TypeTimeRequest, make([]byte, wire.TimeRequestBytes))
			f, err := wire.Expect(conn, wire.TypeTime)
			if err == nil && f.Type == wire.TypeTime {
				return ""
			}
			return transport.ReasonOf(err)
		}
		w.stop()
		for _, c := range []struct {
			behind time.Duration
			want   transport.Reason
			status int
		}{{0, "", 200}, {50 * time.Second, "", 200}, {61 * time.Second, transport.ClockWrong, 503}, {0, "", 200}} {
			behind = c.behind
			w.start()
			if got := firstFrame(); got != c.want {
				t.Errorf("behind %v: %q, want %q", c.behind, got, c.want)
			}
			if got := w.call(admin, "GET", "/api/v1/devices", nil, nil); got != c.status {
				t.Errorf("behind %v: %d, want %d", c.behind, got, c.status)
			}
			w.stop()
		}
	})
}

// A panic ends its own connection, and no other.
func TestPanicEndsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var explode atomic.Bool
		w := newWorld(t, func(c *Config) {
			c.Now = func() time.Time {
				if explode.Load() {
					panic("a bug")
				}
				return time.Now()
			}
		})
		defer w.stop()
		conn, apiConn := w.connect(nil), w.dial(transport.ALPNAPI, nil)
		explode.Store(true)
		wire.WriteJSON(conn, wire.TypeEnroll, wire.Enroll{Code: w.relay.String(), CSR: newSomeone().CSR()})
		if _, err := wire.Read(conn); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		conn.Close()
		fmt.Fprint(apiConn, "GET /api/v1/devices HTTP/1.1\r\nHost: a1\r\n\r\n")
		b := make([]byte, 4096)
		if n, err := apiConn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 500") {
			t.Errorf("%s, %v", b[:n], err)
		}
		apiConn.Close()
		explode.Store(false)
		wantReason(t, "afterwards", w.enroll(w.relay.String(), newSomeone()), "")
	})
}
