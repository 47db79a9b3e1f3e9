package manager

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// posted keeps the measurements that the fake API is sent.
type posted struct {
	mu  sync.Mutex // guards all
	all []wire.Measurements
}

// takeMeasurements makes the fake API accept measurements.
func (f *fake) takeMeasurements() *posted {
	p := new(posted)
	f.answer("POST /measurements", func(w http.ResponseWriter, r *http.Request) {
		var m wire.Measurements
		json.NewDecoder(r.Body).Decode(&m)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all = append(p.all, m)
		w.WriteHeader(http.StatusNoContent)
	})
	return p
}

// count is how often measurements were posted.
func (p *posted) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

func TestRelaysMeasuresPostsAndAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var progress []string
		m := f.manager()
		m.Progress = func(text string) { progress = append(progress, text) }
		a := f.loggedIn(m)
		f.net.SetLatency(10 * time.Millisecond)
		f.kill(relayAddr2)
		p := f.takeMeasurements()
		want := api.Decision{Device: f.uid, Chosen: "r1", Relays: []api.RelayChoice{{Name: "r1", Manager: &api.Measured{RTTMS: 20}, Verdict: "chosen"}}}
		f.answer("GET /devices/press 4/relays", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "measure=1" || p.count() != 1 {
				t.Errorf("query %q after %d posts", r.URL.RawQuery, p.count())
			}
			jsonAnswer(want)(w, r)
		})
		got, err := a.Relays(t.Context(), "press 4")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v, decision (-want +got):\n%s", err, diff)
		}
		measured := []wire.Measurements{{Relays: []wire.Measurement{
			{Name: "r1", RTTUS: 20_000, Port: 443, Way: "direct"},
			{Name: "r2", Reason: transport.Refused},
		}}}
		if diff := cmp.Diff(measured, p.all); diff != "" {
			t.Errorf("posted (-want +got):\n%s", diff)
		}
		said := strings.Join(progress, "\n")
		for _, want := range []string{"measuring 2 relays: r1, r2\n", "waiting for what press 4 measures\n"} {
			if !strings.Contains(said, want) || !strings.HasSuffix(said, "\n") {
				t.Errorf("progress %q, want %q and nothing in the end", progress, want)
			}
		}
	})
}

func TestRelaysFailsWhereTheAPIDoes(t *testing.T) {
	for _, call := range []string{"GET /relays", "POST /measurements", "GET /devices/press/relays"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				a := f.loggedIn(f.manager())
				f.takeMeasurements()
				f.answer("GET /devices/press/relays", jsonAnswer(api.Decision{}))
				if d, err := a.Relays(t.Context(), "press"); err != nil || d.Relays == nil {
					t.Errorf("without a fault: %+v, %v", d, err)
				}
				f.answer(call, problemAnswer(403, "revoked", "no"))
				if _, err := a.Relays(t.Context(), "press"); ExitCode(err) != answer.ExitRefused {
					t.Errorf("error %v", err)
				}
				if _, err := a.Relays(t.Context(), "../press"); ExitCode(err) != answer.ExitUsage {
					t.Errorf("no name: %v", err)
				}
			})
		})
	}
}

func TestAddRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		want := api.NewRelay{Name: "r3", Code: "0123-4567", Expires: time.Now().UTC()}
		f.answer("POST /relays", jsonAnswer(want))
		if got, err := a.AddRelay(t.Context(), "r3", []string{"r3.example"}, nil); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
		f.answer("POST /relays", problemAnswer(409, "name-taken", "there is one"))
		if _, err := a.AddRelay(t.Context(), "r3", []string{"r3.example"}, nil); transport.ReasonOf(err) != api.NameTaken {
			t.Errorf("taken: %v", err)
		}
		for _, name := range []string{"", "R3", "r 3", "-r", "r\x1b[2J", strings.Repeat("r", 64)} {
			if _, err := a.AddRelay(t.Context(), name, []string{"r3.example"}, nil); ExitCode(err) != answer.ExitUsage {
				t.Errorf("name %q: %v", name, err)
			}
		}
		if n := f.called("POST /relays"); n != 2 {
			t.Errorf("%d requests: a name that cannot be was sent", n)
		}
	})
}

func TestRelaysAreListedAndRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		if _, err := a.RegisteredRelays(t.Context()); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("a server of before: %v", err)
		}
		f.answer("GET /relays/registered", jsonAnswer(api.RegisteredRelays{}))
		if all, err := a.RegisteredRelays(t.Context()); err != nil || all == nil || len(all) != 0 {
			t.Errorf("no relays: %v, %v", all, err)
		}
		r1 := api.RegisteredRelay{Name: "r1", State: api.StateEnrolled, Online: true,
			Hosts: []string{"r1.example"}, Ports: []transport.Port{443}, Pipes: 3}
		r2 := api.RegisteredRelay{Name: "r2", State: api.StatePending}
		f.answer("GET /relays/registered", jsonAnswer(api.RegisteredRelays{Relays: []api.RegisteredRelay{r1, r2}}))
		all, err := a.RegisteredRelays(t.Context())
		if diff := cmp.Diff([]api.RegisteredRelay{r1, r2}, all); err != nil || diff != "" {
			t.Errorf("%v, relays (-want +got):\n%s", err, diff)
		}
		r1.State, r1.Online = api.StateRevoked, false
		f.answer("POST /relays/r1/revoke", jsonAnswer(r1))
		got, err := a.RevokeRelay(t.Context(), "r1")
		if diff := cmp.Diff(r1, got); err != nil || diff != "" || f.called("POST /relays/r1/revoke") != 1 {
			t.Errorf("%v, revoked (-want +got):\n%s", err, diff)
		}
		f.answer("POST /relays/r1/revoke", problemAnswer(403, "policy", "not yours"))
		if _, err := a.RevokeRelay(t.Context(), "r1"); ExitCode(err) != answer.ExitRefused {
			t.Errorf("one who may not: %v", err)
		}
		before := len(f.calls)
		for _, name := range []string{"", "R1", "r1/../r2", "r 1"} {
			if _, err := a.RevokeRelay(t.Context(), name); ExitCode(err) != answer.ExitUsage {
				t.Errorf("name %q: %v", name, err)
			}
		}
		if len(f.calls) != before {
			t.Errorf("a name that cannot be was sent: %q", f.calls[before:])
		}
	})
}

func TestConnectMeasuresBesideTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80") // the API takes no measurements yet
		p := r.takeMeasurements()
		r.echoes(8080)
		at := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := p.count(); n != want {
				t.Errorf("%d measurings, want %d", n, want)
			}
		}
		at(0, 0)
		at(time.Hour, 1) // what failed is done again
		at(5*time.Hour+59*time.Minute, 1)
		at(2*time.Minute, 2)
		r.answer("GET /relays", jsonAnswer(wire.Pool{Relays: []wire.Relay{relayNumber(0), {Name: "r9"}}}))
		at(time.Hour, 3) // a relay that is not known yet
		at(time.Hour, 3)
		r.answer("GET /relays", problemAnswer(503, "internal", ""))
		at(time.Hour, 3)
		r.echoes(8080)
		if got := r.notes.take(); got != "session up via relay r1\n" {
			t.Errorf("notes %q", got)
		}
	})
}

// The home remembers, so that a second Connect does not measure again.
func TestMeasuringIsRememberedInTheHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		a := f.loggedIn(m)
		p := f.takeMeasurements()
		for _, want := range []int{1, 1} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			a.keepMeasured(ctx)
			cancel()
			if n := p.count(); n != want {
				t.Errorf("%d measurings, want %d", n, want)
			}
			a = must(m.Open())
		}
		if b := string(must(os.ReadFile(a.home.path(configFile)))); !strings.Contains(b, `"measured"`) || !strings.Contains(b, `"r2"`) {
			t.Errorf("config:\n%s", b)
		}
		time.Sleep(measureEvery)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		a.keepMeasured(ctx)
		if n := p.count(); n != 2 {
			t.Errorf("%d measurings after %v, want 2", n, measureEvery)
		}
		f.loggedIn(m) // another login may be another infrastructure
		if s := must(a.home.load()); s.config.Measured != nil {
			t.Errorf("after a login: %+v", s.config.Measured)
		}
	})
}

// Whoever presses ^C does not wait until the relays have been measured.
func TestConnectEndsWhileItMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connect(t, "8080:192.168.1.10:80")
		p := r.takeMeasurements()
		r.net.Stall(clientAddr, relayAddr2)
		time.Sleep(measureCheck + time.Second) // it is at it
		begin := time.Now()
		r.cancel()
		if err := <-r.ended; err != nil || time.Since(begin) > time.Second || p.count() != 0 {
			t.Errorf("%v after %v, %d measurings", err, time.Since(begin), p.count())
		}
		r.net.Heal(clientAddr, relayAddr2)
	})
}

func TestMeasuringIsDue(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(age time.Duration) *measured { return &measured{At: now.Add(-age), Relays: []string{"r1", "r2"}} }
	both := []wire.Relay{relayNumber(0), relayNumber(1)}
	for _, tt := range []struct {
		name string
		m    *measured
		pool []wire.Relay
		want bool
	}{
		{"never", nil, both, true},
		{"just now", at(0), both, false},
		{"nearly six hours", at(measureEvery - 1), both, false},
		{"six hours", at(measureEvery), both, true},
		{"in the future", at(-1), both, true},
		{"a relay less", at(0), both[:1], false},
		{"a relay more", at(0), append(both, wire.Relay{Name: "r3"}), true},
		{"no relay at all", nil, nil, false},
	} {
		if got := tt.m.due(tt.pool, now); got != tt.want {
			t.Errorf("%s: due %v, want %v", tt.name, got, tt.want)
		}
	}
}
