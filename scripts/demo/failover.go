package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/simonvetter/modbus"
)

const (
	// failoverPatience is far more than it takes: what it took is measured and printed.
	failoverPatience = time.Minute
	// retryPause is how long the tool waits before it connects again. It is in the measured time.
	retryPause = 20 * time.Millisecond
)

// killRelay takes the relay in use away while a tool uses it, and wants the tool served again at the same local address.
func (d *demo) killRelay(ctx context.Context) (string, error) {
	victim := d.relayNamed(d.via)
	if victim == nil {
		return "", fmt.Errorf("the session runs over %q, which is none of the three", d.via)
	}
	c, err := tool(d.forwards[0].local)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", d.forwards[0].local, err)
	}
	defer c.Close()
	if _, err := readSame(c, d.plc); err != nil {
		return "", err
	}
	d.out.note(fmt.Sprintf("the session runs over %s, and a tool has a connection in it", d.via))
	d.out.command("kill", "-9", fmt.Sprint(victim.program.pid()))
	begin := time.Now()
	// SIGKILL, on which nobody says goodbye: an orderly end of a relay would be told to both ends by TLS.
	victim.program.kill()
	r, broken, err := d.readAgain(ctx, c)
	if err != nil {
		return "", err
	}
	took := time.Since(begin)
	if err := d.followMove(ctx, victim.name); err != nil {
		return "", err
	}
	d.out.note("the tool, at the same address, reads again:")
	d.out.note(r.String())
	// Were it still counted as one of them, its return would be no news.
	if _, err := d.awaitPool(ctx, func(found decision) bool { return !found.has(victim.name) }); err != nil {
		return "", err
	}
	proof := fmt.Sprintf("Nobody did anything. %s after the kill the tool read the PLC again, over %s.", seconds(took), d.via)
	if broken {
		proof += " Its old connection broke with the relay; it made a new one to the same address."
	}
	return proof, nil
}

// readAgain reads through c until it succeeds, and connects anew after each failure, as tools do: broken says whether
// it had to. A wrong reading ends it: another try would hide that bytes were mixed up.
func (d *demo) readAgain(ctx context.Context, c *modbus.ModbusClient) (r reading, broken bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, failoverPatience, fmt.Errorf("no reading within %v of the kill", failoverPatience))
	defer cancel()
	for {
		if r, err = readSame(c, d.plc); err == nil || errors.Is(err, errDiffers) {
			return r, broken, err
		}
		broken = true
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return r, broken, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		_ = c.Close() // it is broken already
		if err := c.Open(); err != nil {
			return r, broken, fmt.Errorf("the local address is gone: %w", err)
		}
	}
}

// followMove shows what hawser connect says of the move, and learns the new relay from it.
func (d *demo) followMove(ctx context.Context, from string) error {
	for {
		line, err := d.session.await(ctx, "", failoverPatience)
		if err != nil {
			return err
		}
		d.out.fact("hawser says: " + line)
		if relay, ok := parseUp(line); ok {
			d.via = relay
			break
		}
	}
	if d.via == from || d.relayNamed(d.via) == nil {
		return fmt.Errorf("the session came back over %q, and %s was killed", d.via, from)
	}
	return nil
}

// restartRelay starts again what was killed, as the service manager of its machine would.
func (d *demo) restartRelay(ctx context.Context) (string, error) {
	for _, r := range d.relays {
		if !r.program.ended() {
			continue
		}
		if err := d.runRelay(ctx, r); err != nil {
			return "", err
		}
	}
	return "It is one of three again, and can step in for the next that is lost.", d.showRelays(ctx)
}
