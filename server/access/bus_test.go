package access

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// busNode is a node that remembers what it hears and answers in capitals.
type busNode struct {
	leave  func()
	heard  chan string
	missed chan bool
}

func attend(t *testing.T, b Bus, name string) *busNode {
	t.Helper()
	n := &busNode{heard: make(chan string, 1000), missed: make(chan bool, 10)}
	leave, err := b.Attend(name, BusHandler{
		Hear: func(m []byte) { n.heard <- string(m) },
		Answer: func(ctx context.Context, q []byte) []byte {
			if string(q) == "wait" {
				<-ctx.Done()
			}
			return []byte(name + " " + strings.ToUpper(string(q)))
		},
		Missed: func() { n.missed <- true },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.leave = sync.OnceFunc(leave)
	t.Cleanup(n.leave)
	return n
}

// TestBusContract is what every Bus must do, both of ours alike.
func TestBusContract(t *testing.T) {
	kinds := map[string]func(t *testing.T) (one, two Bus){
		"memory": func(*testing.T) (one, two Bus) { b := NewBus(); return b, b },
		"nats": func(t *testing.T) (one, two Bus) {
			rig := startNATS(t)
			_, one = rig.open()
			_, two = rig.open()
			return one, two
		},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			one, two := kind(t)
			a1, a2 := attend(t, one, "a1"), attend(t, two, "a2")
			t.Run("news", func(t *testing.T) { contractNews(t, one, a1, a2) })
			t.Run("questions", func(t *testing.T) { contractQuestions(t, one, a2) })
		})
	}
}

// All nodes hear all of one publisher, in order.
func contractNews(t *testing.T, b Bus, nodes ...*busNode) {
	var want []string
	for _, m := range strings.Fields("one two three four") {
		want = append(want, m)
		if err := b.Publish(t.Context(), []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		var got []string
		for range want {
			got = append(got, <-n.heard)
		}
		if !slices.Equal(got, want) {
			t.Errorf("heard %v", got)
		}
	}
}

func contractQuestions(t *testing.T, b Bus, other *busNode) {
	var all sync.WaitGroup
	waiting := make(chan error, 1)
	all.Go(func() {
		_, err := b.Request(t.Context(), "a2", []byte("wait")) // until the node leaves
		waiting <- err
	})
	for range 20 {
		all.Go(func() {
			if got, err := b.Request(t.Context(), "a2", []byte("how")); err != nil || string(got) != "a2 HOW" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if got, err := b.Request(t.Context(), "a1", []byte("self")); err != nil || string(got) != "a1 SELF" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Request(ctx, "a2", []byte("wait")); !errors.Is(err, ErrAway) {
		t.Errorf("no answer in time: %v", err)
	}
	if _, err := b.Request(t.Context(), "a3", nil); !errors.Is(err, ErrNoNode) {
		t.Errorf("nobody: %v", err)
	}
	other.leave()
	<-waiting // answered, or not: it does not hang
	all.Wait()
	if _, err := b.Request(t.Context(), "a2", nil); !errors.Is(err, ErrNoNode) {
		t.Errorf("left: %v", err)
	}
}

// Whoever was cut off from the bus is told that something may be missing.
func TestNATSBusSaysThatSomethingWasMissed(t *testing.T) {
	rig := startNATS(t)
	_, b := rig.open()
	n := attend(t, b, "a1")
	rig.stop()
	until(t, "the bus knows that it is cut off", func() bool { return errors.Is(b.Publish(t.Context(), []byte("lost")), ErrAway) })
	if _, err := b.Request(t.Context(), "a1", []byte("lost")); !errors.Is(err, ErrAway) {
		t.Errorf("request: %v", err)
	}
	rig.start()
	<-n.missed
	if err := b.Publish(t.Context(), []byte("again")); err != nil {
		t.Error(err)
	}
	if got := <-n.heard; got != "again" {
		t.Errorf("heard %q", got)
	}
}
