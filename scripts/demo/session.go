package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/simonvetter/modbus"
)

// toolPatience bounds one exchange of a tool.
const toolPatience = time.Minute

var errDiffers = errors.New("not what the PLC holds")

func (d *demo) ping(ctx context.Context) (string, error) {
	answer, err := d.hawser(ctx, "ping", deviceName)
	if err != nil {
		return "", err
	}
	d.out.notes(answer)
	return "Technician and gateway, which both only dialled out, have met at the relay.", nil
}

func (d *demo) connect(ctx context.Context) (string, error) {
	args := []string{"--home", d.technicianHome(), "connect", deviceName}
	targets := []string{d.plc.addr.String(), d.closed.addr()}
	for _, t := range targets {
		args = append(args, "-L", "0:"+t)
	}
	var err error
	if d.session, err = d.launch("hawser", "hawser", args...); err != nil {
		return "", err
	}
	line, err := d.session.await(ctx, upPrefix, startPatience)
	if err != nil {
		return "", err
	}
	d.out.note(line)
	d.via, _ = parseUp(line)
	for _, t := range targets {
		line, err := d.session.await(ctx, forwardPrefix, startPatience)
		if err != nil {
			return "", err
		}
		d.out.note(line)
		f, err := parseForward(line)
		if err == nil && f.target.String() != t {
			err = fmt.Errorf("line %q: want a forward to %s", line, t)
		}
		if err != nil {
			return "", err
		}
		d.forwards = append(d.forwards, f)
	}
	return "Any tool can now use these local addresses as if it stood beside the machine.", nil
}

// tool is a Modbus client as a technician has it: it knows an address and nothing of Hawser. Its time-out is long: what
// ends a connection must be Hawser or the PLC, and not the patience of the library.
func tool(addr netip.AddrPort) (*modbus.ModbusClient, error) {
	c, err := modbus.NewClient(&modbus.ClientConfiguration{
		URL: "tcp://" + addr.String(), Timeout: toolPatience, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, err
	}
	return c, c.Open()
}

func (d *demo) readPLC(ctx context.Context) (string, error) {
	c, err := tool(d.forwards[0].local)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", d.forwards[0].local, err)
	}
	defer c.Close()
	d.out.note(fmt.Sprintf("Modbus/TCP to %s: input registers 0-%d", d.forwards[0].local, inputCount-1))
	first, err := readSame(c, d.plc)
	if err != nil {
		return "", err
	}
	d.out.note(first.String())
	select {
	case <-time.After(2 * strokeTime):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	second, err := readSame(c, d.plc)
	if err != nil {
		return "", err
	}
	d.out.note(second.String())
	if second.parts() <= first.parts() {
		return "", errors.New("the press makes parts, and the counter that was read stands still")
	}
	return "The tool read what the PLC holds, register for register, and sees the machine run.", nil
}

// readSame reads the inputs through the session and compares them with those in the PLC. The press may stroke while
// the question is under way: such a reading is neither right nor wrong, and another is taken.
func readSame(c *modbus.ModbusClient, p *plc) (r reading, err error) {
	for range 10 {
		before := p.inputs()
		got, err := c.ReadRegisters(0, inputCount, modbus.INPUT_REGISTER)
		if err != nil {
			return r, fmt.Errorf("read input registers: %w", err)
		}
		if copy(r[:], got) != inputCount {
			return r, fmt.Errorf("read input registers: %d, want %d", len(got), inputCount)
		}
		if before != p.inputs() {
			continue
		}
		if r != before {
			return r, fmt.Errorf("%w: read %v, and it holds %v", errDiffers, r, before)
		}
		return r, nil
	}
	return r, fmt.Errorf("no reading took less than a stroke of %v", strokeTime)
}

func (d *demo) writePLC(context.Context) (string, error) {
	c, err := tool(d.forwards[0].local)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", d.forwards[0].local, err)
	}
	defer c.Close()
	old := d.plc.holding()
	wanted := old + 15
	if err := c.WriteRegister(regSetPoint, wanted); err != nil {
		return "", fmt.Errorf("write holding register: %w", err)
	}
	got, err := c.ReadRegister(regSetPoint, modbus.HOLDING_REGISTER)
	if err != nil {
		return "", fmt.Errorf("read holding register: %w", err)
	}
	if held := d.plc.holding(); got != wanted || held != wanted {
		return "", fmt.Errorf("wrote %d, read %d back, and the PLC holds %d", wanted, got, held)
	}
	d.out.note(fmt.Sprintf("set point %.1f °C -> %.1f °C, read back %.1f °C", float64(old)/10, float64(wanted)/10, float64(got)/10))
	return "Both directions work: the PLC holds what the tool wrote.", nil
}

// tryClosedDoor wants the tool's connection to end at once, for the owner's reason, and the machine to see nothing of it.
func (d *demo) tryClosedDoor(ctx context.Context) (string, error) {
	closed := d.forwards[1]
	err := knock(ctx, closed.local)
	if e, ok := errors.AsType[net.Error](err); err == nil || ok && e.Timeout() {
		return "", fmt.Errorf("the connection through %s did not end: %v", closed.local, err)
	}
	d.out.fact(fmt.Sprintf("TCP to %s: %v", closed.local, err))
	line, err := d.session.await(ctx, refusedPrefix+closed.target.String(), toolPatience)
	if err != nil {
		return "", err
	}
	d.out.fact("hawser says: " + line)
	if !strings.Contains(line, "policy") {
		return "", errors.New("want a refusal with the reason policy (wire §7)")
	}
	return "The gateway refused it, and at the machine nothing arrived: the owner's word holds.", d.closed.untouched()
}

// knock returns the error with which a connection ends on which the tool says nothing; the reset may come as early as
// in connect.
func knock(ctx context.Context, addr netip.AddrPort) error {
	conn, err := (&net.Dialer{Timeout: toolPatience}).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(toolPatience)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
