package service

import (
	"errors"
	"time"
)

// The agent is given stopGrace for its way down, of which it needs a second or two; who ordered the stop waits longer.
const (
	stopGrace    = 15 * time.Second // as TimeoutStopSec in the unit
	stopPatience = 30 * time.Second
	stopPoll     = 50 * time.Millisecond
)

var errStillRunning = errors.New("it was told to stop, and still runs")

// awaitStop asks until the service has stopped, for at most stopPatience.
func awaitStop(stopped func() (bool, error)) error {
	for begin := time.Now(); time.Since(begin) < stopPatience; time.Sleep(stopPoll) {
		if done, err := stopped(); done || err != nil {
			return err
		}
	}
	return errStillRunning
}
