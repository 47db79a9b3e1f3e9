package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// sendAndCompare sends random bytes in pieces of chance to an echo and compares what comes back.
func sendAndCompare(t *testing.T, s *Stream, size int, seed byte) {
	t.Helper()
	want := make([]byte, size)
	source := rand.NewChaCha8([32]byte{seed})
	source.Read(want)
	var sending sync.WaitGroup
	sending.Go(func() {
		pieces := rand.New(source)
		for rest := want; len(rest) > 0; {
			n := min(1+pieces.IntN(40_000), len(rest))
			s.Write(rest[:n])
			rest = rest[n:]
		}
		s.CloseWrite()
	})
	got, err := io.ReadAll(s)
	sending.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d, equal: %v, %v", len(got), size, bytes.Equal(got, want), err)
	}
}

func TestStreamsKeepTheirBytes(t *testing.T) {
	t.Attr("id", "R-bytes")
	t.Attr("cases", "60")
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(10<<20, time.Millisecond), newPath(10<<20, time.Millisecond), echo)
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				s := p.open()
				sendAndCompare(t, s, i*i*100, byte(i))
				s.Close()
			})
		}
		all.Wait()
		synctest.Wait()
		if p.manager.Streams()+p.runtime.Streams() != 0 {
			t.Errorf("%d and %d streams are left", p.manager.Streams(), p.runtime.Streams())
		}
	})
}

// The bytes of a stream that nobody reads are bounded, and no other stream waits for them.
func TestStalledStreamsStopNoOther(t *testing.T) {
	t.Attr("id", "R-bytes")
	t.Attr("cases", "64")
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		var n int
		p := newPair(t, newPath(0, time.Millisecond), newPath(0, time.Millisecond), func(s *Stream) {
			if s.id <= 192 && s.id > 64 { // of 256: 64 that are written to, 128 that wait
				<-stop
			} else if s.id <= 64 {
				for err := error(nil); err == nil; {
					_, err = s.Write(make([]byte, 100<<10))
				}
			} else {
				echo(s)
			}
		})
		for range maxStreams - 1 {
			p.open()
			n++
		}
		fast := p.open()
		begin := time.Now()
		sendAndCompare(t, fast, 10<<20, 1)
		// At 1 ms one way: the window begins with 16 KiB and grows.
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("10 MiB there and back took %v beside streams that stand still", took)
		}
		if held := held(p.manager.config.Budget); held > 64<<20 {
			t.Errorf("the Manager holds %d bytes", held)
		}
		close(stop)
	})
}

func TestResetOvertakesAndReachesTheOtherEnd(t *testing.T) {
	t.Attr("id", "R-bytes")
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		p := newPair(t, newPath(100<<10, 10*time.Millisecond), newPath(100<<10, 10*time.Millisecond), func(s *Stream) {
			_, err := s.Write(make([]byte, 1<<20))
			gone <- err
		})
		s := p.open()
		time.Sleep(time.Second)
		begin := time.Now()
		s.Reset(transport.Reset)
		if err := <-gone; transport.ReasonOf(err) != transport.Reset || time.Since(begin) > 50*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if _, err := s.Read(make([]byte, 1)); transport.ReasonOf(err) != transport.Reset {
			t.Errorf("read: %v", err)
		}
		synctest.Wait()
		if p.manager.Streams()+p.runtime.Streams() != 0 {
			t.Error("a stream is left")
		}
		wantAlive(t, p)
	})
}

// held is what the sessions of a budget hold beyond what they are sure of.
func held(b *Budget) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.pooled
}

// wantAlive shows that the session lives.
func wantAlive(t *testing.T, p *pair) {
	t.Helper()
	if p.manager.Err() != nil || p.runtime.Err() != nil {
		t.Errorf("the session has ended: %v, %v", p.manager.Err(), p.runtime.Err())
	}
}

func TestStreamsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, 0), newPath(0, 0), func(*Stream) {})
		for range maxStreams {
			p.open()
		}
		_, err := p.manager.Open(t.Context(), Open{Service: wire.ServiceTCP})
		if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.Reason != transport.Busy {
			t.Errorf("got %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the Runtime's own limit, and a Manager that asks for more
		r := newRaw(t, wire.RoleRuntime)
		r.greet()
		for i := range uint32(maxStreams + 1) {
			r.say(0x81, i+1, `{"service":"tcp","target":"192.0.2.7:1","credit":0}`)
		}
		if stream, why := r.hear(0x83); stream != maxStreams+1 || !strings.Contains(why, `"busy"`) {
			t.Errorf("stream %d: %s", stream, why)
		}
		if c := r.m.Counts(); c.Refused[transport.Busy] != 1 || c.Granted != 0 {
			t.Errorf("counted %+v", c)
		}
	})
}

func TestOpenHonoursItsContextAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, wire.RoleManager)
		r.greet()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := r.m.Open(ctx, Open{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if stream, _ := r.hear(0x87); stream != 1 || r.m.Streams() != 0 {
			t.Errorf("reset of %d, %d streams left", stream, r.m.Streams())
		}
	})
}

func TestWhatSessionForbidsIsFatal(t *testing.T) {
	type frame struct {
		kind    byte
		stream  uint32
		payload string
	}
	const open = `{"service":"tcp","target":"192.0.2.7:1","credit":65536}`
	number := func(n uint64) string { return string(appendUint64(nil, n)) }
	hello, resume := frame{0x01, 0, `{"version":2,"session":"s","epoch":1}`}, frame{0x02, 0, string(make([]byte, 41))}
	use := frame{0x03, 0, ""}
	for name, tt := range map[string]struct {
		role  wire.Role
		plain bool // without the greeting
		say   []frame
	}{
		"an unknown type":          {wire.RoleRuntime, false, []frame{{0x09, 0, ""}}},
		"a counted type of no one": {wire.RoleRuntime, false, []frame{{0x99, 1, ""}}},
		"opened at the Runtime":    {wire.RoleRuntime, false, []frame{{0x82, 1, `{"credit":1}`}}},
		"open at the Manager":      {wire.RoleManager, false, []frame{{0x81, 1, open}}},
		"use at the Manager":       {wire.RoleManager, false, []frame{use}},
		"open before use":          {wire.RoleRuntime, true, []frame{hello, resume, {0x81, 1, open}}},
		"open before hello":        {wire.RoleRuntime, true, []frame{{0x81, 1, open}}},
		"resume before hello":      {wire.RoleRuntime, true, []frame{resume}},
		"ping before hello":        {wire.RoleManager, true, []frame{{0x05, 0, "12345678"}}},
		"use before resume":        {wire.RoleRuntime, true, []frame{hello, use}},
		"two hellos":               {wire.RoleRuntime, false, []frame{hello}},
		"two resumes":              {wire.RoleRuntime, false, []frame{resume}},
		"two uses":                 {wire.RoleRuntime, false, []frame{use}},
		"another session":          {wire.RoleRuntime, true, []frame{{0x01, 0, `{"version":2,"session":"t","epoch":1}`}}},
		"another epoch":            {wire.RoleRuntime, true, []frame{{0x01, 0, `{"version":2,"session":"s","epoch":2}`}}},
		"a session to resume":      {wire.RoleRuntime, true, []frame{hello, {0x02, 0, "\x01" + string(make([]byte, 40))}}},
		"the same stream twice":    {wire.RoleRuntime, false, []frame{{0x81, 1, open}, {0x81, 1, open}}},
		"a lower stream":           {wire.RoleRuntime, false, []frame{{0x81, 2, open}, {0x81, 1, open}}},
		"data of no stream":        {wire.RoleRuntime, false, []frame{{0x84, 7, "x"}}},
		"fin of no stream":         {wire.RoleRuntime, false, []frame{{0x86, 7, ""}}},
		"too much early data":      {wire.RoleRuntime, false, []frame{{0x81, 1, open}, {0x84, 1, strings.Repeat("x", 4096)}, {0x84, 1, "x"}}},
		"two fins":                 {wire.RoleRuntime, false, []frame{{0x81, 1, open}, {0x86, 1, ""}, {0x86, 1, ""}}},
		"credit that falls":        {wire.RoleRuntime, false, []frame{{0x81, 1, open}, {0x85, 1, number(1)}}},
		"a first credit too large": {wire.RoleRuntime, false, []frame{{0x81, 1, strings.Replace(open, "65536", "99999999999", 1)}}},
		"an ack of what was not":   {wire.RoleRuntime, false, []frame{{0x04, 0, number(1) + number(0)}}},
		"JSON that is none":        {wire.RoleRuntime, false, []frame{{0x81, 1, "null"}}},
		"a chain of nothing":       {wire.RoleRuntime, false, []frame{{0x07, 0, "{}"}}},
		"33 chains":                {wire.RoleRuntime, false, slices.Repeat([]frame{{0x07, 0, `{"chain":"x"}`}}, 33)},
		"a chain before hello":     {wire.RoleRuntime, true, []frame{{0x07, 0, `{"chain":"x"}`}}},
		"more than 96 KiB of news": {wire.RoleRuntime, false, slices.Repeat([]frame{{0x08, 0, "\x00" + strings.Repeat("x", 16<<10-1)}}, 7)},
		"17 objects of news":       {wire.RoleRuntime, false, slices.Repeat([]frame{{0x08, 0, "\x01{}"}}, 17)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRaw(t, tt.role)
				if !tt.plain {
					r.greet()
				}
				for _, f := range tt.say {
					r.say(f.kind, f.stream, f.payload)
				}
				<-r.m.Done()
				if why := transport.ReasonOf(r.m.Err()); why != transport.Protocol {
					t.Errorf("ended with %v", r.m.Err())
				}
				if _, why := r.hear(0x88); !strings.Contains(why, `"protocol"`) {
					t.Errorf("the peer was told %s", why)
				}
			})
		})
	}
}

func TestDataBeyondWhatWasPromisedEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, wire.RoleRuntime)
		r.greet()
		r.say(0x81, 1, `{"service":"tcp","target":"192.0.2.7:1","credit":0}`)
		s, err := r.m.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Grant()
		for range firstCredit / (16 << 10) {
			r.say(0x84, 1, string(make([]byte, 16<<10-8)))
		}
		synctest.Wait()
		if r.m.Err() != nil {
			t.Fatalf("within the credit: %v", r.m.Err())
		}
		r.say(0x84, 1, string(make([]byte, 16<<10-8)))
		<-r.m.Done()
		if why := transport.ReasonOf(r.m.Err()); why != transport.Protocol {
			t.Errorf("ended with %v", r.m.Err())
		}
	})
}

// A peer that asks and asks, and takes no answers, is shown the door before its answers have filled the memory.
func TestPeerThatTakesNoAnswersCostsBoundedMemory(t *testing.T) {
	for name, ask := range map[string]func(r *raw, i uint32){
		"pings": func(r *raw, _ uint32) { r.say(0x05, 0, "12345678") },
		"opens": func(r *raw, i uint32) { r.say(0x81, i+1, `{"service":"tcp","target":"192.0.2.7:1","credit":0}`) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRaw(t, wire.RoleRuntime)
				r.line.in.mu.Lock()
				r.line.in.room = 1 // a socket that takes nothing
				r.line.in.mu.Unlock()
				r.greet()
				for i := range uint32(20_000) {
					ask(r, i)
				}
				synctest.Wait()
				r.m.mu.Lock()
				unsent := len(r.m.out.control)
				r.m.mu.Unlock()
				if unsent > maxUnsent+4096 {
					t.Errorf("%d bytes wait for it", unsent)
				}
			})
		})
	}
}

func TestSilenceIsALostLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaw(t, wire.RoleRuntime)
		r.greet()
		time.Sleep(time.Second)
		begin := time.Now()
		<-r.m.Done()
		if took := time.Since(begin); transport.ReasonOf(r.m.Err()) != transport.LinkLost || took > silence {
			t.Errorf("%v after %v", r.m.Err(), took)
		}
	})
}

func TestIdleLineLivesAndCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, 10*time.Millisecond), newPath(0, 10*time.Millisecond), echo)
		time.Sleep(time.Hour)
		sendAndCompare(t, p.open(), 1000, 1)
	})
}

func TestEndIsAnsweredAndOrderly(t *testing.T) {
	for _, first := range []wire.Role{wire.RoleManager, wire.RoleRuntime} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, newPath(0, 10*time.Millisecond), newPath(0, 10*time.Millisecond), echo)
			s := p.open()
			one, other := p.manager, p.runtime
			if first == wire.RoleRuntime {
				one, other = other, one
			}
			begin := time.Now()
			one.Close()
			if took := time.Since(begin); took > 30*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			<-other.Done()
			for _, err := range []error{one.Err(), other.Err(), s.why()} {
				if transport.ReasonOf(err) != transport.Closed {
					t.Errorf("ended with %v", err)
				}
			}
		})
	}
}

