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

// caseGrace is how long an answer in the right letter case may still come
// after one in the wrong case (names §2).
const caseGrace = 300 * time.Millisecond

// datagramBytes is room for answers larger than the one we announce; what is
// cut off is found unreadable and asked again over TCP.
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
		return overTCP(ctx, conn, newQuestion(name, qtype, false))
	}
	mixed := !r.keepsNoCase(server)
	rep := overUDP(ctx, conn, newQuestion(name, qtype, mixed))
	if rep.verdict != mangled {
		return rep
	}
	r.setKeepsNoCase(server)
	return r.exchange(ctx, network, server, name, qtype) // once: no case, no mangling
}

// overUDP sends q, again and again while there is silence, and waits for the
// datagram that answers it.
func overUDP(ctx context.Context, conn net.Conn, q question) reply {
	buf := make([]byte, datagramBytes)
	edns := true
	for wait := silence; ; wait *= 2 {
		if err := sendUDP(conn, q, edns); err != nil {
			return failed(ctx, err)
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		rep, err := readUDP(conn, q, buf)
		switch {
		case err == nil && (rep.verdict != formErr || !edns):
			return rep
		case err != nil && (ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded)):
			return failed(ctx, err)
		}
		edns = false
	}
}

func sendUDP(conn net.Conn, q question, edns bool) error {
	msg, err := q.pack(edns)
	if err == nil {
		_, err = conn.Write(msg)
	}
	return err
}

// readUDP waits for a datagram that is not to be ignored. A flood of others
// costs time until the deadline and no memory. One that is right but for the
// letter case may be forged: the right one has caseGrace to come as well.
func readUDP(conn net.Conn, q question, buf []byte) (reply, error) {
	var odd reply
	for {
		n, err := conn.Read(buf)
		if odd.verdict == mangled && errors.Is(err, os.ErrDeadlineExceeded) {
			return odd, nil
		}
		if err != nil {
			return reply{}, err
		}
		switch rep := judge(q, buf[:n]); {
		case rep.verdict == mangled && odd.verdict != mangled:
			odd = rep
			conn.SetReadDeadline(time.Now().Add(caseGrace))
		case rep.verdict != ignored && rep.verdict != mangled:
			return rep, nil
		}
	}
}

// overTCP asks over a stream: two bytes of length, then the message (RFC 1035
// §4.2.2), here without EDNS, since a stream has no size to announce.
func overTCP(ctx context.Context, conn net.Conn, q question) reply {
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
	if rep.verdict == ignored {
		return reply{verdict: answered, reason: ReasonBadReply}
	}
	return rep
}

// failed is the reply for a server that did not give one.
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
