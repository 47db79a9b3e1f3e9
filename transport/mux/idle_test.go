package mux

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A stream that waits for its machine takes nothing of the budget that others need.
func TestStreamsThatWaitStopNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newEnds(newPath(0, time.Millisecond), newPath(0, time.Millisecond))
		c := config("runtime")
		c.Budget = NewBudget(64 << 10)
		r := &raw{t: t, line: b, m: Start(a, c)}
		r.greet()
		var line sync.Mutex
		go func() { // acknowledges
			for {
				time.Sleep(10 * time.Millisecond)
				r.m.mu.Lock()
				sent, over := r.m.out.sent, r.m.err != nil
				r.m.mu.Unlock()
				if over {
					return
				}
				line.Lock()
				r.say(0x04, 0, string(appendUint64(appendUint64(nil, sent), 1)))
				line.Unlock()
			}
		}()
		var ends []io.Closer
		done := make(chan int, 9)
		for i := range 4 {
			line.Lock()
			r.say(0x81, uint32(i+1), `{"service":"tcp","target":"192.0.2.7:502","credit":65536}`)
			line.Unlock()
			s, err := r.m.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Grant()
			r.m.mu.Lock()
			r.m.out.window = window{w: 4 << 20, min: time.Millisecond, minAt: time.Now()}
			r.m.mu.Unlock()
			machine, in := io.Pipe()
			ends = append(ends, in)
			go s.ReadFrom(machine)
			go func() {
				in.Write(make([]byte, smallBytes-headerBytes))
				in.Write(make([]byte, 5000)) // and then it is silent
				done <- i
			}()
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		if n := len(done); n != 4 {
			t.Errorf("%d of 4 streams got on", n)
		}
		b.Close()
		r.m.Close()
		for _, in := range ends {
			in.Close()
		}
		time.Sleep(time.Second)
	})
}

// A socket that gives its bytes in bursts loses none of them between two waits.
func TestASocketIsSentWhole(t *testing.T) {
	p := newPair(t, newPath(0, 0), newPath(0, 0), echo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := bytes.Repeat([]byte("0123456789abcde"), 100_000)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		for rest, n := want, 1; len(rest) > 0; n = n*3%70_001 + 1 {
			n = min(n, len(rest))
			c.Write(rest[:n])
			rest = rest[n:]
		}
	}()
	machine, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	s := p.open()
	go func() {
		s.ReadFrom(machine)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	s.Close()
}
