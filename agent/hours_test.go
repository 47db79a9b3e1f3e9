package agent

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

// 2026-03-02 is a Monday.
func moment(day int, clock string) time.Time {
	return must2(time.Parse("2006-01-02 15:04:05", fmt.Sprintf("2026-03-%02d %s", day, clock)))
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHours(t *testing.T) {
	berlin := time.FixedZone("", 3600)
	for _, tt := range []struct {
		hours []string
		at    time.Time
		until string // empty: closed; always: zero
	}{
		{[]string{"Mo-Fr 05:00-17:00"}, moment(2, "04:59:59"), ""},
		{[]string{"Mo-Fr 05:00-17:00"}, moment(2, "05:00:00"), "2026-03-02T17:00:00Z"},
		{[]string{"Mo-Fr 05:00-17:00"}, moment(2, "05:30:00").In(berlin), "2026-03-02T17:00:00Z"},
		{[]string{"Mo-Fr 05:00-17:00"}, moment(6, "16:59:59"), "2026-03-06T17:00:00Z"},
		{[]string{"Mo-Fr 05:00-17:00"}, moment(6, "17:00:00"), ""},
		{[]string{"Mo-Fr 05:00-17:00"}, moment(7, "12:00:00"), ""},
		{[]string{"Sa 08:00-24:00", "Su 00:00-02:30"}, moment(7, "23:59:59"), "2026-03-08T02:30:00Z"},
		{[]string{"Fr-Mo 10:00-11:00"}, moment(8, "10:00:00"), "2026-03-08T11:00:00Z"},
		{[]string{"Fr-Mo 10:00-11:00"}, moment(3, "10:00:00"), ""},
		{[]string{"Mo 08:00-12:00", "Mo 11:00-14:00"}, moment(2, "09:00:00"), "2026-03-02T14:00:00Z"},
		{[]string{"Mo-Su 00:00-24:00"}, moment(4, "13:00:00"), "always"},
		{[]string{"Mo-Su 00:00-24:00"}, time.Time{}, ""},
	} {
		var terms Terms
		for _, s := range tt.hours {
			h := must(ParseHours(s))(t)
			if h.String() != s {
				t.Errorf("%s is printed as %s", s, h)
			}
			terms.Hours = append(terms.Hours, h)
		}
		open, until := terms.at(tt.at)
		got := ""
		if open {
			got = "always"
		}
		if !until.IsZero() {
			got = until.Format(time.RFC3339)
		}
		if got != tt.until {
			t.Errorf("%v at %v: %q, want %q", tt.hours, tt.at, got, tt.until)
		}
	}
	for _, bad := range []string{"", "Mo", "Mo-Fr", "05:00-17:00", "mo 05:00-17:00", "Mo-Xx 05:00-17:00", "oT 05:00-17:00", "Mo 5:00-17:00", "Mo 05:00-24:01",
		"Mo 05:60-17:00", "Mo 17:00-05:00", "Mo 05:00-05:00", "Mo 05:00", "Mo,Tu 05:00-17:00", "Mo -1:00-17:00", "Mo 05:00-17:00 UTC", "MoTu 05:00-17:00"} {
		if h, err := ParseHours(bad); err == nil {
			t.Errorf("%q is read as %s", bad, h)
		}
	}
}

func FuzzParseHours(f *testing.F) {
	for _, s := range []string{"Mo-Fr 05:00-17:00", "Su-Sa 00:00-24:00", "Fr-Mo 10:00-11:00", "Mo"} {
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, s string, at int64) {
		h, err := ParseHours(s)
		if err != nil {
			return
		}
		if again, err := ParseHours(h.String()); err != nil || again != h {
			t.Errorf("%q read as %v, then as %v, %v", s, h, again, err)
		}
		now := time.Unix(at%(1<<40), 0)
		if open, until := (&Terms{Hours: []Hours{h}}).at(now); open && !until.IsZero() && !until.After(now) {
			t.Errorf("%v at %v is open until %v", h, now, until)
		}
	})
}

