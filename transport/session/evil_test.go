package session

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/relaytest"
	"hawser/transport/wire"
)

// evil is what a relay does to the k-th piece of one direction, or to the switch. It returns what goes on instead.
type evil func(k int, p relaytest.Piece, seen []relaytest.Piece) []relaytest.Piece

// at does f to the k-th piece after the switch, and nothing to the others.
func at(k int, f func(p relaytest.Piece, seen []relaytest.Piece) []relaytest.Piece) evil {
	return func(n int, p relaytest.Piece, seen []relaytest.Piece) []relaytest.Piece {
		if n == k && p.Kind == relaytest.Raw {
			return f(p, seen)
		}
		return []relaytest.Piece{p}
	}
}

func onSwitch(f func(p relaytest.Piece) []relaytest.Piece) evil {
	return func(_ int, p relaytest.Piece, _ []relaytest.Piece) []relaytest.Piece {
		if p.Kind == relaytest.Switch {
			return f(p)
		}
		return []relaytest.Piece{p}
	}
}

// A relay may do what it likes: what arrives is a beginning of what was sent, and nobody takes it for all of it.
func TestRelayThatDoesEvilIsFoundOut(t *testing.T) {
	type pieces = []relaytest.Piece
	cases := map[string]evil{
		"sends more in the record of the switch": onSwitch(func(p relaytest.Piece) pieces {
			return pieces{{Kind: relaytest.Switch, B: []byte("more")}}
		}),
		"sends a frame behind the switch": onSwitch(func(p relaytest.Piece) pieces {
			return pieces{p, {Kind: relaytest.Data, B: []byte("more")}}
		}),
		"doubles the switch":     onSwitch(func(p relaytest.Piece) pieces { return pieces{p, p} }),
		"swallows the switch":    onSwitch(func(p relaytest.Piece) pieces { return nil }),
		"holds the switch back":  onSwitch(func(p relaytest.Piece) pieces { time.Sleep(time.Minute); return pieces{p} }),
		"ends before the switch": onSwitch(func(p relaytest.Piece) pieces { return pieces{{Kind: relaytest.End}} }),
		"ends with the switch":   onSwitch(func(p relaytest.Piece) pieces { return pieces{p, {Kind: relaytest.End}} }),
	}
	for _, k := range []int{0, 1, 2, 5, 20} {
		for name, f := range map[string]func(p relaytest.Piece, seen []relaytest.Piece) []relaytest.Piece{
			"drops":   func(relaytest.Piece, []relaytest.Piece) pieces { return nil },
			"repeats": func(p relaytest.Piece, _ []relaytest.Piece) pieces { return pieces{p, p} },
			"replays the first": func(p relaytest.Piece, seen []relaytest.Piece) pieces {
				return pieces{seen[0], p}
			},
			"injects": func(p relaytest.Piece, _ []relaytest.Piece) pieces {
				return pieces{{Kind: relaytest.Raw, B: append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)}, p}
			},
			"flips a bit of": func(p relaytest.Piece, _ []relaytest.Piece) pieces {
				b := bytes.Clone(p.B)
				b[len(b)-1] ^= 1
				return pieces{{Kind: relaytest.Raw, B: b}}
			},
			"makes an alert of": func(p relaytest.Piece, _ []relaytest.Piece) pieces {
				return pieces{{Kind: relaytest.Raw, B: []byte{21, 3, 3, 0, 2, 1, 0}}, p}
			},
			"ends before": func(relaytest.Piece, []relaytest.Piece) pieces { return pieces{{Kind: relaytest.End}} },
			"ends after":  func(p relaytest.Piece, _ []relaytest.Piece) pieces { return pieces{p, {Kind: relaytest.End}} },
			"ends in the midst": func(p relaytest.Piece, _ []relaytest.Piece) pieces {
				return pieces{{Kind: relaytest.Raw, B: p.B[:len(p.B)/2]}, {Kind: relaytest.End}}
			},
		} {
			cases[fmt.Sprintf("%s record %d", name, k)] = at(k, f)
		}
		var held relaytest.Piece
		cases[fmt.Sprintf("swaps record %d with the next", k)] = func(n int, p relaytest.Piece, _ []relaytest.Piece) pieces {
			switch {
			case p.Kind == relaytest.Raw && n == k:
				held = p
				return nil
			case p.Kind == relaytest.Raw && n == k+1:
				return pieces{p, held}
			}
			return pieces{p}
		}
	}
	t.Attr("id", "R-evil")
	t.Attr("cases", fmt.Sprint(2*len(cases)))
	for name, f := range cases {
		for _, toRuntime := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, to the Runtime %v", name, toRuntime), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { suffer(t, newSite(t), toRuntime, f) })
			})
		}
	}
}

