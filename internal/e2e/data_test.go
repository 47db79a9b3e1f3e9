//go:build linux

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
)

// line counts what a gateway's connections would be on the line: the bytes of each segment or datagram with its headers
// (IPv4 20; TCP 32 with time stamps, UDP 8), and an acknowledgement for each segment that comes.
type line struct{ bytes, tcp, udp atomic.Int64 }

type lineConn struct {
	net.Conn
	line *line
	udp  bool
}

func (l *line) dial(next func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(network, "udp") {
			return &linePackets{lineConn{conn, l, true}, conn.(net.PacketConn)}, nil
		}
		l.pass(&l.tcp, 7*52+16) // three packets open it, four close it
		return &lineConn{conn, l, false}, nil
	}
}

func (l *line) pass(kind *atomic.Int64, bytes int) {
	l.bytes.Add(int64(bytes))
	kind.Add(int64(bytes))
}

func (c *lineConn) note(n, headers int) {
	switch segments := (n + 1447) / 1448; {
	case n <= 0:
	case c.udp:
		c.line.pass(&c.line.udp, n+28)
	default:
		c.line.pass(&c.line.tcp, n+segments*headers)
	}
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(n, 2*52)
	return n, err
}

func (c *lineConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(n, 52)
	return n, err
}

// linePackets is what a resolver takes for a socket of datagrams.
type linePackets struct {
	lineConn
	net.PacketConn
}

func (c *linePackets) Close() error                       { return c.Conn.Close() }
func (c *linePackets) LocalAddr() net.Addr                { return c.Conn.LocalAddr() }
func (c *linePackets) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(t) }
func (c *linePackets) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(t) }
func (c *linePackets) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(t) }

// sntp is a time server of a host.
func (w *world) sntp(addr netip.Addr) (stop func()) {
	pc, err := w.net.Host(addr).ListenPacket(123)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.task("sntp", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { pc.Close() })()
		for {
			q := make([]byte, 48)
			_, from, err := pc.ReadFrom(q)
			if err != nil {
				return err
			}
			now := time.Now()
			stamp := uint64(now.Unix()+2208988800)<<32 | uint64(now.Nanosecond())<<32/1e9
			r := make([]byte, 48) // RFC 5905 §7.3
			r[0], r[1], r[3] = 4<<3|4, 1, 0xec
			copy(r[24:], q[40:48])
			binary.BigEndian.PutUint64(r[16:], stamp)
			binary.BigEndian.PutUint64(r[32:], stamp)
			binary.BigEndian.PutUint64(r[40:], stamp)
			pc.WriteTo(r, from)
		}
	})
}

// TestIdleDayCostsLittle counts all that an idle gateway sends and receives in a day: control connection, measurements,
// time and names. It says the same itself.
func TestIdleDayCostsLittle(t *testing.T) {
	t.Attr("id", "W-idle")
	const most = 300_000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.tasks.Wait()
		stopAccess, stopRelay, stopDNS, stopTime := w.accessServer(), w.relayServer(), w.resolver(), w.sntp(accessAddr)
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		var all line
		o.DialContext = all.dial(o.DialContext)
		a, err := agent.New(o)
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		w.within(time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })
		time.Sleep(24*time.Hour - time.Minute)
		first := all.bytes.Load()
		if first > most {
			t.Errorf("the first day: %d bytes", first)
		}
		all.bytes.Store(0)
		all.tcp.Store(0)
		all.udp.Store(0)
		time.Sleep(24 * time.Hour)
		day, st := all.bytes.Load(), a.Status()
		t.Attr("count", fmt.Sprintf("bytes of an idle day=%d", day))
		t.Logf("%d bytes in the first day, %d in the second, of which %d are of TCP and %d of UDP; status %+v", first, day, all.tcp.Load(), all.udp.Load(), st.Data)
		if day > most || st.State != agent.StateAttached {
			t.Errorf("a day costs %d bytes, want at most %d; now %s", day, most, st.State)
		}
		if own := st.Data.DayBytes; own < day*90/100 || own > day*105/100 {
			t.Errorf("the gateway has counted %d bytes, the line %d", own, day)
		}
		if month := st.Data.MonthBytes; month < 27*day || month > 33*day {
			t.Errorf("the gateway expects %d bytes a month, a day costs %d", month, day)
		}
		for _, stop := range []func(){stopAgent, stopTime, stopRelay, stopAccess, stopDNS} {
			stop()
		}
	})
}
