package agent

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"hawser/board"
)

// A Feeder is a watchdog of the service manager; *board.Notifier is one. An interface, because only systemd has such a
// watchdog, and a test counts the calls.
type Feeder interface {
	Interval() time.Duration // how often Watchdog is to be called; 0: never
	Watchdog() error
}

// watchdogTimeout is what the hardware's watchdog is set to. Bootloaders arm it
// for about as long, so a start that hangs is noticed as well.
const watchdogTimeout = 30 * time.Second

const beatEvery = 15 * time.Second // how often the state machine calls alive while it waits

// parseWatchdog reads a value of watchdog.
func parseWatchdog(s string) (device string, err error) {
	if s == "off" {
		return "", nil
	}
	if device, err = parseDevice(s); err != nil {
		err = fmt.Errorf("%w, or off", err)
	}
	return device, err
}

func parseDevice(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%.64q: want the absolute path of a device", s)
	}
	return s, nil
}

// liveness is the one rule by which every watchdog is fed: each time the state machine moves or answers, it promises a
// time within which it will do so again. gokrazy's watchdog is fed by a loop that proves nothing; here silence of the
// machine that does the work is what starves it. Nanoseconds since the start and not a time.Time: it is an atomic, and
// the wall clock is set while it runs.
type liveness struct {
	begin time.Time
	until atomic.Int64 // ns since begin
}

// tell returns the function that the state machine calls with its promise; also,
// if not nil, is called as well. A promise never moves the end of an earlier one back: several goroutines promise at
// once.
func (p *liveness) tell(also func(time.Duration)) func(time.Duration) {
	return func(d time.Duration) {
		for until := int64(time.Since(p.begin) + d); ; {
			old := p.until.Load()
			if old >= until || p.until.CompareAndSwap(old, until) {
				break
			}
		}
		if also != nil {
			also(d)
		}
	}
}

// kept reports whether the last promise has not run out.
func (p *liveness) kept() bool { return int64(time.Since(p.begin)) < p.until.Load() }

// openWatchdog arms the hardware's watchdog. It returns nil when there is none, or
// when it cannot be armed: the agent then runs without. A missing device is one line in the log: the same configuration
// goes onto boards with and without one.
func (a *Agent) openWatchdog() board.Watchdog {
	if a.config.Watchdog == "" {
		return nil
	}
	a.alive(time.Minute)
	dog, err := a.board.OpenWatchdog(a.config.Watchdog, watchdogTimeout)
	if err != nil {
		a.status.trouble("hardware watchdog", err)
		a.log.Warn("no hardware watchdog", "err", err)
		return nil
	}
	a.log.Info("hardware watchdog armed", "after", dog.Timeout())
	return dog
}

// stopWatchdog disarms the hardware's watchdog, so that a service that was stopped
// on purpose stays stopped. A process that dies or hangs does not get here, and the
// watchdog resets the machine.
func (a *Agent) stopWatchdog(dog board.Watchdog) {
	if dog == nil {
		return
	}
	if err := dog.Stop(); err != nil {
		a.log.Error("stop hardware watchdog", "err", err)
	}
}

// feed feeds the hardware's watchdog and the service manager's until ctx ends, but
// only while the state machine keeps its promise. A timer that fed them by itself
// would go on when the state machine hangs. A third of the time-out leaves room for two feeds that come late on a
// loaded board.
func (a *Agent) feed(ctx context.Context, dog board.Watchdog) {
	var every time.Duration
	if a.service != nil {
		every = a.service.Interval()
	}
	if dog != nil && (every == 0 || dog.Timeout()/3 < every) {
		every = dog.Timeout() / 3
	}
	if every == 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for alive := true; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		was := alive
		if alive = a.liveness.kept(); alive {
			a.feedOnce(dog)
		} else if was {
			a.log.Error("state machine is stuck: the watchdogs are not fed")
		}
	}
}

func (a *Agent) feedOnce(dog board.Watchdog) {
	if a.service != nil {
		a.service.Watchdog() // an error needs no retry: two messages are sent within the time-out
	}
	if dog == nil {
		return
	}
	if err := dog.Feed(); a.status.trouble("feed hardware watchdog", err) {
		a.log.Error("feed hardware watchdog", "err", err)
	}
}
