package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

// The time server in these tests is a fake: real ones cannot be told to lie,
// to forge or to name an instant of 2036. Real ones are met in the lab.

// packet is an answer to be encoded, field by field (RFC 5905 §7.3).
type packet struct {
	leap, mode, stratum   byte
	delay, dispersion     uint32 // seconds, 16.16
	kiss                  string
	origin, receive, xmit uint64 // 32.32
}

func (p packet) encode() []byte {
	b := make([]byte, packetBytes)
	b[0], b[1] = p.leap<<6|4<<3|p.mode, p.stratum
	binary.BigEndian.PutUint32(b[4:], p.delay)
	binary.BigEndian.PutUint32(b[8:], p.dispersion)
	copy(b[12:16], p.kiss)
	binary.BigEndian.PutUint64(b[24:], p.origin)
	binary.BigEndian.PutUint64(b[32:], p.receive)
	binary.BigEndian.PutUint64(b[40:], p.xmit)
	return b
}

// stampOf is t as an NTP stamp: seconds since 1900 modulo 2^32.
func stampOf(t time.Time) uint64 {
	const unixEpoch = 2_208_988_800
	frac := uint64(t.Nanosecond()) << 32 / 1e9
	return uint64(uint32(t.Unix()+unixEpoch))<<32 | frac
}

// truthful is what a good server at the time at answers to query.
func truthful(query []byte, at time.Time) packet {
	s := stampOf(at)
	return packet{mode: serverMode, stratum: 2, origin: binary.BigEndian.Uint64(query[40:]), receive: s, xmit: s}
}

type timeRig struct {
	t    *testing.T
	net  *memnet.Network
	sntp *SNTP
}

// timeBubble runs f with a network of 20 ms, and a client whose clock starts
// at 1970.
func timeBubble(t *testing.T, f func(r *timeRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(20 * time.Millisecond)
		client := n.Host(netip.MustParseAddr("192.0.2.100"))
		boot := time.Now()
		f(&timeRig{t: t, net: n, sntp: &SNTP{
			Dial: client.DialContext,
			Now:  func() time.Time { return time.Unix(0, 0).Add(time.Since(boot)) },
		}})
	})
}

// server starts a fake that sends what answer returns.
func (r *timeRig) server(addr string, answer func(query []byte) [][]byte) {
	r.t.Helper()
	pc, err := r.net.Host(netip.MustParseAddr(addr)).ListenPacket(ntpPort)
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1024)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range answer(bytes.Clone(buf[:n])) {
				pc.WriteTo(b, from)
			}
		}
	}()
	r.t.Cleanup(func() { pc.Close(); <-done })
}

// one answers with a single packet, changed from a truthful one.
func one(at time.Time, change func(*packet)) func([]byte) [][]byte {
	return func(query []byte) [][]byte {
		p := truthful(query, at)
		change(&p)
		return [][]byte{p.encode()}
	}
}

func reasonOf(err error) Reason {
	if te, ok := errors.AsType[*TimeError](err); ok {
		return te.Reason
	}
	return ""
}

var (
	testFloor   = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	testCeiling = testFloor.AddDate(15, 0, 0)
	truth       = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
)

func TestClockOf1970LearnsTheTime(t *testing.T) {
	for _, at := range []time.Time{
		truth,
		time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC), // last second of era 0
		time.Date(2036, 2, 7, 6, 28, 16, 1, time.UTC), // first of era 1
		time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
	} {
		t.Run(at.Format(time.DateTime), func(t *testing.T) {
			timeBubble(t, func(r *timeRig) {
				r.server("192.0.2.1", one(at, func(*packet) {}))
				s := r.sntp.Query(r.t.Context(), "192.0.2.1")
				if err := s.Check(testFloor, testCeiling); err != nil {
					t.Fatal(err)
				}
				want := at.Add(20 * time.Millisecond) // the answer's way back
				if d := unfold(s.At, testFloor).Sub(want); d.Abs() > time.Microsecond {
					t.Errorf("got %v, want %v", s.At, want)
				}
				if s.RTT != 40*time.Millisecond || s.RootDistance != 20*time.Millisecond || s.Stratum != 2 {
					t.Errorf("facts %+v", s)
				}
				if local := s.Received.Sub(time.Unix(0, 0)); local != 40*time.Millisecond {
					t.Errorf("received at %v of the local clock", local)
				}
			})
		})
	}
}

