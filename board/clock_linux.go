package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const hardwareClock = "/dev/rtc0"

// kernelClock is what the kernel offers; a test has its own, because a machine has only one clock.
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

// setTo sets the system clock, then the hardware clock. On 32-bit platforms a time after January 2038 is an error:
// their clock_settime cannot say it.
func (k kernelClock) setTo(to time.Time) error {
	ts, err := unix.TimeToTimespec(to)
	if err != nil {
		return fmt.Errorf("set system clock to %s: %w", to.UTC().Format(time.RFC3339), err)
	}
	if err := k.set(&ts); err != nil {
		return fmt.Errorf("set system clock: %w", err)
	}
	if err := k.rtc(rtcTime(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrHardwareClock, err)
	}
	return nil
}

// slew is adjtime(3): the kernel makes up 0.5 ms a second, and does not count the clock as synchronised for it.
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

// setOffset fills a field that has the width of the platform's long.
func setOffset[T int32 | int64](field *T, by time.Duration) { *field = T(by.Microseconds()) }

// kept asks the kernel and changes nothing, since no mode is set. Only who disciplines the clock clears UNSYNC;
// setting the clock sets it.
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

func setHardwareClock(t unix.RTCTime) error {
	f, err := os.OpenFile(hardwareClock, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetRTCTime(int(f.Fd()), &t)
}
