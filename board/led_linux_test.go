package board

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// leds is a LED class of files, with one LED as a driver and the timer trigger
// offer it.
func leds(t *testing.T, without ...string) (class ledClass, read func(string) string) {
	t.Helper()
	dir := t.TempDir()
	led := filepath.Join(dir, "green:status")
	if err := os.Mkdir(led, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"brightness", "trigger", "delay_on", "delay_off"} {
		if len(without) > 0 && without[0] == f {
			continue
		}
		if err := os.WriteFile(filepath.Join(led, f), []byte("untouched"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(led, "max_brightness"), []byte("255\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return ledClass(dir), func(f string) string {
		b, _ := os.ReadFile(filepath.Join(led, f))
		return string(b)
	}
}

func TestALEDIsLitDarkenedOrLeftToTheKernelsTimer(t *testing.T) {
	for name, tt := range map[string]struct {
		on, off time.Duration
		want    [4]string // trigger, brightness, delay_on, delay_off
	}{
		"dark":  {0, 0, [4]string{"none", "0", "untouched", "untouched"}},
		"lit":   {time.Second, 0, [4]string{"none", "255", "untouched", "untouched"}},
		"blink": {125 * time.Millisecond, 2 * time.Second, [4]string{"timer", "untouched", "125", "2000"}},
	} {
		class, read := leds(t)
		err := class.set("green:status", tt.on, tt.off)
		if got := [4]string{read("trigger"), read("brightness"), read("delay_on"), read("delay_off")}; got != tt.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

// Without the timer trigger there are no delays. A steady light would lie.
func TestALEDThatCannotBlinkIsDark(t *testing.T) {
	class, read := leds(t, "delay_on")
	if err := class.set("green:status", time.Second, time.Second); err == nil || read("brightness") != "0" {
		t.Errorf("brightness %q, %v", read("brightness"), err)
	}
}

func TestOnlyALEDOfTheClassIsSet(t *testing.T) {
	class, _ := leds(t)
	if err := class.set("red:status", time.Second, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for _, name := range []string{"", ".", "..", "../leds/green:status", "/green:status", "green:status/"} {
		if err := class.set(name, time.Second, 0); err == nil {
			t.Errorf("%q was set", name)
		}
	}
}
