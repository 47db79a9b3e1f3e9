package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What an idle link costs, in bytes on the line (wire §4.6.2).
const (
	exchangeBytes = 212    // a ping and its pong
	measureBytes  = 8_000  // one relay measured: handshake and echoes
	restBytes     = 12_000 // a day: SNTP, names, signed time
	monthDays     = 30

	usualHeartbeat = 2 * time.Minute // until a server has said its own
	dayTime        = 24 * time.Hour
)

// idlePlan is how an idle link keeps to a budget. A value, so that tests compare whole plans and status shows the same
// numbers by which the link pings.
type idlePlan struct {
	interval time.Duration // between two pings
	measure  time.Duration // between two relays that are measured without need; 0: none is
	over     int64         // bytes a month that the budget is short of
}

// dayBytes is what a day of the plan costs.
func (p idlePlan) dayBytes() int64 {
	bytes := int64(restBytes) + int64(dayTime)*exchangeBytes/int64(p.interval)
	if p.measure > 0 {
		bytes += measureBytes * int64(dayTime) / int64(p.measure)
	}
	return bytes
}

// planIdle decides what to do without for a budget of bytes a month, 0: without limit.
// It is pure. Measurements go first, then the interval grows up to what the way bears:
// limit, or the longest that there is while limit is 0.
func planIdle(heartbeat, limit time.Duration, budget int64) idlePlan {
	p := idlePlan{interval: heartbeat, measure: measureIdle}
	if limit > 0 {
		p.interval = min(p.interval, limit)
	}
	if budget == 0 {
		return p
	}
	for _, p.measure = range []time.Duration{measureIdle, measureAll, 0} {
		if p.over = p.dayBytes()*monthDays - budget; p.over <= 0 {
			p.over = 0
			return p
		}
	}
	longest := longestIdle
	if limit > 0 {
		longest = min(longest, limit)
	}
	// Without budget for pings at all it pings rarely and stays reachable: a gateway that nobody can reach saves
	// nothing.
	p.interval = longest
	if pings := budget/monthDays - restBytes; pings > 0 {
		p.interval = min(longest, time.Duration(int64(dayTime)*exchangeBytes/pings)+time.Second)
	}
	// Whole seconds after one was added above: rounding down alone would go over the budget by a few pings a day.
	p.interval = max(p.interval.Truncate(time.Second), leastIdle)
	p.over = max(p.dayBytes()*monthDays-budget, 0)
	return p
}

// month estimates the bytes of a month from those that were counted in a time, at most
// the last day; the plan stands for what is missing of that day.
func month(counted int64, span time.Duration, p idlePlan) int64 {
	if missing := dayTime - span; missing > 0 {
		counted += int64(float64(p.dayBytes()) * missing.Hours() / 24)
	}
	return counted * monthDays
}

// parseBudget reads heartbeat.budget_mb_per_month; a MB is a million bytes. Mobile tariffs count in these and not in
// MiB; zero is refused, since it reads like "nothing" and would mean "no limit".
func parseBudget(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n > 1_000_000 {
		return 0, fmt.Errorf("%.64q: want whole megabytes, 1 to 1000000; leave the key out for no limit", s)
	}
	return int64(n) * 1_000_000, nil
}

// DataStatus is what being reachable costs: the control connection, measurements, time
// and names, with the headers of TCP, UDP and IP. Sessions are not in it.
type DataStatus struct {
	DayBytes    int64 `json:"day_bytes"`    // counted in the last 24 h, or since the start
	MonthBytes  int64 `json:"month_bytes"`  // 30 days like this one
	BudgetBytes int64 `json:"budget_bytes"` // a month; 0: none
	OverBytes   int64 `json:"over_bytes"`   // a month that the budget is short of
	IntervalS   int   `json:"interval_s"`   // between two pings
}

// meter counts bytes on the line, for the last 24 hours. The zero value counts. Hours in a ring and not a list of
// events: it takes 200 bytes however much is sent, and forgets by itself.
type meter struct {
	mu    sync.Mutex // guards all below
	began time.Time  // monotonic; zero: nothing was counted yet
	hours [24]int64
	hour  int // since began, to which the newest count belongs
}

