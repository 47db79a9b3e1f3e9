package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// sendAndCompare sends bytes to an echo, ends the stream, and compares what comes back.
func sendAndCompare(t *testing.T, stream *mux.Stream, size int, seed byte) {
	t.Helper()
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(want)
	var sending sync.WaitGroup
	sending.Go(func() {
		stream.Write(want)
		stream.CloseWrite()
	})
	got, err := io.ReadAll(stream)
	sending.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d, equal: %v, %v", len(got), size, bytes.Equal(got, want), err)
	}
}

func TestFiftyStreamsKeepTheirBytes(t *testing.T) {
	t.Attr("id", "A1-bytes")
	t.Attr("cases", "50")
	synctest.Test(t, func(t *testing.T) {
		runtime, manager := newSite(t).up(echo)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServicePing})
				if err != nil {
					t.Error(err)
					return
				}
				sendAndCompare(t, stream, 10_000*i, byte(i))
			})
		}
		all.Wait()
		synctest.Wait()
		if runtime.Streams() != 0 || manager.Streams() != 0 {
			t.Errorf("%d and %d streams are left", runtime.Streams(), manager.Streams())
		}
	})
}

func TestHeaderReachesTheRuntimeAndRefusalTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked mux.Open
		runtime, manager := newSite(t).up(func(s *mux.Stream, o mux.Open) {
			asked = o
			s.Refuse(transport.Policy, "not this one")
		})
		want := mux.Open{Service: wire.ServiceTCP, Target: "192.0.2.7:502"}
		_, err := manager.Open(t.Context(), want)
		if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.Reason != transport.Policy || r.Text != "not this one" || asked != want {
			t.Errorf("asked for %+v, got %v", asked, err)
		}
		synctest.Wait()
		if runtime.Streams() != 0 || manager.Streams() != 0 {
			t.Errorf("%d and %d streams are left", runtime.Streams(), manager.Streams())
		}
	})
}

func TestHalfCloseIsCarriedAndMayLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, manager := newSite(t).up(func(s *mux.Stream, _ mux.Open) {
			s.Grant()
			question, _ := io.ReadAll(s)
			time.Sleep(time.Hour)
			s.Write(append(question, "!"...))
			s.Close()
		})
		stream, err := manager.Open(t.Context(), mux.Open{Service: wire.ServiceTCP})
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte("well"))
		stream.CloseWrite()
		if answer, err := io.ReadAll(stream); string(answer) != "well!" || err != nil {
			t.Errorf("got %q, %v", answer, err)
		}
		if _, err := stream.Write([]byte("x")); err == nil {
			t.Error("it took bytes after its end")
		}
	})
}

func TestAcceptHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newSite(t).join(t.Context())
		defer j.runtime.Close()
		defer j.manager.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := j.runtime.Accept(ctx); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	})
}
