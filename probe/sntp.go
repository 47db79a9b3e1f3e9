package probe

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/beevik/ntp"
)

const (
	ntpPort    = 123
	ntpTimeout = maxDelay // a later answer would not count: time §2
	triedAddrs = 2        // of a source, time §2
)

// SNTP measures what time servers say. The zero value uses the real network
// and a resolver of its own. Fields are set before the first use; methods
// are safe for concurrent use. It keeps no state: when to ask again, and to
// obey a kiss-o'-death, is the caller's.
type SNTP struct {
	// Resolve gives the addresses of a source. Nil means a new Resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial opens a connected "udp" socket to an IP literal with port. Nil
	// means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the local clock. Only differences of its readings are used, so
	// it may say 1970, but nobody may step it. Nil means time.Now.
	Now func() time.Time
}

// Round asks all sources at once and returns a sample for each, in their
// order, when the last one has answered or failed: within 10 s for the name
// and 6 s for the time.
func (c *SNTP) Round(ctx context.Context, sources []string) []Sample {
	samples := make([]Sample, len(sources))
	var wg sync.WaitGroup
	for i, source := range sources {
		wg.Go(func() { samples[i] = c.Query(ctx, source) })
	}
	wg.Wait()
	return samples
}

// Query asks one source, HOST or HOST:PORT (IPv6 with port in brackets), for
// the time. It measures only; Sample.Check judges. It blocks as Round does.
func (c *SNTP) Query(ctx context.Context, source string) Sample {
	host, port, ok := splitSource(source)
	if !ok {
		return failedSample(source, netip.AddrPort{}, ReasonBadSource, "want HOST or HOST:PORT")
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return failedSample(source, netip.AddrPort{}, ReasonDNS, err.Error())
	}
	s := failedSample(source, netip.AddrPort{}, ReasonDNS, "no address")
	for _, addr := range addrs[:min(len(addrs), triedAddrs)] {
		s = c.ask(ctx, source, netip.AddrPortFrom(addr, port))
		if s.Err == nil || ctx.Err() != nil {
			break
		}
	}
	return s
}

// ask makes one exchange with one address. The package ntp makes the packet
// and its arithmetic; picker, below it, ignores what is no answer.
func (c *SNTP) ask(ctx context.Context, source string, addr netip.AddrPort) Sample {
	ctx, cancel := context.WithTimeout(ctx, ntpTimeout)
	defer cancel()
	conn, err := c.dial(ctx, addr.String())
	if err != nil {
		return failedSample(source, addr, timeReason(ctx, err), err.Error())
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	p := &picker{Conn: conn}
	r, err := ntp.QueryWithOptions(addr.String(), ntp.QueryOptions{
		Timeout:       ntpTimeout,
		GetSystemTime: c.now, // also keeps the kernel's wall clock stamps out
		Dialer:        func(string, string) (net.Conn, error) { return p, nil },
	})
	if p.kiss() != "" { // whatever else is wrong with such an answer
		return Sample{Source: source, Addr: addr, Received: c.now(), Kiss: p.kiss()}
	}
	if err != nil {
		return failedSample(source, addr, timeReason(ctx, err), err.Error())
	}
	rtt := roundTrip(r.Timestamps)
	return Sample{
		Source:       source,
		Addr:         addr,
		Received:     r.Timestamps.ClientRecv,
		At:           r.Timestamps.ServerXmit.Add(rtt / 2),
		RTT:          rtt,
		RootDistance: r.RootDistance,
		Stratum:      r.Stratum,
		Leap:         uint8(r.Leap),
		ZeroStamp:    p.zeroStamp(),
	}
}

// roundTrip is the time on the way: elapsed here less what the server says it
// kept the packet. Below zero it is a lie, which Check refuses; only as much
// as coarse clocks may be off is forgiven.
func roundTrip(t ntp.ProtocolTimestamps) time.Duration {
	rtt := t.ClientRecv.Sub(t.ClientXmit) - t.ServerXmit.Sub(t.ServerRecv)
	if -minSpread <= rtt && rtt < 0 {
		return 0
	}
	return rtt
}

// timeReason sorts an error of the exchange.
func timeReason(ctx context.Context, err error) Reason {
	var netErr net.Error
	switch {
	case errors.Is(err, ntp.ErrInvalidTransmitTime):
		return ReasonZeroStamp
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonTimeout
	case errors.As(err, &netErr):
		return ReasonUnreachable
	}
	return ReasonBadReply
}

func asTimeError(source string, err error) *TimeError {
	if te, ok := errors.AsType[*TimeError](err); ok {
		return te
	}
	return &TimeError{Source: source, Reason: ReasonBadReply, Detail: err.Error()}
}

func failedSample(source string, addr netip.AddrPort, r Reason, detail string) Sample {
	return Sample{Source: source, Addr: addr, Err: &TimeError{Source: source, Reason: r, Detail: detail}}
}

// splitSource takes HOST, HOST:PORT, an IP literal or [IPv6]:PORT apart.
func splitSource(source string) (host string, port uint16, ok bool) {
	if addr, err := netip.ParseAddr(source); err == nil {
		return addr.String(), ntpPort, true
	}
	if !strings.Contains(source, ":") {
		return source, ntpPort, source != ""
	}
	host, text, err := net.SplitHostPort(source)
	n, perr := strconv.ParseUint(text, 10, 16)
	return host, uint16(n), err == nil && perr == nil && host != "" && n != 0
}

func (c *SNTP) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if c.Resolve != nil {
		return c.Resolve(ctx, host)
	}
	return new(Resolver).Resolve(ctx, host)
}

