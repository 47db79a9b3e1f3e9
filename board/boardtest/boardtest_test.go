package boardtest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestGatewayBootsAtTheWallClockItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wall := time.Unix(0, 0)
		b := New(wall)
		time.Sleep(time.Hour)
		if got := b.Now(); !got.Equal(wall.Add(time.Hour)) || b.Uptime() != time.Hour {
			t.Errorf("after an hour it is %v, up for %v", got, b.Uptime())
		}
		if n := len(b.Hints()); n != 4 {
			t.Errorf("%d hints, want all 4", n)
		}
		up, err := b.Uplinks()
		if err != nil || len(up) != 1 || up[0].Name != "wan0" {
			t.Errorf("uplinks %v, %v", up, err)
		}
	})
}
