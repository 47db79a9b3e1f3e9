package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent/clock"
	"hawser/board/boardtest"
	"hawser/internal/wait"
)

// The members are those of cli §2, each always there.
func TestStatusJSONIsWhatTheSpecSays(t *testing.T) {
	since := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	full := Status{State: StateAttached, UID: "u", Domain: "plant", Relay: "r1", Since: since,
		Access:   &AccessStatus{Host: "hawser.example.com", Addr: "192.0.2.1", Port: 443, Way: "direct"},
		Clock:    clock.Status{State: clock.Authentic, OffsetMS: -12, Source: "signed", FloorReset: &since},
		Sessions: []SessionStatus{{"s1", "ann", "r1", since, 2}}, Signal: SignalSession,
		Data: DataStatus{190000, 5700000, 5000000, 700000, 120}, Key: "unlocked",
		Counts: Counts{9, 7, Reasons{"timeout": 2}, 2, 1, 3, Reasons{"closed": 2}, 5, Reasons{"policy": 1}, 400, 5000}, Troubles: []string{"save state: no space left on device"},
		Reach: Reach{Rules: []string{"192.168.10.20/32:502"}, Networks: []Network{{"lan0", netip.MustParsePrefix("192.168.10.0/24"), true, "it is so"}}}}
	for _, tt := range []struct {
		st   Status
		want string
	}{
		{full, `{"state":"attached","uid":"u","domain":"plant","access":{"host":"hawser.example.com","addr":"192.0.2.1","port":443,"way":"direct","proxy":"","small":false},` +
			`"relay":"r1","clock":{"state":"authentic","offset_ms":-12,"source":"signed","floor_reset":"2026-11-23T10:00:00Z"},` +
			`"sessions":[{"id":"s1","user":"ann","relay":"r1","since":"2026-11-23T10:00:00Z","streams":2}],"since":"2026-11-23T10:00:00Z","error":"","signal":"session",` +
			`"data":{"day_bytes":190000,"month_bytes":5700000,"budget_bytes":5000000,"over_bytes":700000,"interval_s":120},` +
			`"counts":{"connections":9,"handshakes":7,"failures":{"timeout":2},"online":2,"reconnects":1,` +
			`"sessions":3,"session_ends":{"closed":2},"streams":5,"streams_refused":{"policy":1},"in_bytes":400,"out_bytes":5000},"key_switch":"unlocked",` +
			`"reach":{"rules":["192.168.10.20/32:502"],"networks":[{"interface":"lan0","network":"192.168.10.0/24","lan":true,"why":"it is so"}]},` +
			`"owner":null,"troubles":["save state: no space left on device"]}`},
		{Status{State: StateEnroll, Clock: clock.Status{State: clock.Unknown}, Sessions: []SessionStatus{}, Since: since, Error: "no way", Signal: SignalEnrolling,
			Counts: newCounts().now(), Reach: Policy{}.Reach(), Troubles: []string{}},
			`{"state":"enroll","uid":"","domain":"","access":null,"relay":"","clock":{"state":"unknown","offset_ms":0,"source":"","floor_reset":null},` +
				`"sessions":[],"since":"2026-11-23T10:00:00Z","error":"no way","signal":"enrolling",` +
				`"data":{"day_bytes":0,"month_bytes":0,"budget_bytes":0,"over_bytes":0,"interval_s":0},` +
				`"counts":{"connections":0,"handshakes":0,"failures":{},"online":0,"reconnects":0,` +
				`"sessions":0,"session_ends":{},"streams":0,"streams_refused":{},"in_bytes":0,"out_bytes":0},"reach":{"rules":null,"networks":[]},"owner":null,"troubles":[]}`},
	} {
		if got := string(must(json.Marshal(tt.st))(t)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestIdentityJSONIsWhatTheSpecSays(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	got := string(must(json.Marshal(IdentityInfo{UID: "u", Domain: "plant", SPKI: "5f", NotBefore: at, NotAfter: at.Add(30 * day), Enrolled: true,
		Owner: &OwnerStatus{DomainKey: "7a", Name: "press 4", List: at}}))(t))
	want := `{"uid":"u","domain":"plant","spki_sha256":"5f","not_before":"2026-11-23T10:00:00Z","not_after":"2026-12-23T10:00:00Z","enrolled":true,` +
		`"owner":{"domain_key_sha256":"7a","name":"press 4","folder":"","list":"2026-11-23T10:00:00Z","fault":""}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnAgentThatDoesNotRunYetHasAStatus(t *testing.T) {
	bubble(t, func(r *rig) {
		st := must(New(r.opts))(t).Status()
		if st.State != StateBoot || st.Access != nil || st.Sessions == nil || st.Clock.State != clock.Unknown {
			t.Errorf("status %+v", st)
		}
		if age := r.opts.Build.Sub(st.Since); age.Abs() > time.Second {
			t.Errorf("since %v by the agent's clock, whose floor is %v", st.Since, r.opts.Build)
		}
	})
}

// Below are real sockets and real time; the agents wait for an identity, so
// nothing is dialled.

func socketAgent(t *testing.T) (Options, string) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "agent.sock")
	return Options{Config: Config{Data: filepath.Join(dir, "state")}, Board: boardtest.New(time.Now()), Build: build, Socket: socket}, socket
}

// live starts an agent and waits until it answers.
func live(t *testing.T, o Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	alive := wait.NewBell()
	o.Alive = func(time.Duration) { alive.Ring() }
	a := must(New(o))(t)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-alive: // the socket is open before the machine moves
	case err := <-done:
		t.Fatalf("Run = %v", err)
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}

func TestTheSocketAnswersWithTheStatus(t *testing.T) {
	o, socket := socketAgent(t)
	if _, err := ReadStatus(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before: %v", err)
	}
	stop := live(t, o)
	for range 3 {
		st, err := ReadStatus(t.Context(), socket)
		if err != nil || st.State != StateBoot && st.State != StateEnroll || st.Clock.State != clock.Plausible {
			t.Errorf("status %+v, %v", st, err)
		}
	}
	if info := must(os.Stat(socket))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	stop()
	if _, err := ReadStatus(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after: %v", err)
	}
}

func TestASecondAgentIsRefusedAndTheFirstLivesOn(t *testing.T) {
	o, socket := socketAgent(t)
	stop := live(t, o)
	defer stop()
	o.Config.Data = filepath.Join(t.TempDir(), "other")
	if err := must(New(o))(t).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another hawser-agent is running") {
		t.Errorf("second: %v", err)
	}
	if _, err := ReadStatus(t.Context(), socket); err != nil {
		t.Errorf("first: %v", err)
	}
}

// A process that was killed leaves its socket behind.
func TestADeadSocketIsTakenOver(t *testing.T) {
	o, socket := socketAgent(t)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l := must(net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}))(t)
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Lstat(socket); err != nil {
		t.Fatal(err)
	}
	stop := live(t, o)
	if _, err := ReadStatus(t.Context(), socket); err != nil {
		t.Error(err)
	}
	stop()
}

func TestAFileInThePlaceOfTheSocketIsNotRemoved(t *testing.T) {
	o, socket := socketAgent(t)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, socket, "precious", 0o600)
	live(t, o)()
	if b := must(os.ReadFile(socket))(t); string(b) != "precious" {
		t.Errorf("it is now %q", b)
	}
}

func TestAnAnswerThatIsNoStatusIsAnError(t *testing.T) {
	for name, answer := range map[string]string{"nothing": "", "text": "hello\n", "half": `{"state":"att`} {
		socket := filepath.Join(t.TempDir(), "s")
		l := must(net.Listen("unix", socket))(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.Accept(); err == nil {
				c.Write([]byte(answer))
				c.Close()
			}
		}()
		if st, err := ReadStatus(t.Context(), socket); err == nil || !strings.Contains(err.Error(), socket) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		l.Close()
		<-done
	}
}

func TestWithoutASocketTheAgentServesAndSaysSoOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "", 0o600)
	for _, socket := range []string{filepath.Join(file, "agent.sock"), filepath.Join(t.TempDir(), strings.Repeat("s", 108))} {
		o, _ := socketAgent(t)
		o.Socket = socket
		log := new(notes)
		o.Log = slog.New(log)
		live(t, o)()
		if n := log.count("no status socket"); n != 1 {
			t.Errorf("%s: said %d times", socket, n)
		}
	}
}

func TestTroublesAreToldOnce(t *testing.T) {
	var b statusBoard
	broken := errors.New("broken")
	for i, step := range []struct {
		err  error
		news bool
	}{{nil, false}, {broken, true}, {broken, false}, {nil, false}, {broken, true}} {
		if got := b.trouble("LED", step.err); got != step.news {
			t.Errorf("step %d: news %v", i, got)
		}
	}
	if b.trouble("watchdog", broken); len(b.troubles) != 2 {
		t.Errorf("%v", b.troubles)
	}
}

// A disk that was full may have room later.
func TestTheSocketIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "run"), "", 0o600)
		a := &Agent{socket: filepath.Join(dir, "run", "agent.sock"), log: slog.New(slog.DiscardHandler)}
		trouble := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := strings.Join(a.troubles(), "; "); !strings.Contains(got, want) || got == "" {
				t.Errorf("%q, want %q", got, want)
			}
		}
		stop := must(a.serveStatus(t.Context()))(t)
		trouble("not a directory")
		if err := errors.Join(os.Remove(filepath.Join(dir, "run")), os.MkdirAll(a.socket, 0o700)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(socketRetry - time.Second)
		trouble("not a directory")
		time.Sleep(2 * time.Second)
		trouble("no socket")
		stop()
		// Without the bubble's clock: a real socket that waits would stop it.
		if err := os.Remove(a.socket); err != nil {
			t.Fatal(err)
		}
		must(a.listen())(t).Close()
		if got := a.troubles(); len(got) > 0 {
			t.Errorf("when there is a socket: %q", got)
		}
	})
}
