package access

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/soak"
	"hawser/server/store"
)

func TestAJoinStateIsJudgedByWhatIsKnown(t *testing.T) {
	t.Attr("id", "T-clone")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := func(b byte) store.Hash { return store.Hash{b} }
	known := store.Join{Counter: 5, State: h(5), NextCounter: 6, Next: h(6), Instances: []string{"i2", "i1"}, Changed: now.Add(-time.Hour)}
	settled := known
	settled.NextCounter, settled.Next = 5, h(5)
	old := settled
	old.Changed = now.Add(-joinLife)
	future := settled
	future.Changed = now.Add(time.Hour)
	never := store.Join{NextCounter: 1, Next: h(1)}
	cannot := store.Join{NextCounter: 1, Next: h(1), Instances: []string{"i2"}, Changed: now.Add(-time.Hour)}
	for name, tt := range map[string]struct {
		j        store.Join
		shown    shownJoin
		instance string
		want     joinVerdict
	}{
		"nothing known, nothing shown":                {store.Join{}, shownJoin{}, "i2", joinDue},
		"nothing known, something shown":              {store.Join{}, shownJoin{9, h(9)}, "i2", joinBehind},
		"handed out, and never stored":                {never, shownJoin{}, "i2", joinDue},
		"handed out, and stored":                      {never, shownJoin{1, h(1)}, "i2", joinDue},
		"it could not be stored an hour ago":          {cannot, shownJoin{}, "i2", joinSettled},
		"confirmed":                                   {settled, shownJoin{5, h(5)}, "i2", joinSettled},
		"confirmed, by another process":               {settled, shownJoin{5, h(5)}, "i3", joinDue},
		"confirmed, a day old":                        {old, shownJoin{5, h(5)}, "i2", joinDue},
		"confirmed, changed in the future":            {future, shownJoin{5, h(5)}, "i2", joinDue},
		"handed out, the answer lost":                 {known, shownJoin{6, h(6)}, "i2", joinDue},
		"handed out, never arrived":                   {known, shownJoin{5, h(5)}, "i2", joinSettled},
		"a backup":                                    {settled, shownJoin{8, h(8)}, "i2", joinBehind},
		"a backup from before another was handed out": {known, shownJoin{6, h(7)}, "i2", joinBehind},
		"none":                             {settled, shownJoin{}, "i2", joinCloned},
		"lower":                            {settled, shownJoin{4, h(4)}, "i2", joinCloned},
		"the same counter with other bits": {settled, shownJoin{5, h(4)}, "i2", joinCloned},
		"an earlier process":               {settled, shownJoin{5, h(5)}, "i1", joinCloned},
	} {
		if got := judgeJoin(tt.j, tt.shown, tt.instance, now); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// machineModel is one machine: what is on its medium, and which process runs.
type machineModel struct {
	stored   shownJoin
	instance string
}

// serverModel is a store, and what it does at each step, with the functions of the program.
type serverModel struct{ row store.Join }

// hello is a machine that connects. It returns the join-state that it is given, or that two machines were found.
func (s *serverModel) hello(m *machineModel, now time.Time, bits *int) (given shownJoin, cloned bool) {
	switch judgeJoin(s.row, m.stored, m.instance, now) {
	case joinCloned:
		return shownJoin{}, true
	case joinSettled:
		return shownJoin{}, false
	}
	s.row.Counter, s.row.State = m.stored.counter, m.stored.hash
	if joinIsDue(s.row, now) || len(s.row.Instances) == 0 || s.row.Instances[0] != m.instance {
		*bits++
		s.row.NextCounter = max(s.row.Counter, s.row.NextCounter) + 1
		s.row.Next, s.row.Changed = store.Hash{byte(*bits), byte(*bits >> 8), byte(*bits >> 16)}, now
		given = shownJoin{s.row.NextCounter, s.row.Next}
	}
	return given, false
}

func (s *serverModel) answer(m *machineModel, given shownJoin, stored bool) {
	if s.row.NextCounter != given.counter {
		return
	}
	if stored {
		s.row.Counter, s.row.State = given.counter, given.hash
	}
	s.row.Instances = append([]string{m.instance}, slices.DeleteFunc(slices.Clone(s.row.Instances), func(i string) bool { return i == m.instance })...)
	s.row.Instances = s.row.Instances[:min(len(s.row.Instances), maxInstances)]
}

// One machine, whatever is lost: frames, answers, power, room on the medium, a store that comes from a backup. It is never
// taken for two. Then somebody copies its medium, and both run: they are found at the first reconnect.
func TestOneMachineIsNeverTwoAndTwoAreFoundAtOnce(t *testing.T) {
	t.Attr("id", "T-clone")
	runs := soak.Or(3_000, 100_000)
	t.Attr("cases", fmt.Sprint(runs))
	for seed := range runs {
		r := rand.New(rand.NewSource(int64(seed)))
		s, m, bits, processes := &serverModel{}, &machineModel{instance: "p0"}, 0, 0
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var backups []store.Join
		start := func(m *machineModel) {
			processes++
			m.instance = fmt.Sprint("p", processes)
		}
		// connect is a whole connection, of which any part may be lost unless all is well.
		connect := func(m *machineModel, well bool) (cloned bool) {
			given, cloned := s.hello(m, now, &bits)
			if cloned || given == (shownJoin{}) || !well && r.Intn(4) == 0 { // the frame is lost
				return cloned
			}
			stored := well || r.Intn(8) > 0 // the medium is full
			if stored {
				m.stored = given
			}
			switch {
			case !well && r.Intn(4) == 0: // the power is cut: no answer
				start(m)
			case well || r.Intn(4) > 0: // else the answer is lost
				s.answer(m, given, stored)
			}
			return false
		}
		for step := range 40 {
			now = now.Add(time.Duration(r.Intn(30)) * time.Hour)
			switch r.Intn(8) {
			case 0:
				start(m)
			case 1:
				backups = append(backups, s.row)
			case 2:
				if len(backups) > 0 {
					s.row = backups[r.Intn(len(backups))]
				}
			default:
				if connect(m, false) {
					t.Fatalf("seed %d, step %d: one machine is taken for two: it has %v, known is %+v", seed, step, m.stored, s.row)
				}
			}
		}
		start(m)
		connect(m, true) // so that it has one at all
		thief := &machineModel{stored: m.stored}
		start(thief)
		now = now.Add(time.Duration(r.Intn(5000)) * time.Hour)
		one, other := m, thief
		if seed%2 == 1 {
			one, other = thief, m
		}
		// The first may get nothing new: it was the last one to answer, a moment ago.
		if !connect(one, true) && !connect(other, true) && !connect(one, true) {
			t.Fatalf("seed %d: two machines are taken for one: %+v and %+v, known is %+v", seed, m, thief, s.row)
		}
	}
}

func TestFreshKeysOfOneAddressDoNotPushOutOthers(t *testing.T) {
	t.Attr("id", "T-clone")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	key := func() identity.PublicKey { return must(identity.NewPublicKey(identitytest.NewKey().Public())) }
	honest := store.FreshKey{Key: key(), Address: "192.0.2.1:1000", Instance: "i", Since: now, At: now}
	fresh, ok := []store.FreshKey{honest}, false
	for i := range 3 * maxFresh {
		at := now.Add(time.Duration(i) * freshFlood)
		fresh, ok = withFresh(fresh, store.FreshKey{Key: key(), Address: fmt.Sprintf("203.0.113.9:%d", i), Since: at, At: at})
		if !ok || len(fresh) > maxFresh || fresh[0].Key != honest.Key {
			t.Fatalf("after %d: %d kept, %v", i, len(fresh), ok)
		}
	}
	late := now.Add(3 * maxFresh * freshFlood)
	for i := range maxFresh {
		fresh, _ = withFresh(fresh, store.FreshKey{Key: key(), Address: fmt.Sprintf("203.0.113.%d:1", i), Since: late, At: late})
	}
	if _, ok := withFresh(fresh, store.FreshKey{Key: key(), Address: "203.0.113.99:1", Since: late, At: late}); ok {
		t.Error("one more in the same minute was taken")
	}
	again := honest
	again.At, again.Since, again.Address = late, late, "192.0.2.1:2000"
	if fresh, ok = withFresh([]store.FreshKey{honest}, again); !ok || fresh[0].Since != now || fresh[0].Address != again.Address {
		t.Errorf("shown again: %+v", fresh)
	}
	if same, ok := withFresh(fresh, again); !ok || !slices.Equal(same, fresh) {
		t.Error("the same once more is written")
	}
}
