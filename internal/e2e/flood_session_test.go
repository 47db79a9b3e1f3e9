//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A session that runs notices nothing of a flood, at the relay's door too: its bytes come back, and it opens more streams.
func TestASessionGoesOnThroughAFlood(t *testing.T) {
	t.Attr("id", "L-flood")
	in := newInfra(t)
	echo := machine(t, func(c net.Conn) { io.Copy(c, c) })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	g.reaches(in.home)
	live := start(t, "hawser", "--home", in.home, "connect", g.name, "-L", "0:"+echo)
	forward, _, _ := strings.Cut(strings.TrimPrefix(live.line("forward "), "forward "), " ")
	dial := func() net.Conn {
		t.Helper()
		c, err := (&net.Dialer{Timeout: patience}).Dial("tcp", forward)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(2 * patience))
		return c
	}
	exchange := func(c net.Conn, text string) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("%s: %q, %v", text, got, err)
		}
	}
	first := dial()
	defer first.Close()
	exchange(first, "before the flood")

	kinds := append(attacks(10), &attack{name: "at the relay", n: 500, relay: true, act: hold})
	ctx, cancel := context.WithCancel(t.Context())
	f := &flood{load: &load{infra: in}, sources: 200}
	var attackers sync.WaitGroup
	defer attackers.Wait()
	defer cancel()
	for i := range kinds {
		attackers.Go(func() { f.run(ctx, kinds[i]) })
	}
	f.underWay(kinds)
	for i := range 100 {
		exchange(first, fmt.Sprint("byte ", i))
	}
	for i := range 20 {
		c := dial()
		exchange(c, fmt.Sprint("stream ", i))
		c.Close()
	}
	select {
	case l := <-live.lines:
		if strings.Contains(l, "session") {
			t.Errorf("the session says %s", l)
		}
	default:
	}
	for i := range kinds {
		if kinds[i].begun.Load() == 0 {
			t.Errorf("nobody of %q has begun", kinds[i].name)
		}
	}
	t.Attr("cases", "120")
}
