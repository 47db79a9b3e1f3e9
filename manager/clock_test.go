package manager

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

func TestHowFarAClockMayBeOff(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ took, signed, want time.Duration }{
		{0, 0, 0}, {0, maxClockOff, 0}, {0, -maxClockOff, 0}, {time.Minute, maxClockOff + time.Minute, 0},
		{0, maxClockOff + 1, -maxClockOff - 1}, {0, -maxClockOff - 1, maxClockOff + 1},
		{time.Minute, maxClockOff + time.Minute + 1, -maxClockOff - 1}, {0, -10000 * time.Hour, 10000 * time.Hour},
	} {
		if off := clockOff(now, now.Add(tt.took), now.Add(tt.signed)); off != tt.want {
			t.Errorf("%+v: off by %v", tt, off)
		}
	}
}

// A PC whose clock is wrong signs nothing, and says by how much it is wrong. Who has looked at another clock revokes all the
// same: a stolen server with the key for time must not keep anybody in.
func TestAWrongClockSignsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		kept, _ := f.mailbox()
		*kept = append(*kept, a.state.owner.Chain()...)
		f.answer("GET /users", jsonAnswer(api.Users{}))
		f.answer("POST /users", jsonAnswer(api.NewSubject{}))
		f.answer("POST /users/ann/revoke", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		if err := a.RevokeUser(t.Context(), "ann", false); err != nil {
			t.Fatal(err)
		}
		lists := a.state.owner.Lists()
		var told []string
		m.Notice = func(text string) { told = append(told, text) }
		for _, tt := range []struct {
			off    time.Duration
			answer http.HandlerFunc
			want   transport.Reason
			words  string
		}{
			{5*time.Minute - time.Second, f.time, "", ""},
			{-5*time.Minute + time.Second, f.time, "", ""},
			{6 * time.Minute, f.time, transport.ClockWrong, "6m0s ahead of"},
			{-7 * time.Minute, f.time, transport.ClockWrong, "7m0s behind"},
			{2 * 24 * time.Hour, f.time, transport.ClockWrong, "48h0m0s ahead of"},
			{0, jsonAnswer(api.TimeAnswer{Time: f.pki.SignTime(identity.SignedTime{Time: time.Now(), Server: f.leafSPKI})}), transport.BadTime, ""},
			{0, jsonAnswer(api.TimeAnswer{}), transport.BadTime, ""},
			{0, problemAnswer(503, "clock", "the server's own"), transport.ClockWrong, "the server's own"},
			{0, problemAnswer(503, "busy", "later"), transport.Busy, ""},
		} {
			f.answer("POST /time", tt.answer)
			m.Now = func() time.Time { return time.Now().Add(tt.off) }
			a := must(m.Open())
			before := len(*kept)
			_, err := a.AddUser(t.Context(), "bob", UserRights{Role: identity.RoleAdmin})
			if got := transport.ReasonOf(err); got != tt.want || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("off by %v: %v, want %s %q", tt.off, err, tt.want, tt.words)
			}
			if isClock(err) && (answer.Code(err) != answer.ExitFailed || Advice(err) != "set the clock of this computer") {
				t.Errorf("exit %d, %q", answer.Code(err), Advice(err))
			}
			if tt.want != "" && (len(*kept) != before || a.state.owner.Lists() != lists && !slices.Equal(a.state.owner.Lists().Bytes(), lists.Bytes())) {
				t.Errorf("off by %v: something was signed", tt.off)
			}
			if !isClock(err) || tt.off > time.Hour {
				continue
			}
			if err := a.RevokeUser(t.Context(), "ann", false); !isClock(err) {
				t.Errorf("off by %v: revoked: %v", tt.off, err)
			}
			m.TrustClock = true
			if err := must(m.Open()).RevokeUser(t.Context(), "ann", false); err != nil {
				t.Errorf("off by %v, whatever the server says: %v", tt.off, err)
			}
			m.TrustClock = false
			lists = must(m.Open()).state.owner.Lists()
		}
		if len(told) != 2 || !strings.Contains(told[0], "--trust-clock") {
			t.Errorf("told: %q", told)
		}
	})
}

// A PC that is a day off renews no certificate, and is told of its clock, not of a code.
func TestARenewalIsToldOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		f.loggedIn(m)
		m.Now = func() time.Time { return time.Now().Add(24 * time.Hour) }
		_, err := must(m.Open()).Devices(t.Context())
		if transport.ReasonOf(err) != transport.ClockWrong || !strings.Contains(err.Error(), "24h0m0s ahead of") {
			t.Errorf("%v", err)
		}
		// A founder's login states him, and says so too.
		m = f.manager()
		m.Now = func() time.Time { return time.Now().Add(-6 * time.Minute) }
		if _, err := m.Login(t.Context(), f.founder()); !strings.Contains(err.Error(), "6m0s behind") || f.called("POST /login") != 1 {
			t.Errorf("%v", err)
		}
	})
}