// A rule with users and hours is one for them alone, and of several that fit the most open one counts.
func TestRulesForUsersAndHours(t *testing.T) {
	c, err := parseConfig([]byte(`
access: [a.example]
allow:
  - 192.168.10.20:502
  - {to: "192.168.10.21:502", users: [ann, bob], hours: ["Mo-Fr 05:00-17:00"]}
  - to: 192.168.10.21:502
    users: [bob]
    hours: [Mo 16:00-18:00]
  - {to: 192.168.10.22:80, hours: ["Sa 08:00-12:00"]}
  - {to: 192.168.10.23:80, users: [ann]}
`), filepath.Join(t.TempDir(), "agent.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPolicy(c.Allow, Surroundings{})
	p.Blind = false
	for _, tt := range []struct {
		user, target string
		at           time.Time
		ok           bool
		until, words string // of the refusal
	}{
		{"eve", "192.168.10.20:502", moment(7, "03:00:00"), true, "", ""},
		{"ann", "192.168.10.21:502", moment(2, "16:30:00"), true, "17:00", ""},
		{"bob", "192.168.10.21:502", moment(2, "16:30:00"), true, "18:00", ""},
		{"bob", "192.168.10.21:502", moment(3, "16:30:00"), true, "17:00", ""},
		{"ann", "192.168.10.21:502", moment(2, "17:30:00"), false, "", "do not allow 192.168.10.21:502 now, but at Mo-Fr 05:00-17:00 UTC"},
		{"eve", "192.168.10.21:502", moment(2, "16:30:00"), false, "", "do not allow 192.168.10.21:502 to eve"},
		{"", "192.168.10.21:502", moment(2, "16:30:00"), false, "", "to "},
		{"eve", "192.168.10.22:80", moment(7, "09:00:00"), true, "12:00", ""},
		{"eve", "192.168.10.22:80", moment(8, "09:00:00"), false, "", "at Sa 08:00-12:00 UTC"},
		{"ann", "192.168.10.23:80", moment(8, "09:00:00"), true, "", ""},
		{"bob", "192.168.10.23:80", moment(8, "09:00:00"), false, "", "to bob"},
		{"ann", "192.168.10.24:80", moment(8, "09:00:00"), false, "", "do not allow 192.168.10.24:80"},
	} {
		asked, target := p.asks(tt.user, tt.at), netip.MustParseAddrPort(tt.target)
		ok, why, until := asked.judge(target)
		if end := until.Format("15:04"); ok != tt.ok || tt.until != "" && end != tt.until || (tt.until == "") != until.IsZero() {
			t.Errorf("%s to %s at %v: %v until %v (%s)", tt.user, tt.target, tt.at, ok, until, why)
		}
		if text := asked.refusal(target); !ok && (!strings.HasPrefix(text, byRules) || !strings.Contains(text, tt.words)) {
			t.Errorf("%s to %s: %q, want %q", tt.user, tt.target, text, tt.words)
		}
	}
	limited := p.asks("", moment(2, "16:30:00")).Reach().Limited
	if len(limited) != 4 || !limited[0].Open || limited[0].Until.Hour() != 17 || limited[2].Open || !limited[3].Until.IsZero() ||
		limited[0].Rule != "192.168.10.21/32:502 for ann, bob, at Mo-Fr 05:00-17:00 UTC" {
		t.Errorf("%+v", limited)
	}
}

func TestWhatIsNoRuleSaysWhere(t *testing.T) {
	for text, want := range map[string]string{
		"allow:\n  - {users: [ann]}":                                               "f:2: allow: a rule needs to",
		"allow:\n  - 192.168.10.20:502\n  - {to: 1.2.3.4}":                         "f:3: allow: \"1.2.3.4\": no port",
		"allow:\n  - {to: 1.2.3.4:5, user: [ann]}":                                 `f:2: unknown key "allow.1.user" (known: to, users, hours)`,
		"allow:\n  - {to: 1.2.3.4:5, to: 1.2.3.4:6}":                               `f:2: key "allow.1.to" stands twice`,
		"allow:\n  - to: 1.2.3.4:5\n    users: []":                                 "f:3: allow.1.users: want 1 to 64 names",
		"allow:\n  - to: 1.2.3.4:5\n    hours: []":                                 "f:3: allow.1.hours: want 1 to 32 spans",
		"allow:\n  - to: 1.2.3.4:5\n    users:\n      - ann\n      - Ann":          "f:5: allow.1.users: ",
		"allow:\n  - to: 1.2.3.4:5\n    hours: [always]":                           "f:3: allow.1.hours: \"always\": ",
		"allow:\n  - to: 1.2.3.4:5\n    users: ann":                                "f:3: allow.1.users: want a list",
		"allow:\n  - [1.2.3.4:5]":                                                  "f:2: allow.1: want KEY: VALUE lines",
		"allow:\n  - 1.2.3.4:5\n  -":                                               "f:3: allow: a rule needs to",
		"allow: 1.2.3.4:5":                                                         "f:1: allow: want a list",
		"allow:\n  - to: 1.2.3.4:5\n    users: [" + strings.Repeat("a,", 65) + "]": "f:3: allow.1.users: want 1 to 64 names",
	} {
		_, err := parseConfig([]byte(text), "f", nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\n%v, want %s", text, err, want)
		}
	}
}

// A connection that runs into the end of its hours is reset, to the second, and one that another rule keeps open goes on. The
// end is that of the time of statements, which a list moves.
func TestAStreamEndsWithItsHours(t *testing.T) {
	t.Attr("id", "T-hours")
	limit := func(r *rig) { // a bubble begins on a Saturday at midnight
		for i, hours := range []string{"Sa 00:00-06:00", "Sa-Su 00:00-24:00"} {
			rule := must(ParseRule(fmt.Sprintf("192.168.10.20:%d", 502+i)))(t)
			rule.Terms = &Terms{Hours: []Hours{must(ParseHours(hours))(t)}}
			r.opts.Config.Allow = append(r.opts.Config.Allow[:i:i], rule)
		}
	}
	attachedRigWith(t, limit, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		if time.Now().UTC().Weekday() != time.Saturday {
			t.Fatalf("it is %v", time.Now().UTC())
		}
		s := m.open(l, p, "s1", "tcp")
		first, _ := openTCP(r, s, "192.168.10.20:502")
		second, reason := openTCP(r, s, "192.168.10.20:503")
		if first == nil || second == nil {
			t.Fatalf("within the hours: %q", reason)
		}
		first.Write([]byte("1"))
		if n, err := first.Read(make([]byte, 1)); n != 1 {
			t.Fatalf("within the hours: %v", err)
		}
		end := time.Date(2000, 1, 1, 6, 0, 0, 0, time.UTC)
		_, err := first.Read(make([]byte, 1))
		if late := p.clock.Now().Sub(end); transport.ReasonOf(err) != transport.Policy || late < 0 || late > time.Second {
			t.Errorf("%v, %v after the end", err, late)
		}
		if _, err := second.Write([]byte("2")); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if _, err := s.Open(r.t.Context(), openOf(wire.ServiceTCP, "192.168.10.20:502")); transport.ReasonOf(err) != transport.Policy ||
			!strings.Contains(err.Error(), byRules) || !strings.Contains(err.Error(), "but at Sa 00:00-06:00 UTC") {
			t.Errorf("after the hours: %v", err)
		}
		if reach := p.Status().Reach; len(reach.Limited) != 2 || reach.Limited[0].Open || reach.Limited[1].Until.Day() != 3 {
			t.Errorf("%+v", reach)
		}
		if n := p.sessions.closing.count(); n != 1 {
			t.Errorf("%d streams are looked at", n)
		}
		// The owner's list says that it is Monday.
		list := identity.ListStatement{Domain: "plant", Serial: r.owner.Serial() + uint64(3*day/time.Millisecond), Entries: []identity.Entry{}}
		list.Iat = int64(list.Serial / 1000)
		wire.WriteJSON(l, wire.TypeStatements, wire.Statements{Statements: []string{r.owner.Sign(list).JWS}})
		begin := time.Now()
		if _, err := second.Read(make([]byte, 1)); transport.ReasonOf(err) != transport.Policy || time.Since(begin) > lookEvery+time.Second {
			t.Errorf("%v, after %v", err, time.Since(begin))
		}
		if n := p.sessions.closing.count(); n != 0 {
			t.Errorf("%d streams are looked at", n)
		}
		s.Close()
	})
	t.Attr("cases", "2")
}

// count is how many streams are looked at.
func (c *closing) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}
