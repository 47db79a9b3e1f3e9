package board

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// armed is a watchdog whose device is a file and whose driver has at most max
// seconds; the machine's own is never opened.
func armed(t *testing.T, max uint32, setErr error) (w Watchdog, written func() string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "watchdog")
	dev, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	has := max
	w, err = armWatchdog(dev, 30*time.Second,
		func(s int) error {
			if setErr == nil {
				has = min(uint32(s), max)
			}
			return setErr
		},
		func() (uint32, error) {
			if has == 0 {
				return 0, unix.EOPNOTSUPP
			}
			return has, nil
		})
	return w, func() string { b, _ := os.ReadFile(path); return string(b) }, err
}

func TestAWatchdogTakesTheTimeoutOfItsDriver(t *testing.T) {
	for name, tt := range map[string]struct {
		max    uint32
		setErr error
		want   time.Duration
	}{
		"what was asked for": {128, nil, 30 * time.Second},
		"less":               {16, nil, 16 * time.Second},
		"one that is fixed":  {60, unix.EOPNOTSUPP, time.Minute},
	} {
		w, _, err := armed(t, tt.max, tt.setErr)
		if err != nil || w.Timeout() != tt.want {
			t.Errorf("%s: %v, %v", name, w, err)
		}
	}
}

func TestACleanStopIsTheMagicCloseAndFeedingIsNot(t *testing.T) {
	w, written, err := armed(t, 30, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.Feed(); err != nil {
			t.Fatal(err)
		}
	}
	if got := written(); got != "\x00\x00\x00" {
		t.Errorf("fed with %q", got)
	}
	if err := w.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := written(); got != "\x00\x00\x00V" {
		t.Errorf("after the stop: %q", got)
	}
	if err := w.Feed(); err == nil {
		t.Error("it can be fed after the stop")
	}
}

// A watchdog that counts to nobody knows what must not be left armed.
func TestAWatchdogWithoutATimeoutIsDisarmed(t *testing.T) {
	w, written, err := armed(t, 0, unix.EINVAL)
	if w != nil || !errors.Is(err, unix.EOPNOTSUPP) || !errors.Is(err, unix.EINVAL) || written() != "V" {
		t.Errorf("%v, %v, wrote %q", w, err, written())
	}
}

func TestWhatIsNoWatchdogIsNotWrittenTo(t *testing.T) {
	if _, err := New().OpenWatchdog(filepath.Join(t.TempDir(), "watchdog0"), time.Minute); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New().OpenWatchdog(file, time.Minute); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("file: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("it is now %q", b)
	}
	if _, err := New().OpenWatchdog("/dev/null", time.Minute); err == nil {
		t.Errorf("another device: %v", err)
	}
}
