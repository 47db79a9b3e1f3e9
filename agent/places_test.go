package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

// seatsOf makes seats in the order in which they were taken: "ann ann bob" are s0, s1 and s2.
func seatsOf(users string) (taken []seat) {
	for i, user := range strings.Fields(users) {
		taken = append(taken, seat{fmt.Sprintf("s%02d", i), user, time.Unix(int64(i)*60, 0)})
	}
	return taken
}

func TestWhoGetsAPlace(t *testing.T) {
	full := "ann ann ann ann bob bob bob bob cid cid cid cid dan dan dan dan"
	for name, tt := range map[string]struct {
		taken, user string
		goes        string
		refused     string // a part of it
	}{
		"the first":                               {"", "ann", "", ""},
		"the fourth of one":                       {"ann ann ann", "ann", "", ""},
		"a fifth of one":                          {"ann ann ann ann", "ann", "", "ann has 4 sessions here already"},
		"the last place":                          {full[:len(full)-4], "eve", "", ""},
		"full, to a newcomer":                     {full, "eve", "s00", ""},
		"full, the oldest of the most":            {"bob ann ann ann ann bob bob cid cid cid dan dan dan eve eve eve", "fay", "s01", ""},
		"full, and the most has come later":       {"bob bob bob cid cid cid dan dan dan eve eve eve ann ann ann ann", "fay", "s12", ""},
		"full, to who has fewer":                  {"ann ann ann ann bob bob bob bob cid cid cid cid dan dan dan eve", "eve", "s00", ""},
		"full, to who has as many after it":       {"ann ann ann ann bob bob bob bob cid cid cid cid dan dan eve eve", "eve", "s00", ""},
		"full, to who would have more than it":    {"ann ann ann ann bob bob bob bob cid cid cid cid dan eve eve eve", "eve", "", "all 16 places"},
		"full of single users":                    {"a b c d e f g h i j k l m n o p", "q", "", "all 16 places"},
		"full of single users, one of them again": {"a b c d e f g h i j k l m n o p", "a", "", "all 16 places"},
		"two each, to a newcomer":                 {"a b c d e f g h a b c d e f g h", "q", "s00", ""},
		"two each, one of them again":             {"a b c d e f g h a b c d e f g h", "a", "", "all 16 places"},
		"a fifth of one, and full":                {full, "dan", "", "dan has 4 sessions here already"},
	} {
		goes, refused := place(seatsOf(tt.taken), tt.user)
		if goes != tt.goes || (refused == "") != (tt.refused == "") || !strings.Contains(refused, tt.refused) {
			t.Errorf("%s: %q gives way, refused %q; want %q, %q", name, goes, refused, tt.goes, tt.refused)
		}
	}
}

// Whatever comes in whatever order: nobody has more than four, nobody loses a place to who has more, and who comes again after
// he lost one takes none in turn.
func TestPlacesComeToRest(t *testing.T) {
	users := strings.Fields("ann bob cid dan eve fay gus")
	var taken []seat
	changes, last := 0, 0
	for round := range 2000 {
		user := users[(round*5+round/7)%len(users)]
		before := map[string]int{}
		for _, s := range taken {
			before[s.user]++
		}
		goes, refused := place(taken, user)
		if refused != "" {
			continue
		}
		for i, s := range taken {
			if s.session == goes {
				if before[s.user] <= before[user]+1 {
					t.Fatalf("round %d: %s with %d gave way to %s with %d", round, s.user, before[s.user], user, before[user])
				}
				taken = append(taken[:i:i], taken[i+1:]...)
				break
			}
		}
		taken = append(taken, seat{fmt.Sprint("s", round), user, time.Unix(int64(round), 0)})
		if changes, last = changes+1, round; before[user]+1 > maxUserSessions || len(taken) > maxSessions {
			t.Fatalf("round %d: %d of %s, %d in all", round, before[user]+1, user, len(taken))
		}
	}
	if len(taken) != maxSessions || last > 100 {
		t.Errorf("%d places taken after %d changes, the last in round %d", len(taken), changes, last)
	}
}

func TestTheWordsAboutWhoIsThereAreBounded(t *testing.T) {
	_, refused := place(seatsOf("ann ann ann ann"), "ann")
	if want := "ann has 4 sessions here already, which is the most: ann 4 since 1970-01-01 00:00Z"; refused != want {
		t.Errorf("%q, want %q", refused, want)
	}
	var long []string
	for i := range maxSessions {
		long = append(long, fmt.Sprintf("%c%s", 'a'+i, strings.Repeat("x", 30)))
	}
	_, refused = place(seatsOf(strings.Join(long, " ")), "ann")
	if len(refused) > 200 || !strings.HasSuffix(refused, " more") || !strings.Contains(refused, long[0]+" 1 since ") {
		t.Errorf("%d characters: %s", len(refused), refused)
	}
}

// The answer to who is refused says who is there, and the session that gives way is told to whom.
func TestTheOldestOfTheMostGivesWay(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		offer := func(id, user string) wire.OfferAck {
			o, _ := m.offers(id, p.self.Load().SPKI, "tcp")
			o.Peer = identity.UserName("plant", user).String()
			wire.WriteJSON(l, wire.TypeOffer, o)
			for {
				f := <-l.Frames
				var ack wire.OfferAck
				if f.Type == wire.TypeOfferAck && f.Decode(&ack) == nil {
					return ack
				}
			}
		}
		s := m.open(l, p, "oldest", "tcp") // of ann
		for i := range 15 {
			time.Sleep(10 * time.Millisecond)
			if ack := offer(fmt.Sprint("s", i), []string{"ann", "bob", "cid", "dan"}[i%4]); ack.Reason != "" && i < 15 {
				if i == 12 && ack.Reason == transport.Busy && strings.HasPrefix(ack.Text, "ann has 4 sessions here already") {
					offer("s12", "eve")
					continue
				}
				t.Fatalf("%d: %+v", i, ack)
			}
		}
		if ack := offer("new", "fay"); ack != (wire.OfferAck{Session: "new"}) {
			t.Fatalf("a newcomer: %+v", ack)
		}
		<-s.Done()
		if err := s.Err(); transport.ReasonOf(err) != transport.Busy || !strings.Contains(err.Error(), "ann has the most, and fay has come") {
			t.Errorf("who gives way is told %v", err)
		}
		var ids []string
		for _, one := range p.Status().Sessions {
			ids = append(ids, one.ID)
		}
		if len(ids) > maxSessions+1 || ids[len(ids)-1] != "new" {
			t.Errorf("sessions %q", ids)
		}
		// A move of who has lost his place needs one, too.
		o, _ := m.offers("oldest", p.self.Load().SPKI, "tcp")
		o.Epoch = 2
		if no := p.sessions.offer(o); no == nil || no.Reason != transport.Busy {
			t.Errorf("moved back: %v", no)
		}
	})
}
