package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	endPatience = time.Minute // for one program to end after SIGTERM
	tailLines   = 15          // of each log after a failure
)

// end is the last step: those who dial end before those who are dialled. The other way round a gateway would log a lost
// server, and search for it while it should end. An exit code other than 0 fails the demo: an end that loses something
// is a bug as well.
func (d *demo) end(context.Context) (string, error) {
	for _, p := range slices.Backward(d.running) {
		if d.keep && p.ended() && d.isRelay(p) {
			d.out.note(p.name + " was killed before")
			continue
		}
		d.out.note(fmt.Sprintf("SIGTERM to %s, process %d", p.name, p.pid()))
		if err := p.stop(endPatience); err != nil {
			return "", err
		}
	}
	d.running = nil
	d.stopMachine()
	if err := d.portsFree(); err != nil {
		return "", err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return "", fmt.Errorf("remove directory: %w", err)
	}
	return "Each program ended with exit code 0; its ports are free again, and the directory is gone.", nil
}

// giveUp says why, ends what is left, and shows what the programs logged, unless it was the user who wanted an end.
func (d *demo) giveUp(why error) error {
	d.out.failed(why)
	for _, p := range slices.Backward(d.running) {
		_ = p.stop(endPatience) // there is a failure to report already
	}
	d.stopMachine()
	if !errors.Is(why, errInterrupted) {
		for _, p := range d.running {
			d.out.tail(p.name, tail(p.logFile, tailLines))
		}
	}
	return errors.Join(why, os.RemoveAll(d.dir))
}

func (d *demo) isRelay(p *program) bool {
	return slices.ContainsFunc(d.relays, func(r *relay) bool { return r.program == p })
}

func (d *demo) stopMachine() {
	if d.plc != nil {
		d.plc.stop()
	}
	if d.closed != nil {
		d.closed.Close()
	}
	d.plc, d.closed = nil, nil
}

// tail returns the last lines of a log file.
func tail(file string, n int) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return []string{err.Error()}
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}
