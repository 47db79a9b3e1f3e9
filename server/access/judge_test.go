package access

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

func TestJudgeEnroll(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	code, mine, other := identity.NewCode(), identity.SPKI{1}, identity.SPKI{2}
	shown := must(serversCode(code.String()))
	fresh := func(change func(*store.Member)) store.Member {
		m := store.Member{Name: "r1", Code: code.LookupID(), CodeHash: code.Hash(), CodeExpires: now.Add(codeLife)}
		change(&m)
		return m
	}
	enrolled := func(spki identity.SPKI, ago time.Duration) func(*store.Member) {
		return func(m *store.Member) { m.SPKI, m.Enrolled = spki, now.Add(-ago) }
	}
	cases := []struct {
		name   string
		change func(*store.Member)
		want   codeUse
	}{
		{"fresh", func(*store.Member) {}, codeFresh},
		{"expires now", func(m *store.Member) { m.CodeExpires = now }, codeFresh},
		{"expired", func(m *store.Member) { m.CodeExpires = now.Add(-1) }, codeRefused},
		{"revoked", func(m *store.Member) { m.Revoked = now }, codeRefused},
		{"another code's lookup id", func(m *store.Member) { m.Code = "000000" }, codeRefused},
		{"another code's hash", func(m *store.Member) { m.CodeHash[31] ^= 1 }, codeRefused},
		{"same key at once", enrolled(mine, 0), codeRepeated},
		{"same key after 24 h", enrolled(mine, repeatTime), codeRepeated},
		{"same key after more", enrolled(mine, repeatTime+1), codeRefused},
		{"another key", enrolled(other, 0), codeReused},
		{"another key, much later", enrolled(other, 1000*time.Hour), codeReused},
		{"same key, code expired since", func(m *store.Member) { enrolled(mine, time.Hour)(m); m.CodeExpires = now.Add(-1) }, codeRepeated},
		{"same key, revoked", func(m *store.Member) { enrolled(mine, 0)(m); m.Revoked = now }, codeRefused},
	}
	for _, c := range cases {
		if got := judgeEnroll(fresh(c.change), shown, false, mine, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestJudgeLogin(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	mine := identity.SPKI{1}
	cases := []struct {
		name string
		code store.Code
		want codeUse
	}{
		{"fresh", store.Code{Expires: now}, codeFresh},
		{"expired", store.Code{Expires: now.Add(-1)}, codeRefused},
		{"same key", store.Code{Used: mine, UsedAt: now.Add(-repeatTime)}, codeRepeated},
		{"same key too late", store.Code{Used: mine, UsedAt: now.Add(-repeatTime - 1)}, codeRefused},
		{"another key", store.Code{Used: identity.SPKI{2}, UsedAt: now}, codeReused},
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
		member store.Member
		want   transport.Reason
	}{
		{store.Member{}, transport.NotEnrolled},
		{store.Member{SPKI: mine, Enrolled: now}, ""},
		{store.Member{SPKI: identity.SPKI{2}, Enrolled: now}, transport.WrongKey},
		{store.Member{SPKI: mine, Enrolled: now, Revoked: now}, transport.Revoked},
	}
	for i, c := range cases {
		if got := judgeMember(c.member, mine); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
}

func TestJudgeUser(t *testing.T) {
	now := time.Now()
	key := func(ago time.Duration) *store.UserKey { return &store.UserKey{Login: now.Add(-ago)} }
	cases := []struct {
		name     string
		user     store.User
		key      *store.UserKey
		renewing bool
		want     transport.Reason
	}{
		{"another key", store.User{}, nil, false, api.NotLoggedIn},
		{"known", store.User{}, key(0), false, ""},
		{"known, long ago, certificate still valid", store.User{}, key(seenLife + 1), false, ""},
		{"renews", store.User{}, key(seenLife), true, ""},
		{"renews what was renewed lately, a year after its login", store.User{}, &store.UserKey{Login: now.AddDate(-1, 0, 0), NotAfter: now.Add(userLife - seenLife)}, true, ""},
		{"renews what was renewed long ago", store.User{}, &store.UserKey{Login: now.AddDate(-1, 0, 0), NotAfter: now.Add(userLife - seenLife - 1)}, true, api.NotLoggedIn},
		{"renews too late", store.User{}, key(seenLife + 1), true, api.NotLoggedIn},
		{"revoked", store.User{Revoked: now}, key(0), false, transport.Revoked},
	}
	for _, c := range cases {
		if got := judgeUser(c.user, c.key, c.renewing, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUserKeysAreBounded(t *testing.T) {
	now := time.Now()
	var keys []store.UserKey
	login := func(k store.UserKey, now time.Time) {
		for _, gone := range keysBeside(keys, k, now) {
			keys = slices.DeleteFunc(keys, func(k store.UserKey) bool { return k.SPKI == gone.SPKI })
		}
		keys = append(slices.DeleteFunc(keys, func(old store.UserKey) bool { return old.SPKI == k.SPKI }), k)
	}
	for i := range 20 {
		login(store.UserKey{SPKI: identity.SPKI{byte(i)}, Login: now.Add(time.Duration(i) * time.Second), NotAfter: now.Add(userLife)}, now)
	}
	if len(keys) != maxUserKeys || keys[0].SPKI != (identity.SPKI{4}) {
		t.Errorf("%d keys, first %v", len(keys), keys[0].SPKI)
	}
	login(store.UserKey{SPKI: identity.SPKI{10}, Login: now.Add(time.Hour), NotAfter: now}, now)
	if len(keys) != maxUserKeys || keys[15].SPKI != (identity.SPKI{10}) {
		t.Errorf("%d keys, last %v", len(keys), keys[len(keys)-1].SPKI)
	}
	later := now.Add(seenLife + 48*time.Hour)
	if login(store.UserKey{SPKI: identity.SPKI{99}, Login: later, NotAfter: later}, later); len(keys) != 1 {
		t.Errorf("%d keys after a quarter of a year", len(keys))
	}
}

func TestFailuresAtACode(t *testing.T) {
	start := time.Now()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	t.Run("ten a minute at one code from one source", func(t *testing.T) {
		var f failures
		for i := range limitFailures {
			now := start.Add(time.Duration(i) * time.Second)
			if wait := f.wait("A", addr(1), now); wait != 0 {
				t.Fatalf("attempt %d waits %v", i, wait)
			}
			f.add("A", addr(1), now)
		}
		now := start.Add(20 * time.Second)
		if wait := f.wait("A", addr(1), now); wait != 40*time.Second {
			t.Errorf("waits %v", wait)
		}
		if f.wait("B", addr(1), now) != 0 {
			t.Error("another code of the same site waits")
		}
		if f.wait("A", addr(2), now) != 0 {
			t.Error("the same code from elsewhere waits")
		}
		if f.wait("A", addr(1), start.Add(time.Minute)) != 0 {
			t.Error("waits longer than it was told")
		}
	})
	t.Run("only the newest are remembered", func(t *testing.T) {
		var f failures
		for range limitFailures {
			f.add("A", addr(1), start)
		}
		for i := range 10 * mostFailures {
			f.add(fmt.Sprint(i), addr(i), start)
		}
		if len(f.list) != mostFailures || f.wait("A", addr(1), start) != 0 {
			t.Errorf("%d are remembered", len(f.list))
		}
	})
	t.Run("an IPv6 subscriber is one source", func(t *testing.T) {
		var f failures
		for i := range limitFailures {
			f.add("A", netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), start)
		}
		if f.wait("A", netip.MustParseAddr("2001:db8::ffff"), start) == 0 {
			t.Error("another address of the subscriber does not wait")
		}
		if f.wait("A", netip.MustParseAddr("2001:db8:0:1::1"), start) != 0 {
			t.Error("another subscriber waits")
		}
	})
	t.Run("a clock set back locks nobody out", func(t *testing.T) {
		var f failures
		for range limitFailures {
			f.add("A", addr(1), start)
		}
		if f.wait("A", addr(1), start.Add(-time.Hour)) != 0 {
			t.Error("waits")
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
	c.observe(start.Add(2 * time.Hour))
	if _, ok := c.trusted(); ok {
		t.Error("trusted an hour behind the store")
	}
}