func TestAnswersThatDoNotCount(t *testing.T) {
	tests := []struct {
		name   string
		change func(*packet)
		want   Reason
	}{
		{"true", func(*packet) {}, ""},
		{"stratum 15", func(p *packet) { p.stratum = 15 }, ""},
		{"stratum 16", func(p *packet) { p.stratum = 16 }, ReasonStratum},
		{"stratum 255", func(p *packet) { p.stratum = 255 }, ReasonStratum},
		{"stratum 0 without a code", func(p *packet) { p.stratum = 0 }, ReasonStratum},
		{"stratum 0 of a server that is not synchronised", func(p *packet) { p.stratum, p.leap = 0, 3 }, ReasonUnsynchronized},
		{"leap indicator 1", func(p *packet) { p.leap = 1 }, ""},
		{"leap indicator 3", func(p *packet) { p.leap = 3 }, ReasonUnsynchronized},
		{"transmit stamp zero", func(p *packet) { p.xmit, p.receive = 0, 0 }, ReasonZeroStamp},
		{"receive stamp zero", func(p *packet) { p.receive = 0 }, ReasonZeroStamp},
		{"kiss RATE", func(p *packet) { p.stratum, p.leap, p.kiss = 0, 3, "RATE" }, ReasonKiss},
		{"kiss DENY with stamps of zero", func(p *packet) { p.stratum, p.kiss, p.xmit, p.receive = 0, "DENY", 0, 0 }, ReasonKiss},
		{"kiss of rubbish", func(p *packet) { p.stratum, p.kiss = 0, "\x00\xff\n!" }, ReasonKiss},
		{"root distance at the limit", func(p *packet) { p.dispersion = 0x17ae1 }, ""}, // 1.47999 s + half of 40 ms
		{"root distance above", func(p *packet) { p.dispersion = 0x17b00 }, ReasonRootDistance},
		{"root delay above", func(p *packet) { p.delay = 3 << 16 }, ReasonRootDistance},
		{"before the floor", func(p *packet) { p.xmit = stampOf(testFloor.Add(-time.Minute)); p.receive = p.xmit }, ReasonBeforeFloor},
		{"ten years beyond the ceiling", func(p *packet) { p.xmit = stampOf(testCeiling.AddDate(10, 0, 0)); p.receive = p.xmit }, ReasonBeyondCeiling},
		{"ticking backwards", func(p *packet) { p.receive = p.xmit + 1 }, ReasonBadReply},
		{"claims to have kept it for a day", func(p *packet) { p.receive = stampOf(truth.AddDate(0, 0, -1)) }, ReasonDelay},
		{"kept it 9 ms longer than there was", func(p *packet) { p.receive = stampOf(truth.Add(-49 * time.Millisecond)) }, ""},
		{"mode 3", func(p *packet) { p.mode = 3 }, ReasonTimeout},
		{"mode 5", func(p *packet) { p.mode = 5 }, ReasonTimeout},
		{"origin of another", func(p *packet) { p.origin++ }, ReasonTimeout},
		{"origin zero", func(p *packet) { p.origin = 0 }, ReasonTimeout},
		{"forged kiss", func(p *packet) { p.origin, p.stratum, p.kiss = 0, 0, "DENY" }, ReasonTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			timeBubble(t, func(r *timeRig) {
				r.server("192.0.2.1", one(truth, tt.change))
				err := r.sntp.Query(r.t.Context(), "192.0.2.1").Check(testFloor, testCeiling)
				if reasonOf(err) != tt.want {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			})
		})
	}
}

// A flood of forged answers, short ones and long ones, does not end the
// exchange: the true answer after them is taken.
func TestForgedTimeIsNotAccepted(t *testing.T) {
	timeBubble(t, func(r *timeRig) {
		const forged = 10_000
		r.server("192.0.2.1", func(query []byte) [][]byte {
			p := truthful(query, truth.AddDate(5, 0, 0))
			right := p.origin
			var all [][]byte
			for i := range uint64(forged) {
				p.origin = right ^ (i + 1) ^ i<<50
				all = append(all, p.encode())
			}
			p.origin = right
			all = append(all, nil, []byte{0x24}, p.encode()[:packetBytes-1])
			return append(all, truthful(query, truth).encode())
		})
		s := r.sntp.Query(r.t.Context(), "192.0.2.1")
		if err := s.Check(testFloor, testCeiling); err != nil || s.At.Sub(truth) != 20*time.Millisecond {
			t.Errorf("got %v, %v", s.At, err)
		}
		t.Logf("%d forged answers, 0 accepted", forged)
	})
}

