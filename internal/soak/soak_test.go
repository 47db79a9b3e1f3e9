package soak_test

import (
	"testing"
	"time"

	"hawser/internal/soak"
)

func TestOnlyALongRunTriesMore(t *testing.T) {
	t.Setenv("SOAK", "")
	if n := soak.Or(300, 10_000); n != 300 || soak.On() {
		t.Errorf("%d cases, long is %v; want 300 and false", n, soak.On())
	}
	t.Setenv("SOAK", "1")
	if d := soak.Or(time.Second, time.Minute); d != time.Minute || !soak.On() {
		t.Errorf("%v, long is %v; want a minute and true", d, soak.On())
	}
}
