package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The first clock is the one that the kernel reads at boot.
const hardwareClock = "/dev/rtc0"

// kernelClock is the kernel's interface to the clock. Tests replace it, since a machine has only one clock.
type kernelClock struct {
	set    func(*unix.Timespec) error
	adjust func(*unix.Timex) (state int, err error)
	rtc    func(unix.RTCTime) error // fs.ErrNotExist where there is none
}

func theKernelClock() kernelClock {
	return kernelClock{
		set:    func(ts *unix.Timespec) error { return unix.ClockSettime(unix.CLOCK_REALTIME, ts) },
		adjust: unix.Adjtimex,
		rtc:    setHardwareClock,
	}
}

func setClock(to time.Time) error      { return theKernelClock().setTo(to) }
func slewClock(by time.Duration) error { return theKernelClock().slew(by) }
func clockKept() (bool, error)         { return theKernelClock().kept() }

// setTo sets the system clock, then the hardware clock. On 32-bit platforms a time after January 2038 is an error,
// because their clock_settime has 32 bits for it. The system clock comes first: a board without a hardware clock, or
// with a dead battery, has at least that.
func (k kernelClock) setTo(to time.Time) error {
	ts, err := unix.TimeToTimespec(to)
	if err != nil {
		return fmt.Errorf("set system clock to %s: %w", to.UTC().Format(time.RFC3339), err)
	}
	if err := k.set(&ts); err != nil {
		return fmt.Errorf("set system clock: %w", err)
	}
	// A hardware clock that does not take the time is told and no failure of the step: it once ended all following of
	// the system clock, which had been set all the same.
	if err := k.rtc(rtcTime(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrHardwareClock, err)
	}
	return nil
}

// slew is adjtime(3): the kernel corrects 0.5 ms a second. It does not mark the clock as synchronised.
func (k kernelClock) slew(by time.Duration) error {
	const most = 500 * time.Millisecond
	if by.Abs() > most {
		return fmt.Errorf("slew system clock by %v: more than %v", by, most)
	}
	var t unix.Timex
	t.Modes = unix.ADJ_OFFSET_SINGLESHOT
	setOffset(&t.Offset, by)
	if _, err := k.adjust(&t); err != nil {
		return fmt.Errorf("slew system clock: %w", err)
	}
	return nil
}

// setOffset sets a field that is as wide as the platform's long.
func setOffset[T int32 | int64](field *T, by time.Duration) { *field = T(by.Microseconds()) }

// kept asks the kernel; adjtimex without a mode changes nothing. A program that disciplines the clock clears UNSYNC, and
// setting the clock sets it again. Asked of the kernel and not of a list of services, so that no program has to be
// known by its name.
func (k kernelClock) kept() (bool, error) {
	var t unix.Timex
	if _, err := k.adjust(&t); err != nil {
		return false, fmt.Errorf("read state of system clock: %w", err)
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}

// rtcTime is t as rtc(4) wants it, in UTC.
func rtcTime(t time.Time) unix.RTCTime {
	t = t.UTC()
	return unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year() - 1900),
	}
}

// setHardwareClock is opened for each use, since the kernel lets one process at a time have it (rtc(4)).
func setHardwareClock(t unix.RTCTime) error {
	f, err := os.OpenFile(hardwareClock, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetRTCTime(int(f.Fd()), &t)
}

// uptimeSince reads CLOCK_BOOTTIME, which counts the time of suspends as well. Go's monotonic clock does not.
func uptimeSince(start time.Time) func() time.Duration {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			return time.Since(start) // every kernel that Go supports has the clock; a sandbox may refuse it
		}
		return time.Duration(ts.Nano())
	}
}
