package manager

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// hostile is what a server, a gateway or a relay could say to act on the terminal of whoever reads it.
func hostile() []string {
	corpus := []string{
		"\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b[6n", "\x1bP+q\x1b\\", "\x9b2J", "\u009b2J", "\u0090q\u009c",
		"\r\nonline", "a\rb", "a\bb", "a\x00b", "a\x7fb", "a\tb", "a\vb", "a\fb", "a\u0085b", "a\u2028b", "a\u2029b",
		"\u202egnp.exe", "\u2066x\u2069", "\u200b", "\u200e", "\ufeff", "\u00ad", "a\u0301\u0301\u0301", "\u3164", "\uffa0", "\U000e0041",
		"\xff\xfe", "\xc0\x9b", "\ufffd", "שלום", "🔥", "\u00a0", "―", "\u2800",
	}
	for r := range rune(0x20) {
		corpus = append(corpus, "x"+string(r)+"y")
	}
	for r := rune(0x7f); r < 0xa0; r++ {
		corpus = append(corpus, "x"+string(r)+"y")
	}
	return corpus
}

// harmless complains about whatever may act on a terminal: all but line ends, printable ASCII and plain letters.
func harmless(t *testing.T, what, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && (r < ' ' || r > '~') && !(r > 0xa0 && unicode.IsLetter(r) && !unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%s lets %U through: %q", what, r, s)
			return
		}
	}
}

func TestNothingHostileReachesTheTerminal(t *testing.T) {
	a := &Account{state: state{roots: identitytest.New(time.Now()).Roots}}
	for _, s := range hostile() {
		d := StatedDevice{api.Device{Name: s, Folder: s, Domain: s, State: api.DeviceState(s), Address: s, Hints: map[string]string{s: s}, Cloned: &api.Clone{}}, KeyState(s),
			[]Machine{{Words: s, Address: s, Instance: s}}}
		n := NewDevice{Name: s, Code: s}
		a.state.config.Hosts = []string{s}
		r := api.Record{Node: s, Actor: s, Action: s, Object: s, Result: s, Detail: s, Prev: s, Hash: s}
		p := PingResult{Device: s, Relay: s}
		open := api.Session{ID: s, Name: s, User: s, Relay: s}
		relay := api.NewRelay{Name: s, Code: s}
		choice := api.RelayChoice{Name: s, Verdict: api.Verdict(s), Reason: s, Manager: &api.Measured{Reason: transport.Reason(s)}, Runtime: &api.Measured{Way: s}}
		reported, said := r, identity.Report{Session: s, Reason: s, Streams: []identity.Reached{{Target: s, Reason: s}}}
		reported.Report = s
		decision := api.Decision{Chosen: s, Incumbent: s + s, Relays: []api.RelayChoice{choice, choice}}
		for name, write := range map[string]func(*bytes.Buffer) error{
			"device list": func(b *bytes.Buffer) error { return WriteDevices(b, []StatedDevice{d, d}) },
			"relay list": func(b *bytes.Buffer) error {
				return WriteRelays(b, []api.RegisteredRelay{{Name: s, State: api.DeviceState(s), Online: true, Hosts: []string{s}}})
			},
			"device show": func(b *bytes.Buffer) error { return WriteDevice(b, d) },
			"device add":  func(b *bytes.Buffer) error { return a.WriteNewDevice(b, n) },
			"audit": func(b *bytes.Buffer) error {
				return WriteRecords(b, []AuditRecord{{Record: r, Name: s}, {Record: reported, Unproven: s}, {Record: reported, Reported: &said, Unproven: s}})
			},
			"followed": func(b *bytes.Buffer) error {
				return WriteFollowed(b, []AuditRecord{{Record: reported, Reported: &said, Name: s}})
			},
			"export": func(b *bytes.Buffer) error {
				return WriteExport(b, []VerifiedChain{{Node: s, Problem: s}}, 1, 1, 1, []string{s})
			},
			"sessions":    func(b *bytes.Buffer) error { return WriteSessions(b, []api.Session{open, open}) },
			"session end": func(b *bytes.Buffer) error { return WriteEnded(b, EndedSession{s}) },
			"ping":        func(b *bytes.Buffer) error { return WritePing(b, p) },
			"relay add":   func(b *bytes.Buffer) error { return a.WriteNewRelay(b, relay) },
			"relays":      func(b *bytes.Buffer) error { return WriteDecision(b, decision) },
			"login":       func(b *bytes.Buffer) error { return WriteInfo(b, Info{Domain: s, User: s, Home: s}) },
			"JSON":        func(b *bytes.Buffer) error { return answer.JSON(b, []any{d, n, r, p, relay, decision, open}) },
			"notes":       func(b *bytes.Buffer) error { (&lines{w: b}).say("session up via %s", s); return nil },
			"error":       func(b *bytes.Buffer) error { b.WriteString(Explain(errors.New(s))); return nil },
			"refusal": func(b *bytes.Buffer) error {
				b.WriteString(Explain(&wire.Refusal{Reason: transport.Reason(s), Text: s}))
				return nil
			},
			"problem": func(b *bytes.Buffer) error {
				b.WriteString(Explain(fail(transport.Reason(s), s, errors.New(s))))
				return nil
			},
			"progress": func(b *bytes.Buffer) error {
				(&Manager{Progress: func(s string) { b.WriteString(s) }}).progress(s)
				return nil
			},
			"cut":          func(b *bytes.Buffer) error { b.WriteString(cut(s, 3)); return nil },
			"usage errors": func(b *bytes.Buffer) error { b.WriteString(Explain(usage("device %s", s))); return nil },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			harmless(t, name, b.String())
			if name == "relays" && strings.Count(b.String(), "\n") != 6 {
				t.Errorf("a line broke: %q", b.String())
			}
			if name == "notes" && strings.Count(b.String(), "\n") != 1 {
				t.Errorf("a note of more than one line: %q", b.String())
			}
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(hostile())))
}

