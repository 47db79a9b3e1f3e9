//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/internal/e2e/pace"
)

// What tools and machines do beside moving bytes: many ask at once, and either side resets.
func TestToolsAndMachinesMeetAsTheyDoBesideEachOther(t *testing.T) {
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { answerModbus(c) })
	const why = "reset me"
	resets := machine(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(why)))
		c.(*net.TCPConn).SetLinger(0)
	})
	seen := make(chan error, 1)
	isReset := machine(t, func(c net.Conn) {
		c.Write([]byte("hello"))
		_, err := io.Copy(io.Discard, c)
		seen <- err
	})
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()

	t.Run("200 Modbus masters", func(t *testing.T) {
		t.Attr("id", "R-bytes")
		t.Attr("cases", "200")
		_, addr := g.connect(plc)
		var masters sync.WaitGroup
		defer masters.Wait()
		var progress pace.Progress
		for unit := range 200 {
			c := dial(t, &progress, addr)
			masters.Go(func() {
				if err := pollModbus(c, byte(unit), 20); err != nil {
					t.Errorf("master %d: %v", unit, err)
				}
			})
		}
	})
	t.Run("a machine's reset", func(t *testing.T) {
		t.Attr("id", "R-bytes")
		_, addr := g.connect(resets)
		c := dialTool(t, addr)
		c.Write([]byte(why))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the tool got %v, want a reset", err)
		}
	})
	t.Run("a tool's reset", func(t *testing.T) {
		t.Attr("id", "R-bytes")
		_, addr := g.connect(isReset)
		c := dialTool(t, addr)
		io.ReadFull(c, make([]byte, len("hello")))
		c.SetLinger(0)
		c.Close()
		select {
		case err := <-seen:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the machine got %v, want a reset", err)
			}
		case <-time.After(pace.Patience):
			t.Error("the machine got nothing")
		}
	})
}

func dialTool(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, pace.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(pace.Patience))
	return c.(*net.TCPConn)
}

// answerModbus is a machine with holding registers whose value is their address plus the unit that asks (Modbus
// Application Protocol §6.3, over TCP).
func answerModbus(c net.Conn) {
	var ask [12]byte
	for {
		if _, err := io.ReadFull(c, ask[:]); err != nil {
			return
		}
		first, n := binary.BigEndian.Uint16(ask[8:]), int(binary.BigEndian.Uint16(ask[10:]))
		answer := append([]byte(nil), ask[:4]...)
		answer = binary.BigEndian.AppendUint16(answer, uint16(3+2*n))
		answer = append(answer, ask[6], ask[7], byte(2*n))
		for i := range n {
			answer = binary.BigEndian.AppendUint16(answer, first+uint16(i)+uint16(ask[6]))
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// pollModbus reads 100 registers so many times, each time others.
func pollModbus(c io.ReadWriter, unit byte, times int) error {
	const n = 100
	for i := range uint16(times) {
		ask := binary.BigEndian.AppendUint16(nil, i)
		ask = append(ask, 0, 0, 0, 6, unit, 3)
		ask = binary.BigEndian.AppendUint16(ask, i*n)
		ask = binary.BigEndian.AppendUint16(ask, n)
		if _, err := c.Write(ask); err != nil {
			return err
		}
		answer := make([]byte, 9+2*n)
		if _, err := io.ReadFull(c, answer); err != nil {
			return err
		}
		want := binary.BigEndian.AppendUint16(nil, i)
		want = append(want, 0, 0, 0, 3+2*n, unit, 3, 2*n)
		for k := range uint16(n) {
			want = binary.BigEndian.AppendUint16(want, i*n+k+uint16(unit))
		}
		if !bytes.Equal(answer, want) {
			return fmt.Errorf("round %d: another answer", i)
		}
	}
	return nil
}