func (m *meter) add(bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turnLocked()
	m.hours[m.hour%len(m.hours)] += int64(bytes)
}

// turnLocked forgets the hours that are over since a day. Nothing ticks: whoever adds or reads turns the ring, so an
// idle gateway is not woken for its statistics.
func (m *meter) turnLocked() {
	if m.began.IsZero() {
		m.began = time.Now()
	}
	now := int(time.Since(m.began) / time.Hour)
	for range min(now-m.hour, len(m.hours)) {
		m.hour++
		m.hours[m.hour%len(m.hours)] = 0
	}
	m.hour = now
}

// day returns what was counted, and in which time, at most a day.
func (m *meter) day() (bytes int64, span time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turnLocked()
	for _, n := range m.hours {
		bytes += n
	}
	span = time.Since(m.began)
	if m.hour >= len(m.hours) { // the newest hour has just begun
		span = time.Duration(len(m.hours)-1)*time.Hour + span - time.Duration(m.hour)*time.Hour
	}
	return bytes, span
}

// Headers, in bytes, with IPv4; IPv6 adds ipv6Bytes.
const (
	tcpBytes     = 52 // with time stamps
	udpBytes     = 28
	ipv6Bytes    = 20
	openBytes    = 3*tcpBytes + 16 // SYN, SYN and ACK, ACK; options of the first two
	closeBytes   = 4 * tcpBytes
	segmentBytes = 1400
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

type uncountedKey struct{}

// uncounted is a context in which counting does not count. Sessions share a Dialer with the
// control connection, and are no part of what it costs to be reachable.
func uncounted(ctx context.Context) context.Context {
	return context.WithValue(ctx, uncountedKey{}, true)
}

// counting returns dial with connections whose bytes are counted.
func (m *meter) counting(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		// A value of the context and not a second dial function: session and control connection share one Dialer.
		if ctx.Value(uncountedKey{}) != nil {
			return dial(ctx, network, address)
		}
		c := &counted{meter: m, header: udpBytes}
		if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Unmap().Is6() {
			c.header += ipv6Bytes
		}
		if strings.HasPrefix(network, "tcp") {
			c.header += tcpBytes - udpBytes
			c.tcp = true
			m.add(openBytes)
		}
		// After the bytes of the handshake were added: a SYN that nobody answers is paid for as well.
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.Conn = conn
		if packets, ok := conn.(net.PacketConn); ok && !c.tcp { // the resolver looks which it is
			return &countedPackets{c, packets}, nil
		}
		return c, nil
	}
}

// counted counts each Read and Write as the segments that it takes. Headers are estimated from payloads, because the
// kernel's counters are those of the interface and hold sessions and other programs too. A test compares the estimate
// with packets of a real kernel (wire §4.6.2).
type counted struct {
	net.Conn
	meter  *meter
	header int
	tcp    bool
	closed sync.Once
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(n, c.tcp) // each segment that comes is acknowledged by one of ours
	return n, err
}

// Write does not count the peer's acknowledgements: they come with its answer, as to
// everything that an idle gateway sends.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(n, false)
	return n, err
}

func (c *counted) note(n int, acknowledged bool) {
	if n <= 0 {
		return
	}
	packets := 1
	if c.tcp {
		packets = (n + segmentBytes - 1) / segmentBytes
	}
	if acknowledged {
		c.meter.add(packets * c.header)
	}
	c.meter.add(n + packets*c.header)
}

// Close counts once: TLS and the search both close, and the FIN is sent once.
func (c *counted) Close() error {
	c.closed.Do(func() {
		if c.tcp {
			c.meter.add(closeBytes)
		}
	})
	return c.Conn.Close()
}

// SetKeepAliveConfig is there for transport, which sets it. It asks for this method, which an embedded net.Conn hides:
// without it keepalive would stay on, and cost ten times what the pings cost (wire §4.6).
func (c *counted) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.SetKeepAliveConfig(k)
	}
	return nil
}

// countedPackets is counted for a socket of datagrams.
type countedPackets struct {
	*counted
	packets net.PacketConn
}

func (c *countedPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.packets.ReadFrom(b)
	c.note(n, false)
	return n, from, err
}

func (c *countedPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.packets.WriteTo(b, to)
	c.note(n, false)
	return n, err
}
