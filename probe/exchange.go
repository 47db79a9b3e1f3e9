package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// caseGrace is how long to wait for an answer in the right letter case after one in the wrong case, which may be forged
// (names §2). The true answer comes a round trip after the query at most, however early a forged one is.
const caseGrace = 300 * time.Millisecond

// datagramBytes is more than the size that EDNS announces. A larger answer is cut off,
// so it cannot be parsed, and is asked for again over TCP.
const datagramBytes = 4096

// exchange asks one server over one network and waits for its answer until
// ctx ends (names §2). Its reply is never `ignored` nor `mangled`.
func (r *Resolver) exchange(ctx context.Context, network string, server netip.AddrPort, name string, qtype uint16) reply {
	conn, err := r.dial(ctx, network, server)
	if err != nil {
		return failed(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if network == "tcp" {
		return overTCP(ctx, conn, newQuery(name, qtype, false))
	}
	mixed := !r.keepsNoCase(server)
	rep := overUDP(ctx, conn, newQuery(name, qtype, mixed))
	if rep.fit != mangled {
		return rep
	}
	r.setKeepsNoCase(server)
	return r.exchange(ctx, network, server, name, qtype) // without mixed case the reply cannot be mangled, so this is no loop
}

// overUDP sends q, repeats it while no answer comes, and returns the first datagram that answers it. The socket is
// connected, so that the kernel drops what other hosts send, and its port is random: 16 bits more that a forger has to
// guess.
func overUDP(ctx context.Context, conn net.Conn, q query) reply {
	buf := make([]byte, datagramBytes)
	edns := true
	for wait := silence; ; wait *= 2 {
		if err := sendUDP(conn, q, edns); err != nil {
			return failed(ctx, err)
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		rep, err := readUDP(conn, q, buf)
		switch {
		case err == nil && (rep.fit != formErr || !edns):
			return rep
		case err != nil && (ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded)):
			return failed(ctx, err)
		}
		// Some firewalls drop EDNS without a word, so that silence may mean that as well.
		edns = false
	}
}

func sendUDP(conn net.Conn, q query, edns bool) error {
	msg, err := q.pack(edns)
	if err == nil {
		_, err = conn.Write(msg)
	}
	return err
}

// readUDP waits for a datagram that answers q. A flood of others costs time until the
// deadline, and no memory. After one whose letter case is wrong, which may be forged,
// it waits for the right one for caseGrace.
func readUDP(conn net.Conn, q query, buf []byte) (reply, error) {
	var odd reply
	for {
		n, err := conn.Read(buf)
		if odd.fit == mangled && errors.Is(err, os.ErrDeadlineExceeded) {
			return odd, nil
		}
		if err != nil {
			return reply{}, err
		}
		switch rep := judge(q, buf[:n]); {
		case rep.fit == mangled && odd.fit != mangled:
			odd = rep
			conn.SetReadDeadline(time.Now().Add(caseGrace))
		case rep.fit != ignored && rep.fit != mangled:
			return rep, nil
		}
	}
}

// overTCP sends q over a stream: two bytes of length, then the message (RFC 1035
// §4.2.2). It has no EDNS, which announces the size of datagrams.
func overTCP(ctx context.Context, conn net.Conn, q query) reply {
	msg, err := q.pack(false)
	if err != nil {
		return failed(ctx, err)
	}
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	if _, err := conn.Write(framed); err != nil {
		return failed(ctx, err)
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return failed(ctx, err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:])) // 64 KiB at most
	if _, err := io.ReadFull(conn, answer); err != nil {
		return failed(ctx, err)
	}
	rep := judge(q, answer)
	if rep.fit == ignored {
		return reply{fit: answered, reason: ReasonBadReply}
	}
	return rep
}

// failed is the reply in place of that of a server that gave none. Refused and unreachable are known at once and worth
// another way now; silence is not.
func failed(ctx context.Context, err error) reply {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return reply{reason: ReasonTimeout}
	}
	return reply{reason: ReasonUnreachable}
}

func (r *Resolver) dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	if r.Dial != nil {
		return r.Dial(ctx, network, server.String())
	}
	return new(net.Dialer).DialContext(ctx, network, server.String())
}

// How long a server is treated specially before the usual way is tried again.
const (
	caseMemory = 24 * time.Hour // names §2
	tcpMemory  = time.Hour      // names §3
	maxQuirks  = 32             // servers that are kept, since a machine moves between networks
)

// quirk is the special treatment that one server needs.
type quirk struct {
	noCase   time.Time // until then it is not asked in mixed case
	tcpFirst time.Time // until then it is asked over TCP first
}

func (r *Resolver) keepsNoCase(server netip.AddrPort) bool {
	return time.Now().Before(r.quirk(server).noCase)
}

func (r *Resolver) tcpFirst(server netip.AddrPort) bool {
	return time.Now().Before(r.quirk(server).tcpFirst)
}

func (r *Resolver) setKeepsNoCase(server netip.AddrPort) {
	r.learn(server, func(q *quirk) { q.noCase = time.Now().Add(caseMemory) })
	r.log().Info("resolver changes the case of names", "addr", server)
}

func (r *Resolver) setTCPFirst(server netip.AddrPort, on bool) {
	if !on {
		r.learn(server, func(q *quirk) { q.tcpFirst = time.Time{} })
		return
	}
	r.learn(server, func(q *quirk) { q.tcpFirst = time.Now().Add(tcpMemory) })
	r.log().Info("resolver answers over tcp only", "addr", server)
}

func (r *Resolver) quirk(server netip.AddrPort) quirk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quirks[server]
}

// learn drops all when there are too many: a list by age would be code for something that a site with one resolver
// never sees.
func (r *Resolver) learn(server netip.AddrPort, change func(*quirk)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.quirks == nil || len(r.quirks) >= maxQuirks {
		r.quirks = make(map[netip.AddrPort]quirk) // what is dropped is learnt again
	}
	q := r.quirks[server]
	change(&q)
	r.quirks[server] = q
}