func TestDelayAboveThreeSecondsIsSilence(t *testing.T) {
	timeBubble(t, func(r *timeRig) {
		r.net.SetLatency(1600 * time.Millisecond)
		r.server("192.0.2.1", one(truth, func(*packet) {}))
		start := time.Now()
		err := r.sntp.Query(r.t.Context(), "192.0.2.1").Err
		if reasonOf(err) != ReasonTimeout || time.Since(start) != ntpTimeout {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestSourceWithADeadAddressUsesTheOther(t *testing.T) {
	timeBubble(t, func(r *timeRig) {
		r.server("192.0.2.2", one(truth, func(*packet) {}))
		r.sntp.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, nil
		}
		s := r.sntp.Query(r.t.Context(), "time.example")
		if s.Err != nil || s.Source != "time.example" || s.Addr != netip.MustParseAddrPort("192.0.2.2:123") {
			t.Errorf("got %+v", s)
		}
	})
}

func TestRoundAsksAllAtOnceAndEndsWithItsContext(t *testing.T) {
	timeBubble(t, func(r *timeRig) {
		r.server("192.0.2.1", one(truth, func(*packet) {}))
		r.server("192.0.2.3", func([]byte) [][]byte { return nil })
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		samples := r.sntp.Round(ctx, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"})
		if d := time.Since(start); d != time.Second {
			t.Errorf("took %v", d)
		}
		want := []Reason{"", ReasonTimeout, ReasonTimeout}
		for i, s := range samples {
			if reasonOf(s.Err) != want[i] {
				t.Errorf("source %s: %v, want %q", s.Source, s.Err, want[i])
			}
		}
	})
}

func TestQueryThatCannotBeSent(t *testing.T) {
	broken := errors.New("broken")
	dead := &SNTP{
		Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, broken },
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: broken}
		},
	}
	tests := []struct {
		source string
		want   Reason
	}{
		{"time.example", ReasonDNS}, {"time.example:123", ReasonDNS}, {"192.0.2.1", ReasonDNS},
		{"", ReasonBadSource}, {":123", ReasonBadSource}, {"a:b:c", ReasonBadSource}, {"a:0", ReasonBadSource},
		{"a:65536", ReasonBadSource}, {"[::1", ReasonBadSource},
	}
	for _, tt := range tests {
		if s := dead.Query(t.Context(), tt.source); reasonOf(s.Err) != tt.want || s.Source != tt.source {
			t.Errorf("%q: %v, want %s", tt.source, s.Err, tt.want)
		}
	}
	dead.Resolve = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{addr1}, nil }
	if s := dead.Query(t.Context(), "time.example"); reasonOf(s.Err) != ReasonUnreachable {
		t.Errorf("got %v", s.Err)
	}
}

func TestSourceForms(t *testing.T) {
	tests := []struct {
		source, host string
		port         uint16
	}{
		{"time.example", "time.example", 123}, {"time.example:1123", "time.example", 1123}, {"192.0.2.1", "192.0.2.1", 123},
		{"192.0.2.1:9", "192.0.2.1", 9}, {"2001:db8::1", "2001:db8::1", 123}, {"[2001:db8::1]:9", "2001:db8::1", 9},
	}
	for _, tt := range tests {
		if host, port, ok := SplitSource(tt.source); !ok || host != tt.host || port != tt.port {
			t.Errorf("%q: %q %d %v", tt.source, host, port, ok)
		}
	}
}

// The zero value's own path: real sockets, the real clock.
func TestRealTimeServer(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, packetBytes)
		if _, from, err := pc.ReadFrom(buf); err == nil {
			pc.WriteTo(truthful(buf, truth).encode(), from)
		}
	}()
	s := new(SNTP).Query(t.Context(), pc.LocalAddr().String())
	pc.Close()
	<-done
	if err := s.Check(testFloor, testCeiling); err != nil {
		t.Error(err)
	}
}

// stubConn answers what is written to it with one fixed packet, then ends.
type stubConn struct {
	net.Conn
	reply   []byte
	genuine bool // put the right origin in
}

func (c *stubConn) Write(b []byte) (int, error) {
	if c.genuine && len(c.reply) >= packetBytes {
		copy(c.reply[originStamp:], b[transmitStamp:packetBytes])
	}
	return len(b), nil
}

func (c *stubConn) Read(b []byte) (n int, err error) {
	if c.reply == nil {
		return 0, os.ErrDeadlineExceeded
	}
	n, c.reply = copy(b, c.reply), nil
	return n, nil
}

func (*stubConn) Close() error                { return nil }
func (*stubConn) SetDeadline(time.Time) error { return nil }

func FuzzTimeReply(f *testing.F) {
	query := make([]byte, packetBytes)
	f.Add(truthful(query, truth).encode(), true)
	f.Add(truthful(query, truth).encode(), false)
	f.Add(packet{mode: serverMode, kiss: "RATE"}.encode(), true)
	f.Add(packet{mode: serverMode, stratum: 1, delay: 1<<32 - 1, dispersion: 1<<32 - 1, receive: 1, xmit: 1<<64 - 1}.encode(), true)
	f.Add([]byte{0x24}, true)
	for _, at := range []int{pollByte, precisionByte} { // found by this target: a panic in the package ntp
		b := truthful(query, truth).encode()
		b[at] = 0x80
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, reply []byte, genuine bool) {
		conn := &stubConn{reply: bytes.Clone(reply), genuine: genuine}
		c := &SNTP{
			Resolve: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{addr1}, nil },
			Dial:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			Now:     func() time.Time { return time.Unix(0, 0) },
		}
		s := c.Query(t.Context(), "time.example")
		if !genuine {
			if s.Err == nil {
				t.Fatalf("accepted without the right origin: %+v", s)
			}
			return
		}
		v := Combine([]Sample{s}, 1, testFloor, testCeiling)
		if v.Plausible != (s.Check(testFloor, testCeiling) == nil) {
			t.Fatalf("verdict %+v of %+v", v, s)
		}
		if v.Plausible && (v.Time.Before(testFloor) || v.Time.After(testCeiling) || v.Uncertainty > maxRootDistance) {
			t.Fatalf("believed %v ± %v", v.Time, v.Uncertainty)
		}
	})
}
