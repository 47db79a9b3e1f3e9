package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// bridged is a tool's connection, bridged over a session to a machine's.
func (s *site) bridged() (tool, machine Half, manager *Session, ended func()) {
	s.tb.Helper()
	toolFar, machineFar := Half(nil), Half(nil)
	tool, toolFar = s.tcpPair()
	machineFar, machine = s.tcpPair()
	far, near := make(chan struct{}), make(chan struct{})
	_, manager = s.up(func(st *mux.Stream, _ mux.Open) {
		defer close(far)
		st.Grant()
		Bridge(machineFar, st)
	})
	stream, err := manager.Open(s.tb.Context(), mux.Open{Service: wire.ServiceTCP})
	if err != nil {
		s.tb.Fatal(err)
	}
	go func() {
		defer close(near)
		Bridge(toolFar, stream)
	}()
	return tool, machine, manager, func() {
		<-near
		<-far
	}
}

func TestBridgeCarriesBytesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tool, machine, _, ended := newSite(t).bridged()
		tool.Write([]byte("read"))
		tool.CloseWrite()
		if b, err := io.ReadAll(machine); string(b) != "read" || err != nil {
			t.Errorf("the machine got %q, %v", b, err)
		}
		time.Sleep(time.Hour) // the other direction lives on
		machine.Write([]byte("42"))
		machine.Close()
		if b, err := io.ReadAll(tool); string(b) != "42" || err != nil {
			t.Errorf("the tool got %q, %v", b, err)
		}
		ended()
	})
}

func TestBridgeEndsWhenTheSessionBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		tool, machine, _, ended := s.bridged()
		s.net.Stall(managerAddr, relayAddr)
		begin := time.Now()
		ended()
		if time.Since(begin) > silence {
			t.Errorf("it took %v", time.Since(begin))
		}
		tool.Read(make([]byte, 1)) // they hang if the bridge left them open
		machine.Read(make([]byte, 1))
		s.net.Heal(managerAddr, relayAddr)
	})
}

func TestBridgeEndsBothWhenOneBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a, aFar := s.tcpPair()
		b, bFar := s.tcpPair()
		done := make(chan struct{})
		go func() {
			defer close(done)
			Bridge(aFar, bFar)
		}()
		synctest.Wait()
		aFar.SetReadDeadline(time.Unix(1, 0)) // a failure in one direction
		<-done
		for _, c := range []Half{a, b} {
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it is still open: %v", err)
			}
		}
	})
}

// On real sockets: in memory there is no reset to be told from an end.
func TestBrokenBridgeResetsTCP(t *testing.T) {
	a, aFar := loopback(t)
	b, bFar := loopback(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Bridge(aFar, bFar)
	}()
	b.SetLinger(0)
	b.Close()
	<-done
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset came through as %v", err)
	}
	a.Close()
}

func loopback(tb testing.TB) (here, there *net.TCPConn) {
	tb.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	c := must(net.Dial("tcp", l.Addr().String()))
	return c.(*net.TCPConn), must(l.Accept()).(*net.TCPConn)
}

func BenchmarkBridge(b *testing.B) {
	s := newSite(b)
	tool, machine, _, ended := s.bridged()
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(io.Discard, struct{ io.Reader }{machine}) })
	for b.Loop() {
		if _, err := tool.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	tool.Close()
	reading.Wait()
	machine.Close()
	ended()
}

// A tool that has ended its direction and then breaks is no end that a machine would be told of.
func TestBridgeEndsWhenOneBreaksAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		far, machine := s.tcpPair()
		ended := make(chan struct{})
		_, manager := s.up(func(st *mux.Stream, _ mux.Open) {
			defer close(ended)
			st.Grant()
			Bridge(far, st)
		})
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServiceTCP})
		if err != nil {
			t.Fatal(err)
		}
		stream.CloseWrite()
		if b, err := io.ReadAll(machine); len(b) > 0 || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		stream.Reset(transport.Reset)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("the bridge is still there after a minute")
			machine.Close()
		}
	})
}
