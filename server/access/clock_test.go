package access

import (
	"testing"
	"testing/synctest"
	"time"
)

// However many clients ask, the operator is told once a minute, and what is wrong.
func TestAClockThatIsBehindIsReportedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		newest := time.Now()
		c.saw(newest)
		told := 0
		for range 10 * 60 {
			behind, of, due := c.complaint(newest.Add(-time.Hour))
			if behind != time.Hour || !of.Equal(newest) {
				t.Fatalf("%v behind %v", behind, of)
			}
			if due {
				told++
			}
			time.Sleep(time.Second)
		}
		if told != 10 {
			t.Errorf("told %d times in 10 min", told)
		}
	})
}
