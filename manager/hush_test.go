package manager

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestNotesOfOneKindAreSaidOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hush
		said := make(map[string]int)
		last := ""
		for range 1500 { // 150 s
			for _, kind := range []string{"a", "b"} {
				if say, behind := h.due(kind, time.Now()); say {
					said[kind]++
					last = behind
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		if said["a"] != 3 || said["b"] != 3 || last != " (599 more since the last line)" {
			t.Errorf("said %v, the last with %q", said, last)
		}
		time.Sleep(time.Hour)
		if say, behind := h.due("a", time.Now()); !say || behind != " (299 more since the last line)" {
			t.Errorf("after an hour: %v, %q", say, behind)
		}
		for n := range 10 * maxKinds {
			if say, _ := h.due(fmt.Sprint(n), time.Now()); !say {
				t.Errorf("kind %d is not said the first time", n)
			}
		}
		if len(h.kinds) > maxKinds {
			t.Errorf("%d kinds are remembered", len(h.kinds))
		}
	})
}
