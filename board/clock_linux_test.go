package board

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeKernel notes what it is asked for; the machine's own clock is never touched.
type fakeKernel struct {
	calls  []string
	status int32
	setTo  unix.Timespec
	offset int64
	rtc    unix.RTCTime
}

func (f *fakeKernel) clock(setErr, adjustErr, rtcErr error) kernelClock {
	return kernelClock{
		set: func(ts *unix.Timespec) error {
			f.calls, f.setTo = append(f.calls, "set"), *ts
			return setErr
		},
		adjust: func(t *unix.Timex) (int, error) {
			f.calls, f.offset = append(f.calls, "adjust "+strconv.FormatUint(uint64(t.Modes), 16)), int64(t.Offset)
			t.Status = f.status
			return 0, adjustErr
		},
		rtc: func(t unix.RTCTime) error {
			f.calls, f.rtc = append(f.calls, "rtc"), t
			return rtcErr
		},
	}
}

func TestSettingTheClockSetsTheHardwareClockToo(t *testing.T) {
	to := time.Date(2027, 2, 28, 23, 59, 58, 500, time.FixedZone("", 3600))
	for name, tt := range map[string]struct {
		set, rtc error
		calls    []string
		want     error
	}{
		"both":                {nil, nil, []string{"set", "rtc"}, nil},
		"no hardware clock":   {nil, fs.ErrNotExist, []string{"set", "rtc"}, nil},
		"not allowed":         {unix.EPERM, nil, []string{"set"}, fs.ErrPermission},
		"hardware clock sick": {nil, unix.EIO, []string{"set", "rtc"}, unix.EIO},
	} {
		f := new(fakeKernel)
		if err := f.clock(tt.set, nil, tt.rtc).setTo(to); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.clock(tt.set, nil, tt.rtc).setTo(to); errors.Is(err, ErrHardwareClock) != (tt.want == unix.EIO) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(f.calls, slices.Concat(tt.calls, tt.calls)) {
			t.Errorf("%s: %q", name, f.calls)
		}
		if got := time.Unix(f.setTo.Unix()); !got.Equal(to) {
			t.Errorf("%s: set to %v", name, got)
		}
		if want := (unix.RTCTime{Sec: 58, Min: 59, Hour: 22, Mday: 28, Mon: 1, Year: 127}); len(tt.calls) > 1 && f.rtc != want {
			t.Errorf("%s: hardware clock %+v, want %+v", name, f.rtc, want)
		}
	}
}

func TestTimesThatThePlatformCannotSayAreRefused(t *testing.T) {
	to := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	f := new(fakeKernel)
	err := f.clock(nil, nil, nil).setTo(to)
	if strconv.IntSize == 64 && (err != nil || len(f.calls) != 2) || strconv.IntSize == 32 && (err == nil || len(f.calls) != 0) {
		t.Errorf("%v after %q", err, f.calls)
	}
}

func TestASlewIsAskedForInMicrosecondsAndIsSmall(t *testing.T) {
	for by, want := range map[time.Duration]int64{
		0: 0, 499 * time.Millisecond: 499_000, -500 * time.Millisecond: -500_000, 1500 * time.Nanosecond: 1,
	} {
		f := new(fakeKernel)
		if err := f.clock(nil, nil, nil).slew(by); err != nil || f.offset != want || !slices.Equal(f.calls, []string{"adjust 8001"}) {
			t.Errorf("%v: %v, %d, %q", by, err, f.offset, f.calls)
		}
	}
	f := new(fakeKernel)
	if err := f.clock(nil, nil, nil).slew(501 * time.Millisecond); err == nil || len(f.calls) != 0 {
		t.Errorf("501 ms: %v, %q", err, f.calls)
	}
	if err := f.clock(nil, unix.EPERM, nil).slew(1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("not allowed: %v", err)
	}
}

func TestWhoeverClearsUNSYNCKeepsTheClock(t *testing.T) {
	for status, want := range map[int32]bool{0: true, unix.STA_UNSYNC: false, unix.STA_UNSYNC | 1: false, 1: true} {
		f := &fakeKernel{status: status}
		kept, err := f.clock(nil, nil, nil).kept()
		if kept != want || err != nil || !slices.Equal(f.calls, []string{"adjust 0"}) {
			t.Errorf("%#x: %v, %v, %q", status, kept, err, f.calls)
		}
	}
	if _, err := new(fakeKernel).clock(nil, unix.EFAULT, nil).kept(); err == nil {
		t.Error("an error was swallowed")
	}
}
