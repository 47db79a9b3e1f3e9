package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// serve answers every client with answer until the test ends.
func serve(t *testing.T, address string, answer []byte) {
	t.Helper()
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			c.Write(answer) // or the client has left
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

func ask(t *testing.T, address string) []byte {
	t.Helper()
	c, err := Dial(t.Context(), address)
	if err != nil {
		t.Errorf("dial: %v", err)
		return nil
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Errorf("deadline: %v", err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return b
}

// The server has closed its end before the client reads.
func TestEachClientGetsTheWholeAnswer(t *testing.T) {
	answer := bytes.Repeat([]byte("status "), 5000) // within the buffers of every system
	address := newAddress(t)
	serve(t, address, answer)
	for range 3 {
		if got := ask(t, address); !bytes.Equal(got, answer) {
			t.Errorf("got %d bytes, want %d", len(got), len(answer))
		}
	}
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			if got := ask(t, address); !bytes.Equal(got, answer) {
				t.Errorf("one of many got %d bytes, want %d", len(got), len(answer))
			}
		})
	}
	clients.Wait()
}

func TestAClientThatLeavesDisturbsNobody(t *testing.T) {
	address := newAddress(t)
	serve(t, address, []byte("x"))
	for range 10 {
		c, err := Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if got := ask(t, address); string(got) != "x" {
		t.Errorf("got %q", got)
	}
}

func TestAnAddressIsServedOnce(t *testing.T) {
	address := newAddress(t)
	serve(t, address, []byte("first"))
	for range 3 {
		if l, err := Listen(address); !errors.Is(err, ErrTaken) {
			if err == nil {
				l.Close()
			}
			t.Errorf("a second server: %v, want ErrTaken", err)
		}
	}
	if got := ask(t, address); string(got) != "first" {
		t.Errorf("got %q", got)
	}
}

func TestCloseEndsAcceptAndFreesTheAddress(t *testing.T) {
	address := newAddress(t)
	for range 3 {
		l, err := Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := l.Accept(); ended <- err }()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v, want net.ErrClosed", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after that: %v, want net.ErrClosed", err)
		}
		if c, err := Dial(t.Context(), address); err == nil {
			c.Close()
			t.Error("somebody still answers")
		}
	}
}

func TestADeadlineEndsAReadThatNobodyAnswers(t *testing.T) {
	address := newAddress(t)
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer (<-accepted).Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want a timeout", err)
	}
	if c.LocalAddr().Network() != l.Addr().Network() {
		t.Errorf("connected over %s, listens on %s", c.LocalAddr().Network(), l.Addr().Network())
	}
}

func TestStateDirectoriesDoNotShareAnAddress(t *testing.T) {
	one, again, other := In("/a"), In("/a"), In("/b")
	if one != again || one == other {
		t.Errorf("%q, %q and %q", one, again, other)
	}
}

func TestACancelledDialEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Dial(ctx, newAddress(t)); err == nil {
		c.Close()
		t.Error("connected to nobody")
	}
}
