package probe

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/beevik/ntp"

	"hawser/transport"
)

const (
	ntpPort    = 123
	ntpTimeout = maxDelay // a later answer would not count: time §2
	triedAddrs = 2        // of a source, time §2
)

// SNTP measures what time servers say. The zero value uses the real network
// and a resolver of its own. Fields are set before the first use; methods
// are safe for concurrent use. It keeps no state: the caller decides when to ask
// again, and honours a kiss-o'-death.
type SNTP struct {
	// Resolve gives the addresses of a source. Nil means a new Resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial opens a connected "udp" socket to an IP literal with port. Nil
	// means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the local clock. Only differences of its readings are used, so it
	// may be wrong, but it must not be set in between. Nil means time.Now.
	Now func() time.Time
}

// Round asks all sources at once and returns a sample for each, in their order, when the last one has answered or
// failed: within 10 s for the name and 6 s for the time. At once, because one dead server must not delay what the
// others say.
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
	host, port, ok := SplitSource(source)
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

// ask makes one exchange with one address. Package ntp makes the packet and computes
// the offset; below it, picker drops datagrams that are no answer.
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
		GetSystemTime: c.now, // and no stamps of the kernel, which are of the wall clock
		Dialer:        func(string, string) (net.Conn, error) { return p, nil },
	})
	if p.kiss() != "" { // before err: such an answer is wrong in other fields as well
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

// roundTrip is the time that passed here, less the time that the server says it needed
// for its answer. Check refuses a negative one, because the server's stamps are then
// wrong; a small one comes from coarse clocks and counts as zero.
func roundTrip(t ntp.ProtocolTimestamps) time.Duration {
	rtt := t.ClientRecv.Sub(t.ClientXmit) - t.ServerXmit.Sub(t.ServerRecv)
	if -minSpread <= rtt && rtt < 0 {
		return 0
	}
	return rtt
}

// timeReason returns the reason for an error of the exchange.
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

// SplitSource is transport.SplitHost with the port of NTP where none is given.
func SplitSource(source string) (host string, port uint16, ok bool) {
	host, p, err := transport.SplitHost(source)
	if p == 0 {
		p = ntpPort
	}
	return host, uint16(p), err == nil
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

// picker is a connection that reads only the answer to the packet written to it. Package ntp gives up at the first
// other datagram, so anybody who can send one could stop the exchange (time §2). The 64 random bits are all that
// protects an exchange in the clear; the source port and address are the kernel's part.
type picker struct {
	net.Conn
	query  []byte
	answer [packetBytes]byte // the first bytes of the answer
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
			// Poll and precision are not used, and beevik/ntp v1.6.0 panics
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

// kiss returns the code of a kiss-o'-death (RFC 5905 §7.4), or "" if the answer is
// none; bytes that are no capital letters become "?". A server that is not
// synchronised sends stratum 0 as well, but no code.
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

// zeroStamp is true if the server left out a stamp that the offset needs.
func (p *picker) zeroStamp() bool {
	var zero [stampBytes]byte
	return bytes.Equal(stamp(p.answer[:], receiveStamp), zero[:]) || bytes.Equal(stamp(p.answer[:], transmitStamp), zero[:])
}
