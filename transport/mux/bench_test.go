package mux

import (
	"sync"
	"testing"
	"time"

	"hawser/transport/wire"
)

func BenchmarkFrame(b *testing.B) {
	buf := make([]byte, 0, largeBytes)
	payload := make([]byte, maxData)
	b.SetBytes(maxData)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendFrame(buf[:0], typeData, 7, payload)
		if _, err := parseHeader(buf, wire.RoleManager); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCredit(b *testing.B) {
	c := newCredit(firstCredit, 4<<20)
	now := time.Now()
	grow := func(want int) int { return want }
	b.ReportAllocs()
	for b.Loop() {
		if err := c.received(maxData); err != nil {
			b.Fatal(err)
		}
		now = now.Add(time.Millisecond)
		c.consumed(maxData, now, 10*time.Millisecond, grow)
	}
}

// BenchmarkDataPath is everything of a stream but TLS and sockets, at both ends.
func BenchmarkDataPath(b *testing.B) {
	near, far := newEnds(newPath(0, 0), newPath(0, 0))
	manager, runtime := Start(near, config(wire.RoleManager)), Start(far, config(wire.RoleRuntime))
	defer runtime.Close()
	defer manager.Close()
	got := new(meter)
	var serving sync.WaitGroup
	serving.Go(func() {
		s, err := runtime.Accept(b.Context())
		if err != nil {
			return
		}
		s.Grant()
		s.WriteTo(got)
		s.CloseWrite()
	})
	s, err := manager.Open(b.Context(), Open{Service: wire.ServiceTCP})
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	s.CloseWrite()
	serving.Wait()
}
