package relay

import (
	"context"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopback is a TCP connection.
func loopback(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	b, err := l.Accept()
	must(t, err)
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// cpu is the time that this thread has used.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMove moves 64 KiB at a time from socket to socket. cpu-ns/MiB is what the mover itself uses, without sender
// and receiver.
func BenchmarkMove(b *testing.B) {
	mover := func(pipes int) func(dst, src *net.TCPConn) error {
		m := newMover()
		m.pipes.max = pipes
		return func(dst, src *net.TCPConn) error {
			return m.move(&flow{dst: dst, src: src, most: 1 << 30, count: func(int) *claim { return nil }})
		}
	}
	for _, way := range []struct {
		name string
		move func(dst, src *net.TCPConn) error
	}{
		{"splice", mover(maxKernelPipes)},
		{"buffer", mover(0)},
		{"io.Copy", func(dst, src *net.TCPConn) error { _, err := io.Copy(dst, src); return err }},
	} {
		for _, size := range []int{64, 1400, moveBytes} {
			b.Run(way.name+"/"+sizeName(size), func(b *testing.B) {
				sender, src := loopback(b)
				dst, receiver := loopback(b)
				used := make(chan time.Duration, 1)
				go func() {
					runtime.LockOSThread()
					began := cpu()
					if err := way.move(dst, src); err != nil {
						b.Error(err)
					}
					used <- cpu() - began
					dst.CloseWrite()
				}()
				done := make(chan int64, 1)
				go func() {
					buf, sum := make([]byte, 256<<10), int64(0)
					for {
						n, err := receiver.Read(buf)
						if sum += int64(n); err != nil {
							done <- sum
							return
						}
					}
				}()
				chunk := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if _, err := sender.Write(chunk); err != nil {
						b.Fatal(err)
					}
				}
				sender.CloseWrite()
				if got := <-done; got != int64(b.N*size) {
					b.Errorf("%d bytes of %d arrived", got, b.N*size)
				}
				b.StopTimer()
				b.ReportMetric(float64((<-used).Nanoseconds())/(float64(b.N*size)/(1<<20)), "cpu-ns/MiB")
			})
		}
	}
}

func sizeName(n int) string {
	switch n {
	case 64:
		return "64B"
	case 1400:
		return "1400B"
	}
	return "64KiB"
}

// BenchmarkOverload asks a relay that may carry 40 MB/s for a part of that, for all of it and for twice as much. Goodput
// is what is carried of that. p50 and p99 are the round trips of a session that carries one byte at a time meanwhile.
func BenchmarkOverload(b *testing.B) {
	const capacity, sessions, piece = 40 * mega, 16, 16 << 10
	for _, load := range []struct {
		name  string
		times float64
	}{{"quarter", .25}, {"once", 1}, {"twice", 2}} {
		b.Run(load.name, func(b *testing.B) {
			r := newSocketRig(b, func(c *Config) { c.Limits = Limits{Total: capacity} })
			small, far := r.pair(b, "small")
			go io.Copy(far, far)
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			var received atomic.Int64
			for range sessions {
				to, from := r.pair(b, newInstance())
				all.Go(func() { // as fast as load says, if that is taken
					began, sent, buf := time.Now(), 0., make([]byte, piece)
					for ctx.Err() == nil {
						if due := load.times * capacity / sessions * time.Since(began).Seconds(); sent > due {
							time.Sleep(time.Duration((sent - due) / (load.times * capacity / sessions) * float64(time.Second)))
						}
						if _, err := from.Write(buf); err != nil {
							return
						}
						sent += piece
					}
				})
				all.Go(func() {
					buf := make([]byte, moveBytes)
					for {
						n, err := to.Read(buf)
						if received.Add(int64(n)); err != nil {
							return
						}
					}
				})
				context.AfterFunc(ctx, func() {
					from.Close()
					to.Close()
				})
			}
			var trips []time.Duration
			one := make([]byte, 1)
			began, before := time.Now(), received.Load()
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Millisecond)
				sent := time.Now()
				must2(small.Write(one))
				if _, err := io.ReadFull(small, one); err != nil {
					b.Fatal(err)
				}
				trips = append(trips, time.Since(sent))
			}
			b.StopTimer()
			carried := float64(received.Load()-before) / time.Since(began).Seconds()
			slices.Sort(trips)
			b.ReportMetric(100*carried/(min(load.times, 1)*capacity), "goodput-%")
			b.ReportMetric(float64(trips[len(trips)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(trips[len(trips)*99/100].Microseconds()), "p99-µs")
			cancel()
			small.Close()
			all.Wait()
		})
	}
}

// BenchmarkIdleSession holds sessions that carry nothing any more. B/session is heap and stacks together; two sockets of
// four are the clients', which are in this process too.
func BenchmarkIdleSession(b *testing.B) {
	r := newSocketRig(b)
	inUse := func() uint64 {
		for range 5 { // stacks shrink by half at each collection
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	first, _ := r.pair(b, "first")
	before, goroutines := inUse(), runtime.NumGoroutine()
	lines := make([]*line, 0, 2*b.N)
	for range b.N {
		device, manager := r.pair(b, newInstance())
		for _, way := range [][2]*line{{device, manager}, {manager, device}} {
			must2(way[0].Write([]byte("x")))
			must2(io.ReadFull(way[1], make([]byte, 1)))
		}
		lines = append(lines, device, manager)
	}
	b.ReportMetric((float64(inUse())-float64(before))/float64(b.N), "B/session")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/session")
	for _, l := range append(lines, first) {
		l.Close()
	}
}
