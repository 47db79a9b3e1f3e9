package manager

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/wire"
)

// usableIn bounds the time from the death of a relay to the first byte through the next one.
const usableIn = 5 * time.Second

func TestSessionMovesWhenItsRelayDies(t *testing.T) {
	notes := []string{
		"session lost: link-lost via relay r1; moved to relay r2\nsession up via relay r2\n",
		"session lost: link-lost via relay r2; moved to relay r1\nsession up via relay r1\n"}
	for _, tt := range []struct {
		name   string
		lived  time.Duration
		losses int
		waits  bool // before the last one is mended
	}{
		{"settled", settled + time.Second, 5, false},
		{"in quick succession", time.Second, spared, false},
		{"once more", time.Second, spared + 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connect(t, "8080:192.168.1.10:80")
				r.net.SetLatency(10 * time.Millisecond)
				for i := range tt.losses {
					time.Sleep(tt.lived)
					r.notes.take()
					used, other := relayAddr, relayAddr2
					if i%2 == 1 {
						used, other = other, used
					}
					r.revive(other)
					r.kill(used)
					synctest.Wait() // a tool that comes in the very instant of the cut is given the dead session
					begin := time.Now()
					r.echoes(8080) // waits for the next session
					want, within := notes[i%2], 500*time.Millisecond
					if tt.waits && i == tt.losses-1 {
						want, within = strings.Replace(want, "; moved", "; reconnecting\nmoved", 1), usableIn
					}
					if took := time.Since(begin); took > within {
						t.Errorf("loss %d: usable again after %v, want %v", i, took, within)
					}
					if got := r.notes.take(); got != want {
						t.Errorf("loss %d: notes %q, want %q", i, got, want)
					}
				}
				if got := r.out.take(); strings.Count(got, "\n") != 1 {
					t.Errorf("the ready line came more than once:\n%s", got)
				}
				if n := r.called("POST /sessions"); n != 1 {
					t.Errorf("%d sessions were opened, want one that moves", n)
				}
				t.Attr("id", "A2-failover")
				t.Attr("cases", strconv.Itoa(tt.losses))
			})
		})
	}
}

// Nobody has noticed yet that the other relay is dead too: it is lost as soon as it cannot be joined.
func TestSessionMovesOnFromADeadRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		time.Sleep(settled)
		r.notes.take()
		r.kill(relayAddr2)
		r.restart(0)
		begin := time.Now()
		r.echoes(8080)
		if took := time.Since(begin); took > usableIn {
			t.Errorf("usable again after %v", took)
		}
		want := "session lost: link-lost via relay r1; moved to relay r2\nmoved to relay r1\nsession up via relay r1\n"
		if got := r.notes.take(); got != want {
			t.Errorf("notes %q, want %q", got, want)
		}
	})
}

func TestFirstSessionMovesFromADeadRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		f.kill(relayAddr)
		got, err := a.Ping(t.Context(), "press", 1, nil)
		if err != nil || got.Relay != "r2" {
			t.Errorf("%+v, %v", got, err)
		}
		if n := f.called("POST /sessions"); n != 1 {
			t.Errorf("%d sessions were opened, want one that moves", n)
		}
		f.kill(relayAddr2)
		if _, err := a.Ping(t.Context(), "press", 1, nil); ExitCode(err) != answer.ExitUnreachable {
			t.Errorf("no relay at all: %v", err)
		}
	})
}

func TestSessionThatCannotBeMovedIsReplaced(t *testing.T) {
	for code, status := range map[string]int{"not-found": 404, "closed": 409, "no-device": 404, "bad-request": 400, "method-not-allowed": 405, "": 500} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connect(t, "8080:192.168.1.10:80")
				time.Sleep(settled)
				r.notes.take()
				r.answer("POST /sessions/s1/move", problemAnswer(status, code, ""))
				r.restart(0)
				r.echoes(8080)
				want := "session lost: link-lost via relay r1; opening a new session\nsession up via relay r1\n"
				if got := r.notes.take(); got != want {
					t.Errorf("notes %q, want %q", got, want)
				}
				if n := r.called("POST /sessions"); n != 2 {
					t.Errorf("%d sessions were opened, want 2", n)
				}
			})
		})
	}
}

// Whoever joined with an offer of before would wait at a relay for nobody, or meet what has ended.
func TestStaleOfferIsNotUsed(t *testing.T) {
	for name, spoil := range map[string]func(*wire.Offer){
		"the epoch that was lost": func(o *wire.Offer) { o.Epoch, o.Grant = 2, "stale" },
		"an older epoch":          func(o *wire.Offer) { o.Epoch, o.Grant = 1, "stale" },
		"another session":         func(o *wire.Offer) { o.Session, o.Epoch, o.Grant = "s7", 9, "stale" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connect(t, "8080:192.168.1.10:80")
				time.Sleep(settled)
				r.restart(0) // moves to epoch 2
				time.Sleep(settled)
				r.notes.take()
				r.answer("POST /sessions/s1/move", func(w http.ResponseWriter, _ *http.Request) {
					r.mu.Lock()
					offer := r.offered["s1"]
					r.mu.Unlock()
					spoil(&offer)
					jsonAnswer(map[string]any{"offer": offer})(w, nil)
				})
				r.restart(1)
				r.echoes(8080)
				for _, relay := range r.relays {
					if joins := relay.Joins(); slices.Contains(joins, "stale") {
						t.Errorf("joined with %q", joins)
					}
				}
				if got := r.notes.take(); !strings.Contains(got, "opening a new session") {
					t.Errorf("notes %q", got)
				}
				t.Attr("id", "A1-refuse")
				t.Attr("cases", "1")
			})
		})
	}
}

// A session that runs does not need the Access Server; one that is lost waits for it.
func TestSessionRunsWithoutTheAccessServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		r.notes.take()
		r.net.Cut(clientAddr, accessAddr)
		time.Sleep(20 * time.Minute)
		r.echoes(8080)
		if got := r.notes.take(); got != "" {
			t.Errorf("the session was touched: %q", got)
		}
		r.kill(relayAddr)
		time.Sleep(10 * time.Minute)
		got := r.notes.take()
		if !strings.HasPrefix(got, "session lost: link-lost via relay r1; reconnecting\nno session: ") || strings.Count(got, "\n") != 2 {
			t.Errorf("notes %q", got)
		}
		r.net.Heal(clientAddr, accessAddr)
		time.Sleep(backoff().Longest + time.Second)
		r.echoes(8080)
		if got, want := r.notes.take(), "moved to relay r2\nsession up via relay r2\n"; got != want {
			t.Errorf("notes %q, want %q", got, want)
		}
	})
}

// The server is told what was lost, and why.
func TestMoveNamesTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		time.Sleep(settled)
		var got struct {
			Epoch  int
			Reason transport.Reason
		}
		r.answer("POST /sessions/s1/move", func(w http.ResponseWriter, req *http.Request) {
			json.NewDecoder(req.Body).Decode(&got)
			problemAnswer(404, "not-found", "")(w, req)
		})
		r.restart(0)
		r.echoes(8080)
		if got.Epoch != 1 || got.Reason != transport.LinkLost {
			t.Errorf("asked to move %+v", got)
		}
	})
}

// It ends at once also while it has no session.
func TestConnectEndsWhileItReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		for _, addr := range []netip.Addr{relayAddr, relayAddr2} {
			r.kill(addr)
		}
		time.Sleep(time.Minute)
		begin := time.Now()
		r.cancel()
		if err := <-r.ended; err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
