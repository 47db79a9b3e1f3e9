package agent

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board/boardtest"
	"hawser/transport"
	"hawser/transport/wire"
)

// mouth is a service manager's watchdog that counts.
type mouth struct {
	every time.Duration
	fed   atomic.Int64
}

func (m *mouth) Interval() time.Duration { return m.every }
func (m *mouth) Watchdog() error         { m.fed.Add(1); return errors.New("a lost message is no news") }

const dogDevice = "/dev/watchdog0"

func (r *rig) watchdog() *boardtest.Watchdog {
	w := new(boardtest.Watchdog)
	w.Give(r.opts.Board, dogDevice)
	r.opts.Config.Watchdog = dogDevice
	return w
}

// Hours in every state: a watchdog of 30 s never bites, the service manager's is
// fed by the same rule, and a clean stop disarms it.
func TestTheWatchdogIsFedWhileTheStateMachineAnswers(t *testing.T) {
	bubble(t, func(r *rig) {
		dog, service := r.watchdog(), &mouth{every: 30 * time.Second}
		r.opts.Service = service
		p := r.start()
		pass := func(in State, d time.Duration) {
			t.Helper()
			before, _ := dog.Feeds()
			spoken := service.fed.Load()
			time.Sleep(d)
			synctest.Wait()
			fed, armed := dog.Feeds()
			if dog.Bitten() || !armed || fed-before < int(d/(11*time.Second)) || service.fed.Load()-spoken < int64(d/service.every) {
				t.Errorf("%s: bitten %t, armed %t, fed %d times in %v, the service manager %d times", in, dog.Bitten(), armed, fed-before, d, service.fed.Load()-spoken)
			}
		}
		pass(StateEnroll, 2*time.Hour)
		r.access.Set(func() { r.access.Welcome.HeartbeatS = 1200 })
		r.enrollNow()
		p.await(StateAttached, 10*time.Second)
		pass(StateAttached, 2*time.Hour)
		r.access.Down()
		pass(StateDial, 2*time.Hour)
		r.access.Set(func() { r.access.RefuseHello = &wire.Refusal{Reason: transport.Busy, RetryAfter: time.Hour} })
		r.access.Up()
		pass(StateDial, 2*time.Hour)
		r.access.Set(func() { r.access.RefuseHello = &wire.Refusal{Reason: transport.Revoked} })
		p.await(StateQuarantined, 2*time.Hour)
		pass(StateQuarantined, 2*time.Hour)
		p.stop(time.Second)
		if _, armed := dog.Feeds(); armed || dog.Bitten() {
			t.Errorf("after a clean stop: armed %t, bitten %t", armed, dog.Bitten())
		}
		if n := r.notes.count("state machine is stuck: the watchdogs are not fed"); n != 0 {
			t.Errorf("said to be stuck %d times", n)
		}
	})
}

// stuck blocks whoever prints.
type stuck chan struct{}

func (s stuck) Write(b []byte) (int, error) { <-s; return len(b), nil }

// The process lives, its timers run, and a session's dial goes on: only the
// state machine hangs.
func TestAStuckStateMachineIsResetByTheWatchdog(t *testing.T) {
	bubble(t, func(r *rig) {
		r.enrollNow()
		dog, service := r.watchdog(), &mouth{every: 10 * time.Second}
		hang := make(stuck)
		r.opts.Service, r.opts.Out = service, hang
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		took := r.until(5*time.Minute, "reset", dog.Bitten)
		if took < watchdogTimeout || took > 2*time.Minute+2*watchdogTimeout {
			t.Errorf("reset after %v", took)
		}
		fed := service.fed.Load()
		p.trace(transport.Attempt{Reason: transport.Refused}) // of a session that runs on
		time.Sleep(time.Hour)
		if synctest.Wait(); service.fed.Load() != fed {
			t.Error("the service manager's watchdog is fed")
		}
		if n := r.notes.count("state machine is stuck: the watchdogs are not fed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		close(hang) // it comes back to life, where nothing has reset it
		time.Sleep(time.Minute)
		if synctest.Wait(); service.fed.Load() == fed {
			t.Error("no longer fed after it came back")
		}
		p.stop(time.Second)
	})
}

func TestTheDriverDecidesHowOftenItIsFed(t *testing.T) {
	bubble(t, func(r *rig) {
		dog := r.watchdog()
		dog.Longest = 3 * time.Second
		p := r.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, _ := dog.Feeds(); dog.Bitten() || n < 55 {
			t.Errorf("a watchdog of 3 s was fed %d times in a minute, bitten %t", n, dog.Bitten())
		}
		p.stop(time.Second)
	})
}

func TestAMissingWatchdogIsOneLine(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Config.Watchdog = "/dev/watchdog7"
		r.enrollNow()
		p := r.start()
		p.await(StateAttached, 10*time.Second)
		time.Sleep(time.Hour)
		if n := r.notes.count("no hardware watchdog"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		p.stop(time.Second)
	})
}

func TestWithoutTheKeyNoWatchdogIsOpened(t *testing.T) {
	bubble(t, func(r *rig) {
		dog := r.watchdog()
		r.opts.Config.Watchdog = ""
		p := r.start()
		time.Sleep(time.Hour)
		if n, armed := dog.Feeds(); n != 0 || armed {
			t.Errorf("fed %d times, armed %t", n, armed)
		}
		p.stop(time.Second)
	})
}

func TestAVouchIsNeverShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := liveness{begin: time.Now()}
		if p.kept() {
			t.Error("alive before it said so")
		}
		alive := p.tell(nil)
		alive(time.Minute)
		alive(time.Second)
		time.Sleep(59 * time.Second)
		if !p.kept() {
			t.Error("a shorter vouch took back a longer one")
		}
		time.Sleep(time.Second)
		if p.kept() {
			t.Error("still alive at its end")
		}
	})
}
