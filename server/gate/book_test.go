package gate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hawser/internal/soak"
)

// A play is a script of one step a word: "a" and so on: somebody of that source comes; "+a" its oldest place makes
// progress; "-a" leaves; "3s" time passes. What is written down is who got in ("a1"), who did not ("a!"), and who went
// for whom ("b1>a1").
func play(t *testing.T, l Limits, sources map[string]string, script string) string {
	t.Helper()
	b, now := newBook(l), time.Unix(0, 0)
	names, held, count := map[*seat]string{}, map[string][]*seat{}, map[string]int{}
	var said []string
	for _, step := range strings.Fields(script) {
		if d, err := time.ParseDuration(step); err == nil {
			now = now.Add(d)
			continue
		}
		switch who := strings.TrimLeft(step, "+-"); step[0] {
		case '+':
			b.progress(held[who][0], now)
		case '-':
			b.leave(held[who][0])
			b.leave(held[who][0]) // twice is as good as once
			held[who] = held[who][1:]
		default:
			taken, goes := b.enter(prefixes(netip.MustParseAddr(sources[who])), nil, now)
			if taken == nil {
				said = append(said, who+"!")
				continue
			}
			count[who]++
			names[taken] = fmt.Sprint(who, count[who])
			held[who] = append(held[who], taken)
			word := names[taken]
			if goes != nil {
				word += ">" + names[goes]
			}
			said = append(said, word)
		}
	}
	return strings.Join(said, " ")
}

func TestWhoGetsAPlace(t *testing.T) {
	sources := map[string]string{
		"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3", "m": "::ffff:192.0.2.1",
		"x": "2001:db8::1", "y": "2001:db8::ffff:2", "z": "2001:db8:0:1::1", "w": "2001:db8:0:2::1", "o": "2001:db8:1::1",
		"p": "2001:db8:0:100::1", "q": "2001:db8:0:200::1",
	}
	for _, tt := range []struct {
		name         string
		limits       Limits
		script, want string
	}{
		{"there is room", Limits{4, 2, 3, 4, 0, patience}, "a b c a", "a1 b1 c1 a2"},
		{"a source has its share and no more", Limits{9, 2, 3, 9, 0, patience}, "a a a b", "a1 a2 a! b1"},
		{"IPv4 as IPv6 is the same source", Limits{9, 2, 3, 9, 0, patience}, "a m a", "a1 m1 a!"},
		{"of its share it loses what is stuck", Limits{9, 2, 3, 9, 0, patience}, "a 1s a 1s a a", "a1 a2 a3>a1 a!"},
		{"who makes progress is not stuck", Limits{9, 2, 3, 9, 0, patience}, "a a 1s +a 1s a a", "a1 a2 a3>a2 a!"},
		{"a /64 is one source", Limits{9, 2, 3, 9, 0, patience}, "x y x", "x1 y1 x!"},
		{"a /56 has its share too", Limits{9, 2, 3, 9, 0, patience}, "x y z w o", "x1 y1 z1 w! o1"},
		{"and loses the place that is stuck longest", Limits{9, 2, 3, 9, 0, patience}, "x y 1s z 1s w", "x1 y1 z1 w1>x1"},
		{"a /48 has its share", Limits{9, 2, 3, 4, 0, patience}, "x z w p q o", "x1 z1 w1 p1 q! o1"},
		{"a /48 is weighed as one", Limits{4, 2, 3, 4, 0, patience}, "x z p q o", "x1 z1 p1 q1 o1>x1"},
		{"of it the heaviest /56 goes", Limits{4, 2, 3, 4, 0, patience}, "q x z p o", "q1 x1 z1 p1 o1>x1"},
		{"and of that the heaviest source", Limits{5, 2, 3, 4, 0, patience}, "q x z z a o", "q1 x1 z1 z2 a1 o1>z1"},
		{"when all is taken, who has most gives way at once", Limits{3, 3, 3, 3, 0, patience}, "a a b c", "a1 a2 b1 c1>a1"},
		{"and its oldest that got on stays", Limits{3, 3, 3, 3, 0, patience}, "a a b +a c", "a1 a2 b1 c1>a2"},
		{"who has as many does not", Limits{2, 2, 2, 2, 0, patience}, "a b c", "a1 b1 c!"},
		{"unless it is stuck", Limits{2, 2, 2, 2, 0, patience}, "a 1s b 1s c c", "a1 b1 c1>a1 c!"},
		{"nobody takes to have more than another", Limits{4, 3, 3, 4, 0, patience}, "a a b b b a", "a1 a2 b1 b2 b! a!"},
		{"what was left is free", Limits{2, 2, 2, 2, 0, patience}, "a b -a c -b -c a a", "a1 b1 c1 a2 a3"},
		{"without patience whoever comes gets in", Limits{2, 2, 2, 2, 0, 0}, "a b c c a", "a1 b1 c1>a1 c2>b1 a2>c1"},
		{"also of one source", Limits{9, 2, 2, 9, 0, 0}, "a a a", "a1 a2 a3>a1"},
		{"no places at all", Limits{0, 2, 2, 0, 0, patience}, "a", "a!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := play(t, tt.limits, sources, tt.script); got != tt.want {
				t.Errorf("%s\ngives %s\nwant  %s", tt.script, got, tt.want)
			}
		})
	}
}