func (c *SNTP) dial(ctx context.Context, address string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, "udp", address)
	}
	return new(net.Dialer).DialContext(ctx, "udp", address)
}

func (c *SNTP) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// Where things are in a packet, RFC 5905 §7.3.
const (
	packetBytes   = 48
	stratumByte   = 1
	pollByte      = 2
	precisionByte = 3
	referenceID   = 12
	originStamp   = 24
	receiveStamp  = 32
	transmitStamp = 40
	stampBytes    = 8
	serverMode    = 4
	modeMask      = 7
)

// picker is a connection that reads only what answers the packet written to
// it. The package ntp itself gives up at the first datagram that does not,
// which would let anybody who can send datagrams stop the exchange (time §2).
type picker struct {
	net.Conn
	query  []byte
	answer [packetBytes]byte // the head of what was let through
}

func (p *picker) Write(b []byte) (int, error) {
	p.query = bytes.Clone(b)
	return p.Conn.Write(b)
}

func (p *picker) Read(b []byte) (int, error) {
	for {
		n, err := p.Conn.Read(b)
		if err != nil {
			return n, err
		}
		if answers(p.query, b[:n]) {
			copy(p.answer[:], b)
			// Nobody needs poll and precision, and beevik/ntp v1.6.0 panics
			// when one of them is -128 (a shift by a negative count).
			b[pollByte], b[precisionByte] = 0, 0
			return n, nil
		}
	}
}

// answers says whether reply is a server's packet that repeats the 64 random
// bits of query. It is pure.
func answers(query, reply []byte) bool {
	return len(query) >= packetBytes && len(reply) >= packetBytes && reply[0]&modeMask == serverMode &&
		bytes.Equal(stamp(query, transmitStamp), stamp(reply, originStamp))
}

func stamp(packet []byte, at int) []byte { return packet[at : at+stampBytes] }

// kiss returns the code of a kiss-o'-death (RFC 5905 §7.4), "" if the answer
// is none, and "?" for each byte of a code that nobody could read. A server
// that is merely not synchronised sends stratum 0, too, but no code at all.
func (p *picker) kiss() string {
	code := bytes.Clone(p.answer[referenceID : referenceID+4])
	if p.answer[0]&modeMask != serverMode || p.answer[stratumByte] != 0 || bytes.Equal(code, make([]byte, 4)) {
		return ""
	}
	for i, c := range code {
		if c < 'A' || c > 'Z' {
			code[i] = '?'
		}
	}
	return string(code)
}

// zeroStamp is true if the server left a stamp out that is counted with.
func (p *picker) zeroStamp() bool {
	var zero [stampBytes]byte
	return bytes.Equal(stamp(p.answer[:], receiveStamp), zero[:]) || bytes.Equal(stamp(p.answer[:], transmitStamp), zero[:])
}
