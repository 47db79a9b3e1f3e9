package board

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// A Notifier tells systemd how the service is (sd_notify(3)). A nil *Notifier does nothing, so callers need not know
// what started them. It holds no socket between messages and may be used from several goroutines.
type Notifier struct {
	socket   string
	interval time.Duration
}

// notifyTimeout bounds a message: the state machine must not hang on a service manager that does not read.
const notifyTimeout = time.Second

// NewNotifier takes the values of the variables NOTIFY_SOCKET and WATCHDOG_USEC, which the caller reads from the
// environment. Without a socket it returns nil. A name that begins with '@' is in Linux's abstract name space.
func NewNotifier(socket, watchdogUsec string) (*Notifier, error) {
	if socket == "" {
		return nil, nil
	}
	if socket[0] != '/' && socket[0] != '@' {
		return nil, fmt.Errorf("use notify socket %q: neither a path nor an abstract name", socket)
	}
	n := &Notifier{socket: socket}
	if watchdogUsec != "" {
		usec, err := strconv.ParseUint(watchdogUsec, 10, 52) // 52 bits of µs are 142 years, and fit a Duration
		if err != nil {
			return nil, fmt.Errorf("parse watchdog time: %w", err)
		}
		n.interval = time.Duration(usec) * time.Microsecond / 2
	}
	return n, nil
}

// Interval is how often Watchdog is to be called: half of what systemd allows. 0: there is no watchdog.
func (n *Notifier) Interval() time.Duration {
	if n == nil {
		return 0
	}
	return n.interval
}

// Ready says that the service is up: units that wait for it start, and the watchdog begins to count.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping says that the service is on its way down.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Watchdog says that the service has made progress. Call it from what must not hang, never from a bare timer.
func (n *Notifier) Watchdog() error { return n.send("WATCHDOG=1") }

// Status sets the line that `systemctl status` shows. A newline would begin another variable, so control characters
// become spaces.
func (n *Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text))
}

func (n *Notifier) send(message string) error {
	if n == nil {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	if _, err := c.Write([]byte(message)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
