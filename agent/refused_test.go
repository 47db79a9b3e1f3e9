package agent

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board/boardtest"
	"hawser/transport"
	"hawser/transport/accesstest"
)

func TestTheLogSaysOnceAMinuteWhyStreamsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refused
		anna, ben := refusedKind{transport.Policy, "anna"}, refusedKind{transport.Policy, "ben"}
		count := func(kind refusedKind, times int) (said, more int) {
			for range times {
				if n, ok := r.say(kind, time.Now()); ok {
					said, more = said+1, more+n
				}
			}
			return said, more
		}
		if said, more := count(anna, 100); said != 1 || more != 0 {
			t.Errorf("said %d times, and of %d more", said, more)
		}
		if said, _ := count(ben, 1); said != 1 {
			t.Error("nothing is said of another user")
		}
		if said, _ := count(refusedKind{transport.Busy, "anna"}, 1); said != 1 {
			t.Error("nothing is said of another reason")
		}
		time.Sleep(refusedEvery)
		if said, more := count(anna, 2); said != 1 || more != 99 {
			t.Errorf("a minute later said %d times, and of %d more", said, more)
		}
		if len(r.said) != 1 {
			t.Errorf("%d are remembered of whom nothing is left to say", len(r.said)-1)
		}
	})
}

// ownConn is a connection from an address to itself.
type ownConn struct{ net.Conn }

func (c ownConn) LocalAddr() net.Addr { return c.RemoteAddr() }

// An address may become the gateway's own between the look at the policy and the dial.
func TestAConnectionToTheGatewayItselfIsRefused(t *testing.T) {
	attachedRigWith(t, func(r *rig) {
		dial := r.opts.DialContext
		r.opts.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err == nil && addr == "192.168.10.20:503" {
				conn = ownConn{conn}
			}
			return conn, err
		}
	}, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, "s1", "tcp")
		if _, reason := openTCP(r, s, "192.168.10.20:503"); reason != transport.Policy {
			t.Errorf("a stream to the gateway itself: %q, want %s", reason, transport.Policy)
		}
		if _, reason := openTCP(r, s, "192.168.10.20:502"); reason != "" {
			t.Errorf("a stream to a machine: %s", reason)
		}
		s.Close()
	})
}

func TestARuleThatNamesTheGatewayCountsAfterTheDialToo(t *testing.T) {
	itself := netip.MustParseAddrPort("192.168.10.20:503")
	for rule, want := range map[string]bool{"192.168.10.20:503": true, "192.168.10.0/24:503": false} {
		p := NewPolicy(rules(t, rule), must(Around(boardtest.New(time.Now())))(t))
		if ok, why := p.Judge(itself); !ok {
			t.Errorf("%s does not allow the machine: %s", rule, why)
		}
		if ok, why := p.Reached(itself); ok != want {
			t.Errorf("%s allows the gateway itself: %v, %s", rule, ok, why)
		}
		if ok, _ := p.Judge(itself); !ok {
			t.Errorf("%s: one connection has changed the policy of the others", rule)
		}
	}
}
