package agent

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"

	"hawser/board"
	"hawser/transport"
)

// KeySwitch is a switch at the gateway without which nobody gets in from afar.
type KeySwitch struct {
	Line      board.Line
	AllowOpen bool // remote access while the switch is open, not while it is closed
}

// keyRetry is the pause before a switch that could not be read is tried again.
const keyRetry = 5 * time.Second

// watchKey obeys the key switch until ctx ends. It is there for safety: as long
// as nobody knows how it stands, it counts as locked.
func (a *Agent) watchKey(ctx context.Context) {
	k := a.Config.KeySwitch
	if k == nil {
		return
	}
	for said := false; ctx.Err() == nil; sleep(ctx, keyRetry) {
		err := a.board.WatchLine(ctx, k.Line, func(closed bool) {
			said = false
			a.turnKey(closed == k.AllowOpen)
		})
		if ctx.Err() != nil {
			return
		}
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

// lock ends every session and lets none begin, or lets them begin again; it
// reports whether that is a change.
func (s *sessions) lock(locked bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked == locked {
		return false
	}
	s.locked = locked
	s.agent.status.told.ring()
	if locked {
		for _, r := range s.running {
			r.cancel(&transport.Error{Reason: transport.Locked, Op: "serve session"})
		}
	}
	return true
}

// keySwitch reads the section of the key switch. Who began to write it wants
// one, so half of it is an error.
func (p *parser) keySwitch(key string, n *yaml.Node) error {
	p.c.KeySwitch = new(KeySwitch)
	if err := p.section(n, key+"."); err != nil {
		return err
	}
	if p.c.KeySwitch.Line.Chip == "" || !p.keyLine {
		return fmt.Errorf("line %d: %s: it needs chip and line", n.Line, key)
	}
	return nil
}

// setKeySwitch reads one value of that section.
func (p *parser) setKeySwitch(key, s string) (err error) {
	k := p.c.KeySwitch
	switch key {
	case "key_switch.chip":
		k.Line.Chip, err = parseDevice(s)
	case "key_switch.line":
		var n uint64
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			err = fmt.Errorf("%.64q: want the number of a line", s)
		}
		k.Line.Number, p.keyLine = uint32(n), true
	case "key_switch.active_low":
		k.Line.ActiveLow, err = parseBool(s)
	case "key_switch.allow":
		if k.AllowOpen = s == "open"; s != "open" && s != "closed" {
			err = fmt.Errorf("%.64q: want closed or open", s)
		}
	case "key_switch.bias":
		k.Line.Bias, err = parseBias(s)
	}
	return err
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
