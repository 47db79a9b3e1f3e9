package main

import (
	"math"
	"net"
	"testing"
	"time"

	"github.com/simonvetter/modbus"
)

func TestMeasuredValuesLookLikeAMachine(t *testing.T) {
	before := measure(0)
	for running := strokeTime; running < time.Hour; running += strokeTime {
		r := measure(running)
		if r.parts() != before.parts()+1 {
			t.Fatalf("after %v: %d parts, and one stroke before %d", running, r.parts(), before.parts())
		}
		if r[regTemperature] < 300 || r[regTemperature] > 600 || r[regPressure] < 1000 || r[regPressure] > 2500 {
			t.Fatalf("after %v: %v", running, r)
		}
		before = r
	}
	if measure(0) != measure(strokeTime-1) {
		t.Error("values move within a stroke")
	}
}

func TestPLCAnswersATool(t *testing.T) {
	p, c := plcAndTool(t)
	if _, err := readSame(c, p); err != nil {
		t.Error(err)
	}
	if err := c.WriteRegister(regSetPoint, 555); err != nil || p.holding() != 555 {
		t.Errorf("wrote 555: %v, and the PLC holds %d", err, p.holding())
	}
	if got, err := c.ReadRegister(regSetPoint, modbus.HOLDING_REGISTER); got != 555 || err != nil {
		t.Errorf("read back %d, %v", got, err)
	}
}

func TestPLCRefusesWhatItDoesNotHave(t *testing.T) {
	_, c := plcAndTool(t)
	_, beyond := c.ReadRegisters(1, inputCount, modbus.INPUT_REGISTER)
	_, far := c.ReadRegister(math.MaxUint16, modbus.INPUT_REGISTER)
	_, holding := c.ReadRegister(1, modbus.HOLDING_REGISTER)
	_, coil := c.ReadCoil(0)
	_, discrete := c.ReadDiscreteInput(0)
	for name, err := range map[string]error{"beyond": beyond, "far": far, "holding": holding, "write": c.WriteRegister(1, 1), "coil": coil, "discrete": discrete} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestComparisonNoticesAnotherPLC: a comparison that cannot fail proves nothing.
func TestComparisonNoticesAnotherPLC(t *testing.T) {
	_, c := plcAndTool(t)
	if r, err := readSame(c, &plc{began: time.Now().Add(-time.Hour)}); err == nil {
		t.Errorf("%v is taken for what another PLC holds", r)
	}
}

func TestClosedDoorNoticesWhoComes(t *testing.T) {
	c, err := openClosedDoor("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.untouched(); err != nil {
		t.Errorf("nobody came: %v", err)
	}
	conn, err := net.Dial("tcp", c.addr())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if c.untouched() == nil {
		t.Error("a visit is not noticed")
	}
}

func plcAndTool(t *testing.T) (*plc, *modbus.ModbusClient) {
	t.Helper()
	p, err := startPLC("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	c, err := tool(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return p, c
}
