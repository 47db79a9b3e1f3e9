package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// patience bounds everything up to the last step: a demo that hangs proves nothing.
const patience = 5 * time.Minute

var errInterrupted = errors.New("interrupted")

type options struct {
	bin   string
	ports portList
	keep  bool
}

// demo is one run: what was asked for, and what the steps have found out so far for those after them. Steps fill in
// what later ones need; none is skipped, so a field that a step reads has been set.
type demo struct {
	options
	out     *screen
	dir     string     // everything that is written goes below; removed at the end
	running []*program // in the order of their start
	plc     *plc
	closed  *closedDoor

	server, agent, session *program
	relays                 []*relay
	via                    string // the relay of the session

	infra    infrastructure
	device   newDevice
	forwards []forward // to the PLC, and to the closed door
}

// step is one thing that is shown. do returns, in a sentence, what has been proven by it.
type step struct {
	title string
	do    func(ctx context.Context) (proof string, err error)
}

// A list and no code that calls: the numbers on the screen, the time-out and the error of a step are in one place.
func (d *demo) steps() []step {
	return []step{
		{"Server: make an infrastructure", d.initServer},
		{"Server: make it an Access Server alone", d.dropRelay},
		{"Server: run it", d.runServer},
		{"Technician: log in", d.login},
		{"Technician: add three relays", d.addRelays},
		{"Relays: enroll, each with its code", d.enrollRelays},
		{"Relays: run them", d.runRelays},
		{"Technician: add the device " + deviceName, d.addDevice},
		{"Machine: a simulated PLC speaks Modbus/TCP", d.startPLC},
		{"Gateway: enroll with the activation code", d.enroll},
		{"Gateway: the owner decides what a session may reach", d.writePolicy},
		{"Gateway: run, and dial out", d.runAgent},
		{"Technician: see the device", d.listDevices},
		{"Technician: compare the relays", d.compareRelays},
		{"Technician: ping the gateway through the relay", d.ping},
		{"Technician: open a session", d.connect},
		{"Gateway: look for open ports, now that a session runs", d.lookForPorts},
		{"Tool: read the PLC through the session", d.readPLC},
		{"Tool: write a register through the session", d.writePLC},
		{"Tool: try what the owner did not allow", d.tryClosedDoor},
		{"Relay: kill the one that carries the session", d.killRelay},
		{"Relay: start it again", d.restartRelay},
		{"Thief: steal the server with all its keys, and be an admin", d.stealServer},
	}
}

// run shows all steps and ends what they started. It prints its error itself.
func (d *demo) run(ctx context.Context) error {
	begin := time.Now()
	if err := d.prepare(); err != nil {
		d.out.failed(err)
		return err
	}
	if err := d.show(ctx, d.steps()); err != nil {
		return d.giveUp(err)
	}
	if d.keep {
		d.out.total(time.Since(begin))
		d.printUsage()
		if err := d.waitForEnd(ctx); err != nil {
			return d.giveUp(err)
		}
	}
	// The context may be over: ^C is how a kept demo ends.
	if err := d.show(context.WithoutCancel(ctx), []step{{"End: everything in turn, and nothing stays", d.end}}); err != nil {
		return d.giveUp(err)
	}
	if !d.keep {
		d.out.total(time.Since(begin))
	}
	return nil
}

// show runs steps until one fails.
func (d *demo) show(ctx context.Context, steps []step) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, s := range steps {
		d.out.begin(s.title)
		proof, err := s.do(ctx)
		if errors.Is(ctx.Err(), context.Canceled) {
			return errInterrupted
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		d.out.ok(proof)
	}
	return nil
}

// prepare checks what does not depend on Hawser, and makes the directory.
func (d *demo) prepare() (err error) {
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	for _, name := range []string{"hawser-server", "hawser-agent", "hawser"} {
		if _, err := os.Stat(d.program(name)); err != nil {
			return fmt.Errorf("find programs: %w; build them with make build", err)
		}
	}
	if err := d.portsFree(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "hawser-demo-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	d.out.header(d.dir)
	return nil
}

// path names something in the demo's directory.
func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

func (d *demo) program(name string) string { return filepath.Join(d.bin, name) }

// call shows a command, runs it to its end and returns what it printed.
func (d *demo) call(ctx context.Context, name string, args ...string) (string, error) {
	d.out.command(name, args...)
	return call(ctx, d.program(name), args...)
}

// launch shows a command and starts it under a name; it runs until the demo ends. What ended under that name before gives
// it its place. The order of running is that of the start, and the end goes backward through it.
func (d *demo) launch(name, file string, args ...string) (*program, error) {
	d.out.command(file, args...)
	p, err := start(d.path(name+".log"), d.program(file), args...)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(d.running, func(p *program) bool { return p.name == name }); i >= 0 {
		d.running[i] = p
	} else {
		d.running = append(d.running, p)
	}
	return p, nil
}

// portsFree tells which port one of the servers could not have, and why.
func (d *demo) portsFree() error {
	for _, host := range d.hosts() {
		if err := d.ports.free(host); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) hosts() []string {
	hosts := []string{accessHost}
	for _, r := range d.relays {
		hosts = append(hosts, r.host)
	}
	return hosts
}