// suffer carries bytes both ways over a relay that does f in one direction.
func suffer(t *testing.T, s *site, toRuntime bool, f evil) {
	var mu sync.Mutex
	var seen []relaytest.Piece
	n := 0
	s.relay.Carry = func(w relaytest.Way, p relaytest.Piece) []relaytest.Piece {
		if w.ToRuntime != toRuntime {
			return []relaytest.Piece{p}
		}
		mu.Lock()
		k := n
		if p.Kind == relaytest.Raw {
			seen = append(seen, relaytest.Piece{Kind: p.Kind, B: bytes.Clone(p.B)})
			n++
		}
		before := seen
		mu.Unlock()
		return f(k, p, before)
	}
	want := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(want)
	j := s.join(t.Context())
	var ends sync.WaitGroup
	defer ends.Wait()
	if j.runtime != nil {
		ends.Go(func() {
			defer j.runtime.Close()
			serve(t, j.runtime, want)
			wantBroken(t, "runtime", j.runtime.Err())
		})
	}
	if j.manager == nil {
		return // it was not even taken for a session
	}
	defer j.manager.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := j.manager.Open(ctx, mux.Open{Service: wire.ServiceTCP})
	if err == nil {
		// A second at least, so that there are heartbeats as well.
		ends.Go(func() {
			for piece := range 100 {
				stream.Write(want[piece*10_000:][:10_000])
				time.Sleep(20 * time.Millisecond)
			}
		})
		got, _ := io.ReadAll(stream)
		wantBeginning(t, "manager", got, want)
	}
	<-j.manager.Done()
	wantBroken(t, "manager", j.manager.Err())
}

// serve sends back what comes, and wants it to be what was sent.
func serve(t *testing.T, runtime *Session, want []byte) {
	stream, err := runtime.Accept(t.Context())
	if err != nil {
		return
	}
	stream.Grant()
	var got bytes.Buffer
	io.Copy(stream, io.TeeReader(stream, &got))
	wantBeginning(t, "runtime", got.Bytes(), want)
	<-runtime.Done()
}

func wantBeginning(t *testing.T, who string, got, want []byte) {
	t.Helper()
	if !bytes.HasPrefix(want, got) {
		t.Errorf("%s: %d bytes arrived that are not those that were sent", who, len(got))
	}
}

// wantBroken wants an end that nobody takes for an orderly one.
func wantBroken(t *testing.T, who string, err error) {
	t.Helper()
	if reason := transport.ReasonOf(err); reason == transport.Closed || reason == transport.WrongPeer {
		t.Errorf("%s: ended with %v", who, err)
	}
}

// Two sessions of the same two ends have their own keys: what belongs to one is not taken in the other.
func TestRelayCannotSwapSessions(t *testing.T) {
	t.Attr("id", "R-evil")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var mu sync.Mutex
		swap := false
		record := make(map[string]relaytest.Piece) // by grant
		s.relay.Carry = func(w relaytest.Way, p relaytest.Piece) []relaytest.Piece {
			mu.Lock()
			defer mu.Unlock()
			if p.Kind != relaytest.Raw || !w.ToRuntime {
				return []relaytest.Piece{p}
			}
			if record[w.Grant] = p; !swap {
				return []relaytest.Piece{p}
			}
			for grant, other := range record {
				if grant != w.Grant {
					return []relaytest.Piece{other}
				}
			}
			return nil
		}
		one := s.join(t.Context())
		s.runtime.Offer.Grant, s.manager.Offer.Grant = "second", "second"
		two := s.join(t.Context())
		for _, j := range []joined{one, two} {
			if j.runtimeErr != nil || j.managerErr != nil {
				t.Fatal(j.runtimeErr, j.managerErr)
			}
			defer j.runtime.Close()
			defer j.manager.Close()
		}
		synctest.Wait()
		mu.Lock()
		swap = true
		mu.Unlock()
		<-one.runtime.Done()
		<-two.runtime.Done()
		wantBroken(t, "first", one.runtime.Err())
		wantBroken(t, "second", two.runtime.Err())
	})
}