func TestCleanKeepsWhatOperatorsWrite(t *testing.T) {
	for _, s := range []string{"press 4", "Ölpresse_Süd-2", "Πρέσα", "Пресс 7", "프레스", "プレス", "压力机", `~!@#$%^&*()[]{}|\'";<>?`} {
		if got := clean(s); got != s {
			t.Errorf("clean(%q) = %q", s, got)
		}
	}
	if got, want := cells("压力机 4"), 8; got != want {
		t.Errorf("%d cells, want %d", got, want)
	}
	if got, want := cut("Ölpresse", 3), "Ölp..."; got != want {
		t.Errorf("cut to %q, want %q", got, want)
	}
}

// JSON is pure ASCII, and still says exactly what the server said.
func TestJSONSurvivesTheFilter(t *testing.T) {
	for _, s := range append(hostile(), "Ölpresse", "压力机", "<&>") {
		var b bytes.Buffer
		if err := answer.JSON(&b, s); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || utf8.ValidString(s) && got != s {
			t.Errorf("%q came back as %q, %v", s, got, err)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }); i >= 0 {
			t.Errorf("%q is written as %q", s, b.String())
		}
	}
}

// Golden: what each command prints, as JSON and as text (cli §3). To write it anew: go test ./manager -run Golden -args update
func TestGolden(t *testing.T) {
	when := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	uid := must(identity.ParseUID(strings.Repeat("0123456789abcdef", 2)))
	spki := must(identity.ParseSPKI(strings.Repeat("0123456789abcdef", 4)))
	full := StatedDevice{api.Device{UID: uid, Name: "press 4", Folder: "north/hall", Domain: "default", State: "enrolled", Online: true, Address: "203.0.113.9",
		Since: when, Created: when.Add(-time.Hour), NotAfter: when.AddDate(0, 1, 0), SPKI: spki, Hints: map[string]string{"os": "linux", "arch": "arm"}}, KeyConfirmed, nil}
	pending := StatedDevice{Device: api.Device{UID: uid, Name: "压力机", Domain: "default", State: "pending", Created: when, Hints: map[string]string{}}}
	info := Info{Domain: "default", User: "admin", SPKI: spki, NotAfter: when, Home: "/home/t/.config/hawser"}
	added := NewDevice{UID: uid, Name: "press 4", Code: "0123-4567", Expires: when}
	record := api.Record{Seq: 7, Time: when, Node: "a1", Domain: "default", Actor: "hawser://default/user/admin", Action: "device-add",
		Object: "press 4", Result: "ok", Prev: "00", Hash: "11"}
	account := &Account{state: state{roots: must(identity.ParseRoots(must(os.ReadFile(filepath.Join("testdata", "root.pem"))))),
		config: config{Hosts: []string{"access.example"}}}}
	ping := PingResult{Device: "press 4", Relay: "r1", Sent: 4, Received: 3, Min: 20.125, Median: 21, Max: 30.5}
	relay := api.NewRelay{Name: "r2", Code: "0123-4567", Expires: when}
	decision := decisionOf(uid, when)
	open := []api.Session{
		{ID: strings.Repeat("0123456789abcdef", 2), Device: uid, Name: "press 4", User: "ann", Relay: "frankfurt-1", Since: when},
		{ID: strings.Repeat("fedcba9876543210", 2), Device: uid, Name: "压力机", User: "admin", Relay: "r2", Since: when},
	}
	var got bytes.Buffer
	for _, part := range []struct {
		name string
		json any
		text func() error
	}{
		{"login", info, func() error { return WriteInfo(&got, info) }},
		{"device add", added, func() error { return account.WriteNewDevice(&got, added) }},
		{"device list", []StatedDevice{full, pending}, func() error { return WriteDevices(&got, []StatedDevice{full, pending}) }},
		{"device list of none", []StatedDevice{}, func() error { return WriteDevices(&got, nil) }},
		{"device show", full, func() error { return WriteDevice(&got, full) }},
		{"device show of one that waits", pending, func() error { return WriteDevice(&got, pending) }},
		{"ping", ping, func() error { return WritePing(&got, ping) }},
		{"relay add", relay, func() error { return account.WriteNewRelay(&got, relay) }},
		{"relays", decision, func() error { return WriteDecision(&got, decision) }},
		{"relays of none", api.Decision{Device: uid, At: when, Relays: []api.RelayChoice{}}, func() error { return WriteDecision(&got, api.Decision{}) }},
		{"session list", open, func() error { return WriteSessions(&got, open) }},
		{"session list of none", []api.Session{}, func() error { return WriteSessions(&got, nil) }},
		{"session end", EndedSession{open[0].ID}, func() error { return WriteEnded(&got, EndedSession{open[0].ID}) }},
		{"audit", []AuditRecord{{Record: record, Name: "press 1"}}, func() error { return WriteRecords(&got, []AuditRecord{{Record: record, Name: "press 1"}}) }},
	} {
		fmt.Fprintf(&got, "# %s\n", part.name)
		if err := errors.Join(answer.JSON(&got, part.json), part.text()); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join("testdata", "output.golden")
	if flag.Arg(0) == "update" {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("output differs from %s (-want +got):\n%s", file, diff)
	}
}

// decisionOf has a relay of each kind.
func decisionOf(uid identity.UID, at time.Time) api.Decision {
	near := &api.Measured{RTTMS: 12.345, JitterMS: 0.4, Port: 443, Way: "direct", At: at}
	far := &api.Measured{RTTMS: 180.5, JitterMS: 12.25, LossPct: 20, Port: 5935, Way: "direct", At: at}
	return api.Decision{Device: uid, At: at, Chosen: "frankfurt-1", Incumbent: "r4", Relays: []api.RelayChoice{
		{Name: "frankfurt-1", Manager: near, Runtime: near, Pipes: 3, Max: 100, ScoreMS: 27.79, Verdict: "chosen"},
		{Name: "r2", Manager: near, Runtime: far, Pipes: 0, Max: 100, ScoreMS: 418.145, Verdict: "lost", Reason: "390.4 ms more than frankfurt-1"},
		{Name: "r3", Runtime: near, Max: 100, ScoreMS: 1013.145, Verdict: "lost", Reason: "not measured by the Manager"},
		{Name: "r4", Manager: &api.Measured{Reason: transport.ResetAfterHello, At: at}, Runtime: near, ScoreMS: 1013.145,
			Verdict: "out", Reason: "the Manager could not reach it: reset-after-hello"},
	}}
}

// A table that wraps cannot be read.
func TestDecisionFitsATerminal(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDecision(&b, decisionOf(identity.UID{1}, time.Time{})); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := cells(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestExitCodes(t *testing.T) {
	dial := &transport.DialError{Hosts: []string{"h"}, Attempts: []transport.Attempt{{Reason: transport.Expired}}}
	for _, tt := range []struct {
		err    error
		code   int
		advice string
	}{
		{nil, 0, ""},
		{errors.New("x"), 1, ""},
		{usage("x"), 2, "--help"},
		{fail(api.NotLoggedIn, "x", nil), 3, "hawser login"},
		{fail(transport.Expired, "x", nil), 3, "hawser login"},
		{fmt.Errorf("x: %w", &wire.Refusal{Reason: transport.Policy}), 4, "owner"},
		{fmt.Errorf("x: %w", &wire.Refusal{Reason: transport.Locked}), 4, "turn its key switch"},
		{fail(transport.Revoked, "x", nil), 4, "administers"},
		{fail(transport.BadCode, "x", nil), 4, "new one"},
		{fail(transport.Offline, "x", nil), 5, "power"},
		{fail(transport.LinkLost, "x", nil), 5, "network"},
		{fail(transport.NoDevice, "x", nil), 1, "device list"},
		{fail(api.NameTaken, "x", nil), 1, "another name"},
		{fmt.Errorf("list devices: %w", dial), 5, "clock"},
		{fail(transport.WrongRoot, "x", &problem{code: transport.WrongRoot}), 3, "hawser login"},
		{fail(transport.WrongRoot, "x", nil), 1, "--pin"},
		{fail(transport.Reason("never heard of"), "x", nil), 1, ""},
	} {
		if got := ExitCode(tt.err); got != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.code)
		}
		if tt.err == nil {
			continue
		}
		if got := Explain(tt.err); !strings.Contains(got, tt.advice) || strings.Contains(got, "\n") {
			t.Errorf("%v: explained as %q, want advice with %q", tt.err, got, tt.advice)
		}
	}
}
