package board

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func setLED(name string, on, off time.Duration) error {
	return ledClass("/sys/class/leds").set(name, on, off)
}

// ledClass is the directory of the kernel's LED class (its Documentation/leds/leds-class.rst).
type ledClass string

// set lights a LED, turns it off, or lets the kernel's timer trigger blink it, for which no program wakes. If the kernel
// has no such trigger the LED stays dark, because a steady light has another meaning.
func (c ledClass) set(name string, on, off time.Duration) error {
	// The name comes from a configuration and becomes a path that root writes to.
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("set LED: %q is no name of one", name)
	}
	dir := filepath.Join(string(c), name)
	var err error
	switch {
	case on > 0 && off > 0:
		err = put(dir, "trigger", "timer", "delay_on", milliseconds(on), "delay_off", milliseconds(off))
	case on > 0:
		err = put(dir, "trigger", "none", "brightness", brightest(dir))
	default:
		err = put(dir, "trigger", "none", "brightness", "0")
	}
	if err == nil {
		return nil
	}
	// Dark rather than wrong: a LED that stayed as it was would show the state before.
	if on > 0 {
		put(dir, "brightness", "0") // an error of this is the same as the first
	}
	return fmt.Errorf("set LED %s: %w", name, err)
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// brightest is the driver's value for full brightness, often 1.
func brightest(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "max_brightness"))
	if s := strings.TrimSpace(string(b)); err == nil && s != "" {
		return s
	}
	return "1"
}

// put writes a value into each file, until one fails. The kernel has made the files.
func put(dir string, values ...string) error {
	for i := 0; i < len(values); i += 2 {
		f, err := os.OpenFile(filepath.Join(dir, values[i]), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(values[i+1])
		f.Close() // sysfs has accepted or refused the write already
		if err != nil {
			return err
		}
	}
	return nil
}
