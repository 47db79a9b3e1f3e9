package agent

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"hawser/board"
)

// A Feeder is a watchdog of the service manager; *board.Notifier is one.
type Feeder interface {
	Interval() time.Duration // how often Watchdog is to be called; 0: never
	Watchdog() error
}

// watchdogTimeout is what the hardware's watchdog is asked for. Bootloaders arm
// it for about as long, so a start that hangs is noticed too.
const watchdogTimeout = 30 * time.Second

const beatEvery = 15 * time.Second // that often the state machine speaks up while it waits

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

// pulse is the one rule by which every watchdog is fed: the state machine, each
// time that it moves or answers, says by when it will do so again.
type pulse struct {
	begin time.Time
	until atomic.Int64 // ns since begin
}

// tell returns what the state machine calls; also, if not nil, hears it too.
func (p *pulse) tell(also func(time.Duration)) func(time.Duration) {
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

func (p *pulse) beats() bool { return int64(time.Since(p.begin)) < p.until.Load() }

// openWatchdog arms the hardware's watchdog; nil: there is none, and the Runtime
// serves without.
func (a *Agent) openWatchdog() board.Watchdog {
	if a.Config.Watchdog == "" {
		return nil
	}
	a.Alive(time.Minute)
	dog, err := a.board.OpenWatchdog(a.Config.Watchdog, watchdogTimeout)
	if err != nil {
		a.log.Warn("no hardware watchdog", "err", err)
		return nil
	}
	a.log.Info("hardware watchdog armed", "after", dog.Timeout())
	return dog
}

// stopWatchdog disarms it, so that a service that was stopped stays stopped. A
// process that dies or hangs does not get here.
func (a *Agent) stopWatchdog(dog board.Watchdog) {
	if dog == nil {
		return
	}
	if err := dog.Stop(); err != nil {
		a.log.Error("stop hardware watchdog", "err", err)
	}
}

// feed feeds the hardware's watchdog and the service manager's until ctx ends,
// and never for longer than the state machine has vouched for itself: its timer
// only bridges the time between two of its signs of life.
func (a *Agent) feed(ctx context.Context, dog board.Watchdog) {
	var every time.Duration
	if a.Service != nil {
		every = a.Service.Interval()
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
		if alive = a.pulse.beats(); alive {
			a.feedOnce(dog)
		} else if was {
			a.log.Error("state machine is stuck: the watchdogs are not fed")
		}
	}
}

func (a *Agent) feedOnce(dog board.Watchdog) {
	if a.Service != nil {
		a.Service.Watchdog() // a lost message is one of two that are due in time
	}
	if dog == nil {
		return
	}
	if err := dog.Feed(); err != nil {
		a.log.Error("feed hardware watchdog", "err", err)
	}
}
