package access

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// However many clients ask, the operator is told once a minute, and what is wrong.
func TestAClockThatIsBehindIsReportedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		newest := time.Now()
		c.observe(newest)
		told := 0
		for range 10 * 60 {
			behind, of, due := c.alert(newest.Add(-time.Hour))
			if behind != time.Hour || !of.Equal(newest) {
				t.Fatalf("%v behind %v", behind, of)
			}
			if due {
				told++
			}
			time.Sleep(time.Second)
		}
		if told != 10 {
			t.Errorf("told %d times in 10 min", told)
		}
	})
}

// A clock was ten years ahead for a while. It is right again, and the store says
// that it is behind, until an operator says since when it is right.
func TestRecordsOfAWrongClockDoNotCountOnceAnOperatorSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w := newIdleWorld(t)
		err := w.cfg.Store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.Append(store.Record{Time: begin.AddDate(10, 0, 0)})
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			set  time.Time
			ok   bool
		}{
			{"nobody has said anything", time.Time{}, false},
			{"it was right before those records", begin, true},
			{"it is right since after them", begin.AddDate(11, 0, 0), false},
		} {
			w.cfg.ClockSet = c.set
			w.start()
			conn := w.dial(transport.ALPNAccess, nil)
			wire.Write(conn, wire.TypeTimeRequest, make([]byte, wire.TimeRequestBytes))
			if _, err := wire.Expect(conn, wire.TypeTime); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.name, err)
			}
			conn.Close()
			w.stop()
			if err := CheckClock(t.Context(), w.cfg.Store, c.set, time.Now()); (err == nil) != c.ok {
				t.Errorf("%s: check says %v", c.name, err)
			}
		}
	})
}

// Anybody may ask what time it is. The answer is signed for the question and this connection, and there is none while the
// server does not trust its own clock.
func TestTimeIsSignedForAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Int64
		w := newWorld(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) } })
		defer w.stop()
		leaf := must(w.server.leafSPKI())
		nonce := [32]byte{1, 2, 3}
		var answer api.TimeAnswer
		if status := w.call(nil, "POST", "/api/v1/time", api.TimeRequest{Nonce: nonce[:]}, &answer); status != 200 {
			t.Fatalf("%d", status)
		}
		signed, err := identity.VerifySignedTime(answer.Time, w.pki.Roots, nonce, identity.Peer{Name: w.cfg.Name, SPKI: leaf}, identity.UID{})
		if err != nil || !signed.Time.Equal(time.Now()) {
			t.Errorf("%v, %v", signed.Time, err)
		}
		for _, bad := range []any{api.TimeRequest{}, api.TimeRequest{Nonce: make([]byte, 33)}, map[string]any{"nonce": nonce[:], "uid": "00"}} {
			if got := w.code(nil, "POST", "/api/v1/time", bad); got != api.BadRequest {
				t.Errorf("%v: %q", bad, got)
			}
		}
		off.Store(int64(-time.Hour))
		if got := w.code(nil, "POST", "/api/v1/time", api.TimeRequest{Nonce: nonce[:]}); got != transport.ClockWrong {
			t.Errorf("with a clock that fell back: %q", got)
		}
	})
}
