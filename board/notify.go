package board

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// A Notifier reports to systemd (sd_notify(3)). A nil *Notifier does nothing, so callers need not know whether systemd has
// started them. It keeps no socket open between messages and may be used from several goroutines. Written here, because
// the protocol is one datagram of text, and a library would be one more in the agent.
type Notifier struct {
	socket   string
	interval time.Duration
}

// notifyTimeout bounds a message, since a service manager that does not read must not block the state machine. The
// socket is a datagram one, and blocks when systemd's queue is full.
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

// Ready reports that the service is up: systemd starts units that wait for it, and its watchdog.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping reports that the service is stopping.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Watchdog reports progress. A timer that calls it by itself would go on when the service hangs, so the caller must have
// seen progress.
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

// send opens a socket for each message: there are few, and systemd may have been started anew in between.
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
