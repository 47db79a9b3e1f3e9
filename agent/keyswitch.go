package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"hawser/board"
	"hawser/internal/strictyaml"
	"hawser/internal/wait"
	"hawser/transport"
)

// KeySwitch is a switch at the gateway that must be turned before anybody can
// connect from outside.
type KeySwitch struct {
	Line      board.Line
	AllowOpen bool // remote access while the switch is open, not while it is closed
}

// keyRetry is the wait before a switch that could not be read is opened again. A line that is taken, or a chip whose
// driver loads late, needs seconds.
const keyRetry = 5 * time.Second

// watchKey follows the key switch until ctx ends. It protects people at the
// machine, so a switch that cannot be read counts as locked. A person may stand in the machine with the switch turned:
// a broken wire must never read as "come in".
func (a *Agent) watchKey(ctx context.Context) {
	k := a.config.KeySwitch
	if k == nil {
		return
	}
	for said := false; ctx.Err() == nil; wait.Sleep(ctx, keyRetry) {
		err := a.board.WatchLine(ctx, k.Line, func(closed bool) {
			said = false
			a.turnKey(closed == k.AllowOpen)
		})
		if ctx.Err() != nil {
			return
		}
		// Before the log: whatever the reason, nobody is let in from here on.
		a.turnKey(true)
		if !said {
			a.log.Error("key switch cannot be read: remote access is locked", "err", err)
			said = true
		}
	}
}

func (a *Agent) turnKey(locked bool) {
	if a.sessions.lock(locked) {
		a.log.Info("key switch", "state", keyWord(locked))
	}
}

func keyWord(locked bool) string {
	if locked {
		return "locked"
	}
	return "unlocked"
}

// lock ends every session and refuses new ones, or accepts new ones again. It reports whether that is a change. Under
// the lock that offers take: a session cannot begin between the switch and the end of the others. Sessions are
// cancelled and not waited for: the callback must return, and they end within a second.
func (s *sessions) lock(locked bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked == locked {
		return false
	}
	s.locked = locked
	s.agent.status.told.Ring()
	if locked {
		for _, r := range s.running {
			r.cancel(&transport.Error{Reason: transport.Locked, Op: "serve session"})
		}
	}
	return true
}

// rawKeySwitch is the section of the key switch as it is written. A pointer in rawConfig: a section that is there but
// empty must be told apart from none.
type rawKeySwitch struct {
	Chip      string `yaml:"chip"`
	Line      string `yaml:"line"`
	ActiveLow bool   `yaml:"active_low"`
	Allow     string `yaml:"allow"`
	Bias      string `yaml:"bias"`
}

// check sets the key switch, if there is a section. An incomplete one is an error:
// somebody wanted a switch, and without one everybody would be let in.
func (r *rawKeySwitch) check(to **KeySwitch) error {
	if r == nil {
		return nil
	}
	if r.Chip == "" || r.Line == "" {
		return strictyaml.At("key_switch", errors.New("it needs chip and line"))
	}
	k := &KeySwitch{Line: board.Line{ActiveLow: r.ActiveLow}}
	*to = k
	return errors.Join(
		value("key_switch.chip", r.Chip, parseDevice, &k.Line.Chip),
		value("key_switch.line", r.Line, parseLine, &k.Line.Number),
		value("key_switch.allow", r.Allow, parseAllow, &k.AllowOpen),
		value("key_switch.bias", r.Bias, parseBias, &k.Line.Bias),
	)
}

func parseLine(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%.64q: want the number of a line", s)
	}
	return uint32(n), nil
}

// parseAllow reads in which position of the switch remote access is allowed.
func parseAllow(s string) (open bool, err error) {
	if s != "open" && s != "closed" {
		return false, fmt.Errorf("%.64q: want closed or open", s)
	}
	return s == "open", nil
}

func parseBias(s string) (board.Bias, error) {
	switch b := board.Bias(s); b {
	case board.BiasPullUp, board.BiasPullDown, board.BiasDisabled:
		return b, nil
	}
	if s == "as-is" {
		return board.BiasAsIs, nil
	}
	return "", fmt.Errorf("%.64q: want as-is, pull-up, pull-down or disabled", s)
}
