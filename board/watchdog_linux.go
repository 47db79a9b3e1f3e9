package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog is a device of the kernel's watchdog API (its Documentation/watchdog/watchdog-api.rst).
type watchdog struct {
	dev     *os.File
	timeout time.Duration
}

// openWatchdog arms a watchdog: opening is arming. What is no device is not opened, for the byte that disarms would be
// written into it.
func openWatchdog(device string, timeout time.Duration) (Watchdog, error) {
	info, err := os.Stat(device)
	if err == nil && info.Mode()&fs.ModeCharDevice == 0 {
		err = fmt.Errorf("%s is not a device", device)
	}
	if err != nil {
		return nil, fmt.Errorf("open watchdog: %w", err)
	}
	dev, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open watchdog: %w", err)
	}
	fd := int(dev.Fd())
	return armWatchdog(dev, timeout,
		func(s int) error { return unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, s) },
		func() (uint32, error) { return unix.IoctlGetUint32(fd, unix.WDIOC_GETTIMEOUT) })
}

// armWatchdog asks an open device for a timeout, in whole seconds. Some drivers have only the one that they began with.
// The timeout that the driver has set is what counts: feeding by the one that was asked for could be too late.
func armWatchdog(dev *os.File, timeout time.Duration, set func(s int) error, get func() (s uint32, err error)) (Watchdog, error) {
	// Its failure alone does not count: get says which timeout there is.
	setErr := set(int(timeout / time.Second))
	s, err := get()
	if err == nil && s == 0 {
		err = errors.New("its timeout is 0")
	}
	w := &watchdog{dev, time.Duration(s) * time.Second}
	if err != nil {
		w.Stop() // it would reset the machine, and nobody knows when
		return nil, fmt.Errorf("arm watchdog: %w", errors.Join(setErr, err))
	}
	return w, nil
}

// Timeout implements Watchdog.
func (w *watchdog) Timeout() time.Duration { return w.timeout }

// Feed implements Watchdog. Any byte but V will do.
func (w *watchdog) Feed() error { return w.write(0) }

// Stop implements Watchdog: V just before the close says that it is meant. A kernel with nowayout does not care, and
// resets the machine all the same.
func (w *watchdog) Stop() error { return errors.Join(w.write('V'), w.dev.Close()) }

func (w *watchdog) write(b byte) error {
	if _, err := w.dev.Write([]byte{b}); err != nil {
		return fmt.Errorf("write to watchdog: %w", err)
	}
	return nil
}