// Whatever strangers do: no limit is ever broken, the count is right, and a source without a place gets one as long as
// any other has two.
func TestALighterSourceAlwaysGetsIn(t *testing.T) {
	limits := Limits{All: 40, Source: 8, Net: 12, Site: 16, Patience: patience}
	for seed := range soak.Or(200, 10_000) {
		chance := rand.New(rand.NewPCG(uint64(seed), 1))
		b, now := newBook(limits), time.Unix(0, 0)
		var held []*seat
		for range 500 {
			now = now.Add(time.Duration(chance.IntN(400)) * time.Millisecond)
			switch n := chance.IntN(10); {
			case n < 7:
				taken, _ := b.enter(prefixes(someone(chance)), nil, now)
				if taken != nil {
					held = append(held, taken)
				}
			case len(held) == 0:
			case n < 9:
				b.progress(held[chance.IntN(len(held))], now)
			default:
				b.leave(held[chance.IntN(len(held))])
			}
			check(t, b, limits)
		}
		stranger := netip.MustParseAddr("203.0.113.7")
		if heaviest := len(b.ranks[0].seats); heaviest > 1 {
			if taken, _ := b.enter(prefixes(stranger), nil, now); taken == nil {
				t.Fatalf("seed %d: a new source got no place, and another has %d", seed, heaviest)
			}
		}
	}
}

func someone(chance *rand.Rand) netip.Addr {
	if n := byte(chance.IntN(12)); n < 6 {
		return netip.AddrFrom4([4]byte{192, 0, 2, n})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(chance.IntN(2)), 6: byte(chance.IntN(2)), 7: byte(chance.IntN(3)), 15: byte(chance.IntN(3))})
}

func check(t *testing.T, b *book, l Limits) {
	t.Helper()
	all, places := 0, map[*group]int{}
	for _, g := range b.ranks {
		all += len(g.seats)
		if b.ranks[g.rank] != g || len(g.seats) != g.places || g.places > b.ranks[0].places {
			t.Fatalf("%v with %d places is not where it belongs", g.prefix, g.places)
		}
		for i, s := range g.seats {
			if s.widest() != g || i > 0 && s.heard.Before(g.seats[i-1].heard) {
				t.Fatalf("a place of %v is not where it belongs", s.groups[0].prefix)
			}
			for level, g := range s.groups {
				if places[g]++; b.groups[g.prefix] != g || places[g] > l.of(level) {
					t.Fatalf("%v has %d places", g.prefix, places[g])
				}
			}
		}
	}
	for prefix, g := range b.groups {
		if g.places != places[g] || g.prefix != prefix || g.places == 0 {
			t.Fatalf("%v has %d places, the book says %d", prefix, places[g], g.places)
		}
	}
	if all != b.all || all > l.All {
		t.Fatalf("%d places are taken, the book says %d of %d", all, b.all, l.All)
	}
}

func TestPlacesFitTheDescriptors(t *testing.T) {
	for descriptors, want := range map[int]Limits{
		0: {1000, 500, 750, 875, 2000, patience}, 64: {minPlaces, minPlaces, minPlaces, minPlaces, 2, patience},
		1024: {128, 64, 96, 112, 32, patience}, 65536: {1000, 500, 750, 875, 2000, patience},
	} {
		if got := Places(1000, descriptors, 8); got != want {
			t.Errorf("of %d descriptors: %+v, want %+v", descriptors, got, want)
		}
	}
	if got := Places(2, 0, 8); got != (Limits{2, 2, 2, 2, 4, patience}) {
		t.Errorf("of two places: %+v", got)
	}
}