// What has all arrived is read to its end, also when the session is over by then: it is whole.
func TestWhatIsWholeCanStillBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, 0), newPath(0, 0), func(s *Stream) {
			s.Write([]byte("program"))
			s.CloseWrite()
		})
		whole, cut := p.open(), p.open()
		synctest.Wait()
		p.runtime.Close()
		if b, err := io.ReadAll(whole); string(b) != "program" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		_ = cut
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, 0), newPath(0, 0), func(s *Stream) { s.Write([]byte("prog")) })
		s := p.open()
		synctest.Wait()
		p.runtime.Close()
		if b, err := io.ReadAll(s); transport.ReasonOf(err) != transport.Closed {
			t.Errorf("%q, %v: it looks complete", b, err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newPath(0, 0), newPath(0, 0), func(s *Stream) {})
		s := p.open()
		begin := time.Now()
		s.SetReadDeadline(begin.Add(time.Second))
		if _, err := s.Read(make([]byte, 1)); !isTimeout(err) || time.Since(begin) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(begin))
		}
		s.SetWriteDeadline(begin.Add(2 * time.Second))
		if n, err := s.Write(make([]byte, 1<<20)); !isTimeout(err) || n == 0 || time.Since(begin) != 2*time.Second {
			t.Errorf("wrote %d: %v after %v", n, err, time.Since(begin))
		}
		s.SetDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { s.SetReadDeadline(time.Unix(1, 0)) })
		if _, err := s.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("read: %v", err)
		}
	})
}

func isTimeout(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
}

// One stream fills a path of any round trip (session §3.6, §4.2), in either direction.
func TestOneStreamFillsALongPath(t *testing.T) {
	t.Attr("id", "R-window")
	const rate = 100_000_000 / 8
	rtts := []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond}
	t.Attr("cases", fmt.Sprint(2*len(rtts)))
	for _, rtt := range rtts {
		for _, up := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				got := new(meter)
				source := func(s *Stream) { s.ReadFrom(endless{}) }
				serve := source
				if up {
					serve = func(s *Stream) { s.WriteTo(got) }
				}
				p := newPair(t, newPath(rate, rtt/2), newPath(rate, rtt/2), serve)
				s := p.open()
				var other sync.WaitGroup
				other.Go(func() {
					if up {
						source(s)
					} else {
						s.WriteTo(got)
					}
				})
				time.Sleep(10 * time.Second)
				before := got.bytes()
				time.Sleep(5 * time.Second)
				least := .9
				if up && rtt == 300*time.Millisecond {
					least = .8 // a gateway promises 4 MiB at most, and 3.75 MB are on the way
				}
				if share := float64(got.bytes()-before) / (5 * rate); share < least {
					t.Errorf("%v, up %v: %.0f %% of the path", rtt, up, 100*share)
				}
				p.manager.Close()
				other.Wait()
			})
		}
	}
}

// A keystroke beside a download that fills a slow path waits for a little more than its round trip.
func TestKeystrokeIsNotBehindADownload(t *testing.T) {
	t.Attr("id", "R-key")
	for _, rtt := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			got := new(meter)
			p := newPair(t, newPath(100<<10, rtt/2), newPath(100<<10, rtt/2), func(s *Stream) {
				if s.id == 1 {
					s.ReadFrom(endless{})
				} else {
					echo(s)
				}
			})
			bulk := p.open()
			var other sync.WaitGroup
			other.Go(func() { bulk.WriteTo(got) })
			time.Sleep(10 * time.Second)
			before := got.bytes()
			keys := p.open()
			var took []time.Duration
			for range 50 {
				begin := time.Now()
				keys.Write([]byte("k"))
				io.ReadFull(keys, make([]byte, 1))
				took = append(took, time.Since(begin))
				time.Sleep(time.Duration(100+len(took)*7) * time.Millisecond)
			}
			slices.Sort(took)
			if median := took[len(took)/2]; median > 2*rtt+100*time.Millisecond {
				t.Errorf("%v: a keystroke takes %v, %v at most", rtt, median, took[len(took)-1])
			}
			if got.bytes() == before {
				t.Error("the download stands still")
			}
			p.manager.Close()
			other.Wait()
		})
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// meter counts bytes.
type meter struct {
	mu sync.Mutex
	n  int
}

func (m *meter) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += len(b)
	return len(b), nil
}

func (m *meter) bytes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}
