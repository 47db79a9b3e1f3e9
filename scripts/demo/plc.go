package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/simonvetter/modbus"
)

// The PLC stands on a loopback address of its own: another one than the server's and the gateway's.
const (
	machineHost = "127.0.0.2"
	strokeTime  = 250 * time.Millisecond // of the simulated press
)

// Registers of the press. Inputs are what the machine measures; the holding register is what a technician sets.
const (
	regTemperature = iota // input, 0.1 °C
	regPressure           // input, 0.1 bar
	regPartsHigh          // input, parts made, upper and lower half
	regPartsLow
	inputCount

	regSetPoint = 0 // holding, 0.1 °C
)

// reading is what the machine measures at one moment.
type reading [inputCount]uint16

func (r reading) parts() uint32 { return uint32(r[regPartsHigh])<<16 | uint32(r[regPartsLow]) }

// String is for a line of the output.
func (r reading) String() string {
	return fmt.Sprintf("oil %.1f °C, pressure %.1f bar, %d parts made", float64(r[regTemperature])/10, float64(r[regPressure])/10, r.parts())
}

// plc is a simulated PLC: a Modbus/TCP server and a press that makes a part with every stroke. Safe for concurrent use.
// The press runs by the clock and has no goroutine: what it holds at a moment can be computed and compared.
type plc struct {
	addr   netip.AddrPort
	server *modbus.ModbusServer
	began  time.Time

	mu       sync.Mutex // guards setPoint
	setPoint uint16
}

// startPLC starts one on a free port of host.
func startPLC(host string) (*plc, error) {
	addr, err := freeAddr(host)
	if err != nil {
		return nil, err
	}
	p := &plc{addr: addr, began: time.Now(), setPoint: 420}
	p.server, err = modbus.NewServer(&modbus.ServerConfiguration{
		URL: "tcp://" + addr.String(), MaxClients: 5, Logger: log.New(io.Discard, "", 0),
	}, p)
	if err == nil {
		err = p.server.Start()
	}
	return p, err
}

func (p *plc) stop() { _ = p.server.Stop() }

// freeAddr finds a port for a library that cannot tell which one it was given. Between the two somebody else can take
// it; then the start fails and says so.
func freeAddr(host string) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		if runtime.GOOS == "darwin" {
			err = fmt.Errorf("%w; on macOS: sudo ifconfig lo0 alias %s", err, host)
		}
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}

// measure is what the input registers hold after the press has run for a time: the same for all times within one
// stroke.
func measure(running time.Duration) (r reading) {
	strokes := uint32(running / strokeTime)
	parts := 184_236 + strokes
	r[regTemperature] = uint16(412 + strokes%17)
	r[regPressure] = uint16(1580 + strokes*7%40)
	r[regPartsHigh], r[regPartsLow] = uint16(parts>>16), uint16(parts)
	return r
}

// inputs is what the input registers hold now.
func (p *plc) inputs() reading { return measure(time.Since(p.began)) }

// holding is what the holding register holds now.
func (p *plc) holding() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setPoint
}

// HandleInputRegisters answers function 4.
func (p *plc) HandleInputRegisters(r *modbus.InputRegistersRequest) ([]uint16, error) {
	now := p.inputs()
	end := int(r.Addr) + int(r.Quantity)
	if end > len(now) {
		return nil, modbus.ErrIllegalDataAddress
	}
	return now[r.Addr:end], nil
}

// HandleHoldingRegisters answers functions 3, 6 and 16.
func (p *plc) HandleHoldingRegisters(r *modbus.HoldingRegistersRequest) ([]uint16, error) {
	if r.Addr != regSetPoint || r.Quantity != 1 {
		return nil, modbus.ErrIllegalDataAddress
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.IsWrite {
		p.setPoint = r.Args[0]
	}
	return []uint16{p.setPoint}, nil
}

// HandleCoils refuses: the press has none.
func (p *plc) HandleCoils(*modbus.CoilsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

// HandleDiscreteInputs refuses: the press has none.
func (p *plc) HandleDiscreteInputs(*modbus.DiscreteInputsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

// closedDoor is a second service of the machine, which the owner did not allow. It notices who comes. That a tool is
// refused does not prove that nothing arrived.
type closedDoor struct{ *net.TCPListener }

func openClosedDoor(host string) (*closedDoor, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	return &closedDoor{l.(*net.TCPListener)}, nil
}

func (c *closedDoor) addr() string { return c.Addr().String() }

// untouched returns an error if anybody has connected so far.
func (c *closedDoor) untouched() error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return err
	}
	conn, err := c.Accept()
	if err == nil {
		conn.Close()
		return errors.New("a connection arrived at the port that the owner did not allow")
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return nil
	}
	return err
}

func (d *demo) startPLC(context.Context) (string, error) {
	var err error
	if d.plc, err = startPLC(machineHost); err != nil {
		d.plc = nil
		return "", fmt.Errorf("start PLC: %w", err)
	}
	if d.closed, err = openClosedDoor(machineHost); err != nil {
		return "", fmt.Errorf("open second port: %w", err)
	}
	d.out.note(fmt.Sprintf("Modbus/TCP on %s, something else on %s", d.plc.addr, d.closed.addr()))
	d.out.note(d.plc.inputs().String())
	return fmt.Sprintf("The machine is there, on an address of its own (%s), behind the gateway.", machineHost), nil
}
