package manager

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestTheRemedyOfAnEnd(t *testing.T) {
	for reason, want := range map[transport.Reason]remedy{
		transport.LinkLost: move, transport.Closed: move, transport.Reset: move, transport.Locked: move, transport.Protocol: move,
		transport.PeerRestarted: move, "from-the-future": move, transport.Moved: move,
		transport.SessionMax: afresh, transport.Expired: afresh, transport.NotStated: afresh, transport.Stale: afresh,
		transport.Busy: pause, transport.SessionIdle: demand,
		transport.Ended: giveUp, transport.Policy: giveUp, transport.Revoked: giveUp,
	} {
		if got := remedyOf(reason); got != want {
			t.Errorf("%s: %d, want %d", reason, got, want)
		}
	}
}

// refuse makes the Runtime end the newest session.
func (f *fake) refuse(reason transport.Reason, text string) {
	s := f.newest()
	s.Refuse(&wire.Refusal{Reason: reason, Text: text})
	s.Close()
	synctest.Wait()
}

func TestASessionWhoseTimeIsOverIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.notes.take()
		time.Sleep(time.Hour)
		r.refuse(transport.SessionMax, "ended by the gateway's own rules: a session lasts 1h0m0s at most")
		time.Sleep(time.Second)
		want := "session ended: session-max: ended by the gateway's own rules: a session lasts 1h0m0s at most; opening a new session\n" +
			"session up via relay r1\n"
		if got := r.notes.take(); got != want {
			t.Errorf("notes %q, want %q", got, want)
		}
		if r.called("POST /sessions") != 2 || r.called("POST /sessions/s1/move") != 0 {
			t.Errorf("calls %v", r.calls)
		}
		r.echoes(8080)
	})
}

func TestAnIdleSessionIsReplacedWhenAToolConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.echoes(8080) // the bell of this one must not open a session later
		for n := 1; n <= 3; n++ {
			r.notes.take()
			time.Sleep(time.Minute)
			r.refuse(transport.SessionIdle, "ended by the gateway's own rules: nothing went through the session for 10m0s")
			time.Sleep(10 * time.Hour)
			if got := r.notes.take(); !strings.HasSuffix(got, "for 10m0s; a new one is opened when a tool connects\n") {
				t.Errorf("notes %q", got)
			}
			if got := r.called("POST /sessions"); got != n {
				t.Fatalf("%d sessions before a tool comes, want %d", got, n)
			}
			r.echoes(8080)
			if got := r.called("POST /sessions"); got != n+1 {
				t.Errorf("%d sessions, want %d", got, n+1)
			}
		}
		r.refuse(transport.SessionIdle, "")
		r.cancel() // while nobody wants one
		if err := <-r.ended; err != nil {
			t.Errorf("after ^C: %v", err)
		}
	})
}

func TestASessionThatSomebodyEndedIsNotReplaced(t *testing.T) {
	for reason, text := range map[transport.Reason]string{
		transport.Ended:   "the Access Server says: bob has ended the session",
		transport.Revoked: "refused by the owner's statements, not by the infrastructure: ann is listed",
		transport.Policy:  "refused by the owner's statements, not by the infrastructure: ann is a viewer, who opens no session",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := connect(t, "8080:192.168.1.10:80")
			r.refuse(reason, text)
			err := <-r.ended
			if want := "session with press: " + string(reason) + ": " + text; err == nil || err.Error() != want || ExitCode(err) != answer.ExitRefused {
				t.Errorf("%v, want %s and exit code 4", err, want)
			}
			if Advice(err) == "" {
				t.Errorf("%s: no advice", reason)
			}
			if r.called("POST /sessions") != 1 {
				t.Errorf("calls %v", r.calls)
			}
		})
	}
}

func TestWhoLosesHisPlaceAsksAgainAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.notes.take()
		again := r.answers["POST /sessions"]
		who := "all 16 places of the gateway are taken: bob 4 since 2026-11-30 07:12Z"
		r.answer("POST /sessions", problemAnswer(409, "busy", who))
		r.refuse(transport.Busy, "ended by the gateway's own rules: all 16 places are taken, ann has the most, and bob has come")
		time.Sleep(5 * time.Minute)
		got := r.notes.take()
		if !strings.HasPrefix(got, "session ended: busy: ended by the gateway's own rules: all 16 places are taken, ann has the most, and bob has come; reconnecting\n") ||
			!strings.Contains(got, who) || strings.Count(got, "\n") != 2 {
			t.Errorf("notes %q", got)
		}
		if n := r.called("POST /sessions"); n < 10 || n > 100 { // some 7 s apart
			t.Errorf("asked %d times", n)
		}
		r.answer("POST /sessions", again)
		time.Sleep(time.Minute)
		r.echoes(8080)
	})
}

// A session of days: the Runtime is shown each renewed certificate in time.
func TestWhatIsRenewedIsShownInTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		runtime := r.newest()
		ends := runtime.Until()
		for range 6 {
			until, statements, err := runtime.Renewed(t.Context())
			if err != nil || len(statements) != 2 {
				t.Fatalf("%q, %v", statements, err)
			}
			if left := time.Until(ends); left < 3*time.Hour || left > 4*time.Hour || !until.After(ends) {
				t.Errorf("shown %v before the end: until %v, was %v", left, until, ends)
			}
			ends = until
		}
		if n := r.called("POST /renew"); n > 12 { // by the session, and by who measures beside it
			t.Errorf("%d renewals", n)
		}
		if r.called("POST /sessions") != 1 {
			t.Errorf("calls %v", r.calls)
		}
		r.echoes(8080)
	})
}

// Another login here has another key, which this session must not be shown.
func TestANewLoginIsNotShownInAnOldSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		runtime := r.newest()
		time.Sleep(time.Hour)
		r.answer("POST /renew", func(w http.ResponseWriter, q *http.Request) { problemAnswer(503, "busy", "later")(w, q) })
		m := &Manager{Home: string(r.account.home), DialContext: r.client.DialContext}
		if _, err := m.Login(t.Context(), r.founder()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Hour)
		defer cancel()
		if until, _, err := runtime.Renewed(ctx); ctx.Err() == nil {
			t.Errorf("shown until %v, %v", until, err)
		}
	})
}

func TestStatementsThatAreNewAreShownInTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		runtime := r.newest()
		time.Sleep(time.Hour)
		own := r.account.state.owner
		stated := r.owner.UserChain("admin", identity.RoleAdmin, nil, r.account.state.Key.Public())
		if _, err := own.Take(stated, time.Now()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, statements, err := runtime.Renewed(t.Context())
		if err != nil || len(statements) != 2 || statements[0] != stated[0] || time.Since(began) > showEvery+time.Second {
			t.Errorf("%q, %v after %v", statements, err, time.Since(began))
		}
	})
}
