package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// relay is a Relay Server in a process of its own, on a loopback address that stands for a machine of its own.
type relay struct {
	name, host string
	code       string   // of hawser relay add
	program    *program // the newest; it may have been killed
}

// newRelays returns the demo's three. The name relay1 is taken: init gives it to the relay of the first server.
func newRelays() []*relay {
	return []*relay{{name: "relay2", host: "127.0.0.3"}, {name: "relay3", host: "127.0.0.4"}, {name: "relay4", host: "127.0.0.5"}}
}

func (d *demo) relayConfig(r *relay) string { return d.path(r.name, "server.yaml") }

// relayNamed returns nil for a name that is none of theirs.
func (d *demo) relayNamed(name string) *relay {
	i := slices.IndexFunc(d.relays, func(r *relay) bool { return r.name == name })
	if i < 0 {
		return nil
	}
	return d.relays[i]
}

func (d *demo) addRelays(ctx context.Context) (string, error) {
	for _, r := range d.relays {
		answer, err := d.hawser(ctx, "relay", "add", r.name, "--host", r.host, "--ports", d.ports.String(), "--json")
		if err != nil {
			return "", err
		}
		var made newRelay
		if err := decode("relay add", answer, &made); err != nil {
			return "", err
		}
		if made.Name != r.name || made.Code == "" {
			return "", fmt.Errorf("relay add gave no code for %s: %s", r.name, strings.TrimSpace(answer))
		}
		r.code = made.Code
		d.out.note("activation code " + r.code)
	}
	return "Like a device, each has a code that whoever installs it types once.", nil
}

func (d *demo) enrollRelays(ctx context.Context) (string, error) {
	for _, r := range d.relays {
		answer, err := d.call(ctx, "hawser-server", "enroll", "--dir", d.path(r.name), "--host", r.host, "--ports", d.ports.String(),
			"--access", d.access(), "--code", r.code, "--root", d.infra.RootFile, "--json")
		if err != nil {
			return "", err
		}
		var e enrolledRelay
		if err := decode("enroll", answer, &e); err != nil {
			return "", err
		}
		if e.Name != r.name {
			return "", fmt.Errorf("the relay became %q, and %s was added", e.Name, r.name)
		}
		d.out.note(fmt.Sprintf("%s, certificate until %s", e.Name, e.NotAfter.UTC().Format(time.RFC3339)))
	}
	return "Each has a key of its own and a signed name. On real machines --host says where clients reach it; here it is a loopback address.", nil
}

func (d *demo) runRelays(ctx context.Context) (string, error) {
	for _, r := range d.relays {
		if err := d.runRelay(ctx, r); err != nil {
			return "", err
		}
	}
	return "Three processes: each can be lost without the others, and without the Access Server.", nil
}

func (d *demo) runRelay(ctx context.Context, r *relay) (err error) {
	if r.program, err = d.launch(r.name, "hawser-server", "run", "--config", d.relayConfig(r)); err != nil {
		return err
	}
	line, err := r.program.await(ctx, readyPrefix, startPatience)
	if err == nil {
		d.out.note(line)
	}
	return err
}

func (d *demo) compareRelays(ctx context.Context) (string, error) {
	return "Both ends measured every relay, and what they measured decides. On one machine all are equally near: what is between them is noise.", d.showRelays(ctx)
}

// showRelays shows them when all can carry a session: one that says it is ready still has to reach the Access Server, and
// the ends have to hear of it.
func (d *demo) showRelays(ctx context.Context) error {
	found, err := d.awaitPool(ctx, func(found decision) bool { return found.complete(d.relays) })
	if err != nil {
		return err
	}
	if d.relayNamed(found.Chosen) == nil {
		return fmt.Errorf("the relay chosen is %q, which is none of the three", found.Chosen)
	}
	table, err := d.hawser(ctx, "relays", deviceName)
	d.out.notes(table)
	return err
}

// awaitPool asks until the answer is as wanted. There is no command that waits for a pool, so it polls; each try is a
// program's start, so the pause costs nothing more.
func (d *demo) awaitPool(ctx context.Context, wanted func(decision) bool) (found decision, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("the relays were not as they should be within %v", startPatience))
	defer cancel()
	for {
		if found, err = d.decision(ctx); err != nil || wanted(found) {
			return found, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return found, fmt.Errorf("%w: the last answer had %s", context.Cause(ctx), found)
		}
	}
}

// decision asks without showing it: the table is for people.
func (d *demo) decision(ctx context.Context) (found decision, err error) {
	answer, err := call(ctx, d.program("hawser"), "--home", d.technicianHome(), "relays", deviceName, "--json")
	if err == nil {
		err = decode("relays", answer, &found)
	}
	return found, err
}
