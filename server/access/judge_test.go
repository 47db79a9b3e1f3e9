package access

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
)

func TestJudgeEnrol(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	code, mine, other := identity.NewCode(), identity.SPKI{1}, identity.SPKI{2}
	fresh := func(change func(*memberRecord)) memberRecord {
		m := memberRecord{Name: "r1", Code: codeRef{code.LookupID(), code.Hash(), now.Add(codeLife)}}
		change(&m)
		return m
	}
	enrolled := func(spki identity.SPKI, ago time.Duration) func(*memberRecord) {
		return func(m *memberRecord) { m.Enrolled = &enrolment{SPKI: spki, At: now.Add(-ago)} }
	}
	cases := []struct {
		name   string
		change func(*memberRecord)
		want   verdict
	}{
		{"fresh", func(*memberRecord) {}, verdictIssue},
		{"expires now", func(m *memberRecord) { m.Code.Expires = now }, verdictIssue},
		{"expired", func(m *memberRecord) { m.Code.Expires = now.Add(-1) }, verdictRefuse},
		{"revoked", func(m *memberRecord) { m.Revoked = &now }, verdictRefuse},
		{"another code's lookup id", func(m *memberRecord) { m.Code.Lookup = "000000" }, verdictRefuse},
		{"another code's hash", func(m *memberRecord) { m.Code.Hash[31] ^= 1 }, verdictRefuse},
		{"same key at once", enrolled(mine, 0), verdictAgain},
		{"same key after 24 h", enrolled(mine, repeatTime), verdictAgain},
		{"same key after more", enrolled(mine, repeatTime+1), verdictRefuse},
		{"another key", enrolled(other, 0), verdictAlarm},
		{"another key, much later", enrolled(other, 1000*time.Hour), verdictAlarm},
		{"same key, code expired since", func(m *memberRecord) { enrolled(mine, time.Hour)(m); m.Code.Expires = now.Add(-1) }, verdictAgain},
		{"same key, revoked", func(m *memberRecord) { enrolled(mine, 0)(m); m.Revoked = &now }, verdictRefuse},
	}
	for _, c := range cases {
		if got := judgeEnrol(fresh(c.change), code, mine, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestJudgeLogin(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	mine := identity.SPKI{1}
	cases := []struct {
		name string
		code codeRecord
		want verdict
	}{
		{"fresh", codeRecord{Expires: now}, verdictIssue},
		{"expired", codeRecord{Expires: now.Add(-1)}, verdictRefuse},
		{"same key", codeRecord{Used: &codeUse{mine, now.Add(-repeatTime)}}, verdictAgain},
		{"same key too late", codeRecord{Used: &codeUse{mine, now.Add(-repeatTime - 1)}}, verdictRefuse},
		{"another key", codeRecord{Used: &codeUse{identity.SPKI{2}, now}}, verdictAlarm},
	}
	for _, c := range cases {
		if got := judgeLogin(c.code, mine, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestJudgeMember(t *testing.T) {
	now, mine := time.Now(), identity.SPKI{1}
	cases := []struct {
		member memberRecord
		want   transport.Reason
	}{
		{memberRecord{}, transport.NotEnrolled},
		{memberRecord{Enrolled: &enrolment{SPKI: mine}}, ""},
		{memberRecord{Enrolled: &enrolment{SPKI: identity.SPKI{2}}}, transport.WrongKey},
		{memberRecord{Enrolled: &enrolment{SPKI: mine}, Revoked: &now}, transport.Revoked},
	}
	for i, c := range cases {
		if got := judgeMember(c.member, mine); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
}

func TestJudgeUser(t *testing.T) {
	now, mine := time.Now(), identity.SPKI{1}
	with := func(ago time.Duration) userRecord {
		return userRecord{Keys: []userKey{{SPKI: identity.SPKI{2}, Login: now}, {SPKI: mine, Login: now.Add(-ago)}}}
	}
	revoked := with(0)
	revoked.Revoked = &now
	cases := []struct {
		name     string
		user     userRecord
		renewing bool
		want     transport.Reason
	}{
		{"no keys", userRecord{}, false, codeNotLoggedIn},
		{"known", with(0), false, ""},
		{"known, long ago, certificate still valid", with(loginLife + 1), false, ""},
		{"renews", with(loginLife), true, ""},
		{"renews too late", with(loginLife + 1), true, codeNotLoggedIn},
		{"revoked", revoked, false, transport.Revoked},
	}
	for _, c := range cases {
		if got := judgeUser(c.user, mine, c.renewing, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUserKeysAreBounded(t *testing.T) {
	now := time.Now()
	var keys []userKey
	for i := range 20 {
		keys = withKey(keys, userKey{identity.SPKI{byte(i)}, now.Add(time.Duration(i) * time.Second), now.Add(userLife)}, now)
	}
	if len(keys) != maxUserKeys || keys[0].SPKI != (identity.SPKI{4}) {
		t.Errorf("%d keys, first %v", len(keys), keys[0].SPKI)
	}
	again := withKey(keys, userKey{identity.SPKI{10}, now.Add(time.Hour), now}, now)
	if len(again) != maxUserKeys || again[15].SPKI != (identity.SPKI{10}) || len(keys) != maxUserKeys {
		t.Errorf("%d keys, last %v", len(again), again[len(again)-1].SPKI)
	}
	later := now.Add(loginLife + 24*time.Hour)
	if left := withKey(keys, userKey{identity.SPKI{99}, later, later}, later); len(left) != 1 {
		t.Errorf("%d keys after a month", len(left))
	}
}

func TestLimiter(t *testing.T) {
	start := time.Now()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	t.Run("ten a minute an address", func(t *testing.T) {
		var l limiter
		for i := range limitPerAddress {
			if a, _ := l.begin(addr(1), start.Add(time.Duration(i)*time.Second)); a == nil {
				t.Fatalf("attempt %d refused", i)
			}
		}
		a, wait := l.begin(addr(1), start.Add(20*time.Second))
		if a != nil || wait != 40*time.Second {
			t.Errorf("wait %v", wait)
		}
		if a, _ := l.begin(addr(2), start.Add(20*time.Second)); a == nil {
			t.Error("another address is refused")
		}
		if a, _ := l.begin(addr(1), start.Add(60*time.Second)); a == nil {
			t.Error("refused after the wait")
		}
	})
	t.Run("a hundred in all, of a thousand tries", func(t *testing.T) {
		var l limiter
		let := 0
		for i := range 1000 {
			if a, wait := l.begin(addr(i), start); a != nil {
				let++
			} else if wait != limitWindow {
				t.Fatalf("wait %v", wait)
			}
		}
		if let != limitInAll || len(l.attempts) != limitInAll {
			t.Errorf("%d let through, %d remembered", let, len(l.attempts))
		}
	})
	t.Run("success does not count", func(t *testing.T) {
		var l limiter
		for range 500 {
			a, _ := l.begin(addr(1), start)
			if a == nil {
				t.Fatal("refused")
			}
			l.succeeded(a)
		}
	})
	t.Run("an IPv6 subscriber is one address", func(t *testing.T) {
		var l limiter
		for i := range limitPerAddress + 1 {
			a, _ := l.begin(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), start)
			if (a == nil) != (i == limitPerAddress) {
				t.Fatalf("attempt %d: %v", i, a)
			}
		}
		if a, _ := l.begin(netip.MustParseAddr("2001:db8:0:1::1"), start); a == nil {
			t.Error("another subscriber is refused")
		}
	})
	t.Run("a clock set back locks nobody out", func(t *testing.T) {
		var l limiter
		for range limitPerAddress {
			l.begin(addr(1), start)
		}
		if a, _ := l.begin(addr(1), start.Add(-time.Hour)); a == nil {
			t.Error("refused")
		}
	})
}

func TestClockTrust(t *testing.T) {
	start := time.Now()
	var at time.Time
	c := clock{now: func() time.Time { return at }}
	for i, step := range []struct {
		to time.Duration
		ok bool
	}{{0, true}, {time.Hour, true}, {59 * time.Minute, true}, {59*time.Minute - 1, false}, {time.Hour, true}} {
		at = start.Add(step.to)
		if now, ok := c.trusted(); ok != step.ok || !now.Equal(at) {
			t.Errorf("step %d: %v", i, ok)
		}
	}
	c.saw(start.Add(2 * time.Hour))
	if _, ok := c.trusted(); ok {
		t.Error("trusted an hour behind the store")
	}
}
