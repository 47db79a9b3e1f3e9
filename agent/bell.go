package agent

// bell tells one waiter that something has changed. Rung again before it is
// heard, it is heard once; ringing never blocks.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // not heard yet
	}
}
